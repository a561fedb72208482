//! A writer of a shard in either format.

use std::path::Path;

use flowmill_corpus::shard::{ShardOptions, ShardSummary, ShardWriter, TarShardWriter, speech};
use flowmill_corpus::{ColumnSpec, CorpusError, Row};

use crate::{Container, PackConfig};

/// A writer of rows into a shard of the recipe's format.
pub enum Writer {
    /// Parquet.
    Parquet(Box<ShardWriter>),
    /// A WebDataset tar file.
    Webdataset(Box<TarShardWriter>),
}

impl Writer {
    /// Starts a shard with these columns.
    ///
    /// # Errors
    /// Returns an error if the file cannot be created.
    pub fn create(config: &PackConfig, columns: &[ColumnSpec], path: &Path) -> Result<Self, CorpusError> {
        match config.format {
            Container::Webdataset => {
                TarShardWriter::create(path, columns).map(|writer| Self::Webdataset(Box::new(writer)))
            }
            Container::Parquet => {
                let options = ShardOptions {
                    columns: columns.to_vec(),
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
    /// Returns an error if it does not match the shard or cannot be written.
    pub fn push(&mut self, row: Row) -> Result<(), CorpusError> {
        match self {
            Self::Parquet(writer) => writer.push(row),
            // Named by its actual format: the original may have had a wrong name, or be a piece of a recording.
            Self::Webdataset(writer) => {
                let recording = row.bytes(speech::AUDIO_DATA).unwrap_or_default();
                writer.push(&row, flowmill_audio::extension(recording).unwrap_or("audio"))
            }
        }
    }

    /// Ends the shard.
    ///
    /// # Errors
    /// Returns an error if writing fails.
    pub fn finish(self) -> Result<ShardSummary, CorpusError> {
        match self {
            Self::Parquet(writer) => writer.finish(),
            Self::Webdataset(writer) => writer.finish(),
        }
    }
}
