//! What can go wrong with an exported model.

use std::path::{Path, PathBuf};

use flowmill_models::extractors::{ExtractError, StateError};

/// Why a model could not be exported or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `config.json` does not describe a model.
    #[error("{}: {reason}", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The weights do not belong to the model.
    #[error("{}: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
    /// The device cannot be used, or has no memory for the model.
    #[error(transparent)]
    Device(#[from] flowmill_nn::NnError),
    /// An extractor's fitted state cannot be used.
    #[error(transparent)]
    Extractor(#[from] StateError),
    /// A recording gives no tokens or no embedding.
    #[error("{}: {source}", path.display())]
    Recording {
        /// The recording.
        path: PathBuf,
        /// Why.
        source: ExtractError,
    },
    /// The model could not generate.
    #[error("generating: {reason}")]
    Generate {
        /// Why.
        reason: String,
    },
    /// A row of a shard lacks what the model reads.
    #[error(transparent)]
    Column(#[from] flowmill_corpus::ColumnError),
    /// Audio could not be made or written.
    #[error(transparent)]
    Audio(#[from] flowmill_audio::AudioError),
}

impl ExportError {
    /// An error of the file system about `path`.
    pub fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}
