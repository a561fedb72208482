//! The error type of the crate.

use std::io;
use std::path::{Path, PathBuf};

use flowmill_audio::program::ProgramError;

/// An error of a corpus as a whole. A problem of a single row is a [`crate::Rejection`] instead.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// The operating system refused a read or a write.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// "read", "write", "list" …
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file or directory does not have the structure that its format requires; the message says what to do.
    #[error("{}: {problem}", path.display())]
    Structure {
        /// The file or directory.
        path: PathBuf,
        /// The problem, and how to repair it.
        problem: String,
    },
    /// A Parquet table could not be written or read.
    #[error("{}: {source}", path.display())]
    Table {
        /// The Parquet file.
        path: PathBuf,
        /// The Parquet library's reason.
        source: parquet::errors::ParquetError,
    },
    /// A shard could not be written or read.
    #[error("{}: {source}", path.display())]
    Shard {
        /// The shard.
        path: PathBuf,
        /// The error of the Parquet library.
        source: parquet::errors::ParquetError,
    },
    /// A file's content does not match the checksum in its index.
    #[error(
        "{}: its content has BLAKE3 {found}, but the index has {expected}; delete the file and run the pack stage again",
        path.display()
    )]
    Checksum {
        /// The shard.
        path: PathBuf,
        /// The checksum in the index, in hexadecimal.
        expected: String,
        /// The checksum of the content, in hexadecimal.
        found: String,
    },
    /// A piped `wav.scp` entry did not produce usable bytes.
    #[error("the command `{command}` {problem}")]
    Pipe {
        /// The command, without the trailing `|`.
        command: String,
        /// The problem.
        problem: ProgramError,
    },
}

impl CorpusError {
    /// Returns whether the cause is this machine at this time rather than the data. The output of a command counts as
    /// depending on the machine: on installed programs, and on undeclared files.
    pub fn is_of_machine(&self) -> bool {
        match self {
            Self::Io { source, .. } => flowmill_audio::is_of_machine(source),
            Self::Pipe { .. } => true,
            _ => false,
        }
    }

    /// Formats the error with file names relative to the folder `root`, so that the text is the same wherever that
    /// folder is.
    pub fn below(&self, root: &Path) -> String {
        let (words, root) = (self.to_string(), root.display().to_string());
        // The folder itself, as a source, is named `.`.
        let words = if root.is_empty() { words } else { words.replace(&format!("{root}/"), "") };
        words.strip_prefix(&format!("{root}: ")).map(|rest| format!(".: {rest}")).unwrap_or(words)
    }

    /// An input or output error on `path`.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }

    /// A structural problem of `path`.
    pub(crate) fn structure(path: &Path, problem: impl Into<String>) -> Self {
        Self::Structure { path: path.to_path_buf(), problem: problem.into() }
    }

    /// A Parquet error on the table `path`.
    pub(crate) fn table(path: &Path, source: impl Into<parquet::errors::ParquetError>) -> Self {
        Self::Table { path: path.to_path_buf(), source: source.into() }
    }

    /// A Parquet error on the shard `path`.
    pub(crate) fn shard(path: &Path, source: impl Into<parquet::errors::ParquetError>) -> Self {
        Self::Shard { path: path.to_path_buf(), source: source.into() }
    }
}
