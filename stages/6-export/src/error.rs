//! Errors of an exported model.

use std::path::{Path, PathBuf};

use flowmill_family::BoxError;

/// The reason why a model could not be exported or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// `config.json` does not describe a model.
    #[error("{}: {reason}", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// The weights do not belong to the model.
    #[error("{}: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// The device cannot be used, or has no memory for the model.
    #[error(transparent)]
    Device(#[from] flowmill_nn::NnError),
    /// The model does not speak texts.
    #[error("{}: a model of the family `{family}` does not speak texts", folder.display())]
    Silent {
        /// Its folder.
        folder: PathBuf,
        /// Its family.
        family: &'static str,
    },
    /// The model could not be used in the requested way.
    #[error(transparent)]
    Model(BoxError),
}

impl ExportError {
    /// Creates an error of the file system about `path`.
    pub fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}
