//! Errors inside a stage.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use crate::RecipeError;

/// The failure of one part, or of planning a stage.
///
/// Converts from [`std::io::Error`], [`RecipeError`] and [`anyhow::Error`], so that a stage may use
/// `.with_context(…)?` freely.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// An error in the stage's own words.
    #[error("{0}")]
    Message(String),
    /// The recipe requires something impossible.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A file could not be read or written.
    #[error("{}: {}", path.display(), describe_io(source))]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: std::io::Error,
    },
    /// The user stopped the work. A resumable part continues in the next run.
    #[error("interrupted")]
    Interrupted,
    /// The rows of a part do not add up.
    #[error("rows do not add up: {rows_in} in, but {rows_out} out and {rejected} rejected")]
    RowsLost {
        /// Rows that came in.
        rows_in: u64,
        /// Rows that went out.
        rows_out: u64,
        /// Rows that were rejected.
        rejected: u64,
    },
    /// The rows of two phases do not add up.
    #[error("rows do not add up: a phase gave {gave} and the next one took {took}")]
    RowsLostBetween {
        /// Rows that went out of a phase.
        gave: u64,
        /// Rows that came into the next one.
        took: u64,
    },
    /// Two parts write the same file.
    #[error("the parts {} and {} both write {output}", parts[0], parts[1])]
    OutputOfTwo {
        /// The part that wrote it first, and the other part.
        parts: Box<[String; 2]>,
        /// The file, relative to the stage's folder.
        output: String,
    },
    /// No more bytes fit on the disk; says where and how many are left.
    #[error("{0}")]
    DiskFull(String),
    /// An error of another crate.
    #[error("{}", chain(.0.as_ref()))]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StageError {
    /// Creates an error in the stage's own words: what went wrong, where, and what to do.
    pub fn new(message: impl Display) -> Self {
        Self::Message(message.to_string())
    }

    /// Creates an input or output error with the path it concerns.
    pub fn file(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::File { path: path.as_ref().to_owned(), source }
    }

    /// Wraps an error of another crate, for `map_err(StageError::other)`.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }

    /// Returns whether an error in the chain of causes says that the disk or its quota is full.
    pub fn is_disk_full(&self) -> bool {
        if matches!(self, Self::DiskFull(_)) {
            return true;
        }
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if error.downcast_ref::<std::io::Error>().is_some_and(is_disk_full) {
                return true;
            }
            cause = error.source();
        }
        // Some crates keep only the text of the system's error.
        self.to_string().contains("No space left on device")
    }
}

impl From<std::io::Error> for StageError {
    fn from(error: std::io::Error) -> Self {
        Self::Other(Box::new(error))
    }
}

impl From<anyhow::Error> for StageError {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<StageError>() {
            Ok(stage_error) => stage_error,
            Err(other) => Self::Other(other.into()),
        }
    }
}

impl From<String> for StageError {
    fn from(message: String) -> Self {
        Self::Message(message)
    }
}

impl From<&str> for StageError {
    fn from(message: &str) -> Self {
        Self::Message(message.to_owned())
    }
}

/// Returns whether a system error means that no more bytes fit: full disk, quota, or the limit on file sizes.
pub(crate) fn is_disk_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// Describes a system error, in plainer words where the system's are hard to understand.
pub(crate) fn describe_io(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    // EPERM, which has the kind of EACCES.
    if error.raw_os_error() == Some(1) {
        return "operation not permitted: the file or its folder may be immutable or append-only (lsattr shows that, chattr -i and chattr \
                -a undo it), or belong to another user"
            .to_owned();
    }
    match error.kind() {
        ErrorKind::StorageFull => "no space left on the disk".to_owned(),
        ErrorKind::QuotaExceeded => "the disk quota is used up".to_owned(),
        ErrorKind::FileTooLarge => "the file would exceed the limit on file sizes".to_owned(),
        ErrorKind::NotFound => "not found".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Formats an error and its causes in one line. A cause that its effect already quotes is left out.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = inner.source();
    }
    text
}
