//! A shard being written, in either format.

use std::path::Path;

use flowmill_corpus::CorpusError;
use flowmill_corpus::shard::{ShardOptions, ShardRow, ShardSummary, ShardWriter, TarShardWriter};

use crate::{Container, PackConfig};

/// Writes rows into a shard of the format that the recipe names.
pub enum Writer {
    /// Parquet.
    Parquet(Box<ShardWriter>),
    /// A WebDataset tar file.
    Webdataset(Box<TarShardWriter>),
}

impl Writer {
    /// Starts a shard.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(config: &PackConfig, path: &Path) -> Result<Self, CorpusError> {
        let mel = config.mel.store;
        match config.format {
            Container::Webdataset => TarShardWriter::create(path, mel).map(|writer| Self::Webdataset(Box::new(writer))),
            Container::Parquet => {
                let options = ShardOptions {
                    mel,
                    compression_level: config.compression_level,
                    metadata: vec![("flowmill.mel".into(), config.mel.describe().to_string())],
                };
                ShardWriter::create(path, &options).map(|writer| Self::Parquet(Box::new(writer)))
            }
        }
    }

    /// Appends a row.
    ///
    /// # Errors
    /// When it does not fit the shard or cannot be written.
    pub fn push(&mut self, row: ShardRow) -> Result<(), CorpusError> {
        match self {
            Self::Parquet(writer) => writer.push(row),
            // Named by what it is: the original may have had a wrong name, or be a piece cut out.
            Self::Webdataset(writer) => {
                writer.push(&row, flowmill_audio::extension(&row.audio_data).unwrap_or("audio"))
            }
        }
    }

    /// Ends the shard.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(self) -> Result<ShardSummary, CorpusError> {
        match self {
            Self::Parquet(writer) => writer.finish(),
            Self::Webdataset(writer) => writer.finish(),
        }
    }
}
