//! The failure of a command, and how it is reported.

use std::{fmt, io};

use flowmill_collective::CollectiveError;
use flowmill_runner::{RecipeError, RunError};

use crate::style;

/// The reason why a command did not succeed. Each kind has its exit code.
#[derive(Debug)]
pub enum Failure {
    /// The command line or the recipe is invalid: exit code 2.
    Usage(anyhow::Error),
    /// A stage failed, or a file could not be read: exit code 1.
    Failed(anyhow::Error),
    /// Everything was already reported; only the exit code 1 remains.
    Told,
    /// Everything was already reported; only the exit code 2 remains.
    ToldUsage,
    /// Ctrl-C, or a termination signal: exit code 130.
    Interrupted,
    /// The same, if no progress is kept from which to continue.
    Stopped,
    /// The reader of the output has closed it, as after `| head`: exit code 0.
    Closed,
}

impl Failure {
    /// Creates the error of an invalid command line; `message` says what is wrong.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::Usage(anyhow::anyhow!("{message}"))
    }

    /// Converts an error of a reader or writer. A closed output is not an error.
    pub fn from_any(error: anyhow::Error) -> Self {
        let closed = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
        };
        if error.chain().any(closed) { Self::Closed } else { Self::Failed(error) }
    }

    /// Returns the exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Told => 1,
            Self::Usage(_) | Self::ToldUsage => 2,
            Self::Interrupted | Self::Stopped => 130,
            Self::Closed => 0,
        }
    }

    /// Prints the error and its causes on the standard error stream.
    pub fn report(&self) {
        match self {
            Self::Usage(error) | Self::Failed(error) => report(error),
            Self::Interrupted => {
                style::warning("interrupted; finished work is kept; run the same command again to continue");
            }
            Self::Told | Self::ToldUsage | Self::Stopped | Self::Closed => {}
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) | Self::Failed(error) => write!(formatter, "{error:#}"),
            Self::Told | Self::ToldUsage => formatter.write_str("failed"),
            Self::Interrupted | Self::Stopped => formatter.write_str("interrupted"),
            Self::Closed => formatter.write_str("the output was closed"),
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
    /// Converts an error of writing to the output.
    fn from(error: io::Error) -> Self {
        Self::from_any(error.into())
    }
}

/// The kind of an error of starting or connecting several processes.
const PROCESSES: &str = "processes";

/// Returns the kind of an error, under which `docs/ERRORS.md` explains it.
fn kind(error: &anyhow::Error) -> Option<&'static str> {
    let of_run = error.downcast_ref::<RunError>().map(RunError::kind);
    let of_recipe = || error.is::<RecipeError>().then_some(RecipeError::KIND);
    of_run.or_else(of_recipe).or_else(|| error.is::<CollectiveError>().then_some(PROCESSES))
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
