//! The one error type of the crate.

use std::io;
use std::path::{Path, PathBuf};

use flowmill_audio::program::ProgramError;

/// What can go wrong with a corpus as a whole. A problem of a single row is a [`crate::Rejection`] instead.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// The operating system refused a read or a write.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// "read", "write", "list" …
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file or directory is not of the shape its format asks for; the message says what to do.
    #[error("{}: {problem}", path.display())]
    Structure {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong and how to repair it.
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
        /// The Parquet library's reason.
        source: parquet::errors::ParquetError,
    },
    /// A file's content does not have the checksum its index recorded.
    #[error(
        "{}: its content has BLAKE3 {found}, the index says {expected}; delete the file and run the pack stage again",
        path.display()
    )]
    Checksum {
        /// The shard.
        path: PathBuf,
        /// What the index recorded, in hexadecimal.
        expected: String,
        /// What was found, in hexadecimal.
        found: String,
    },
    /// A piped `wav.scp` entry did not give usable bytes.
    #[error("the command `{command}` {problem}")]
    Pipe {
        /// The command, without the trailing `|`.
        command: String,
        /// What happened.
        problem: ProgramError,
    },
}

impl CorpusError {
    /// Whether this machine at this time is to blame, and not the data. What a command gives is taken to depend on the machine: on
    /// programs that are installed, and on files that nobody declares.
    pub fn is_of_machine(&self) -> bool {
        match self {
            Self::Io { source, .. } => flowmill_audio::is_of_machine(source),
            Self::Pipe { .. } => true,
            _ => false,
        }
    }

    /// The error in words in which files are named from the folder `root`, so that they are the same wherever that lies.
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
