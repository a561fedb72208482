//! The error of a file that a recipe names.

use std::path::PathBuf;

/// The reason why a file of symbols, similarities or a tokenizer cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file or the folder cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or the folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is of another form.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The fault.
        problem: String,
    },
}
