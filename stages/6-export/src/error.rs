//! What can go wrong with an exported model.

use std::path::{Path, PathBuf};

use flowmill_family::BoxError;

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
    /// The model could not be used as asked for.
    #[error(transparent)]
    Model(BoxError),
}

impl ExportError {
    /// An error of the file system about `path`.
    pub fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}
