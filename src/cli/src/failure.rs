//! How a command ends when it does not succeed, and how that is told.

use std::{fmt, io};

use flowmill_runner::{RecipeError, RunError};

use crate::style;

/// Why a command did not succeed; each kind has its exit code.
#[derive(Debug)]
pub enum Failure {
    /// The command line or the recipe is wrong: exit code 2.
    Usage(anyhow::Error),
    /// A stage failed, or a file could not be read: exit code 1.
    Failed(anyhow::Error),
    /// Everything was already told; only the exit code 1 is left.
    Told,
    /// Everything was already told; only the exit code 2 is left.
    ToldUsage,
    /// Ctrl-C, or a termination signal: exit code 130.
    Interrupted,
    /// The same, where nothing is kept to go on from.
    Stopped,
    /// Nobody reads the output any more, as after `| head`: exit code 0.
    Closed,
}

impl Failure {
    /// The command line is wrong: `message` says how.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::Usage(anyhow::anyhow!("{message}"))
    }

    /// An error of a reader or writer; a closed output is no error.
    pub fn from_any(error: anyhow::Error) -> Self {
        let closed = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
        };
        if error.chain().any(closed) { Self::Closed } else { Self::Failed(error) }
    }

    /// The exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Told => 1,
            Self::Usage(_) | Self::ToldUsage => 2,
            Self::Interrupted | Self::Stopped => 130,
            Self::Closed => 0,
        }
    }

    /// Prints the error and what caused it on the standard error stream.
    pub fn report(&self) {
        match self {
            Self::Usage(error) | Self::Failed(error) => report(error),
            Self::Interrupted => {
                style::warning("interrupted; what is finished is kept, run the same command again to go on");
            }
            Self::Told | Self::ToldUsage | Self::Stopped | Self::Closed => {}
        }
    }
}

impl From<RecipeError> for Failure {
    fn from(error: RecipeError) -> Self {
        Self::Usage(error.into())
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error.exit_code() {
            130 => Self::Interrupted,
            2 => Self::Usage(error.into()),
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<io::Error> for Failure {
    /// What writing to the output reports.
    fn from(error: io::Error) -> Self {
        Self::from_any(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) | Self::Failed(error) => write!(out, "{error:#}"),
            Self::Told | Self::ToldUsage => write!(out, "failed"),
            Self::Interrupted | Self::Stopped => write!(out, "interrupted"),
            Self::Closed => write!(out, "nobody reads the output"),
        }
    }
}

/// Returns the kind of an error of a recipe or a run, by which `docs/ERRORS.md` explains it.
fn kind(error: &anyhow::Error) -> Option<&'static str> {
    let of_run = error.downcast_ref::<RunError>().map(RunError::kind);
    of_run.or_else(|| error.is::<RecipeError>().then_some(RecipeError::KIND))
}

/// Prints one error: its message, then each cause that the message does not already contain.
fn report(error: &anyhow::Error) {
    let mut told = error.to_string();
    match kind(error) {
        Some(kind) => style::error_of_kind(kind, &told),
        None => style::error(&told),
    }
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        if !told.contains(&text) {
            style::cause(&text);
            told.push_str(&text);
        }
    }
}
