//! Errors of a row, a configuration, or a fitted state.

use std::path::PathBuf;

use flowmill_corpus::{ColumnError, Role};
use flowmill_weights::WeightError;

/// The reason why one row gives no value; the row is rejected with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// The row's media could not be read or decoded.
    #[error("{0}")]
    Media(String),
    /// This machine could not give the row's media; it may another time.
    #[error("{0}")]
    Machine(String),
    /// The row does not have a medium that this extractor reads.
    #[error("{extractor} reads {wanted}, which the row does not have")]
    NoMedia {
        /// The extractor's kind.
        extractor: &'static str,
        /// The medium.
        wanted: Role,
    },
    /// The row has no text, or none with a letter or a digit.
    #[error("{extractor} reads text, and the row has none with a letter or a digit")]
    NoText {
        /// The extractor's kind.
        extractor: &'static str,
    },
    /// The text is in a language that is unknown or that the extractor does not read.
    #[error("{extractor} does not know the language of the text{}", named(language))]
    Language {
        /// The extractor's kind.
        extractor: &'static str,
        /// The language as the row or the settings name it; empty if they name none.
        language: String,
    },
    /// The text has something that the extractor cannot read.
    #[error("{extractor} cannot read the text: {problem}")]
    Text {
        /// The extractor's kind.
        extractor: &'static str,
        /// The fault, and what to do.
        problem: String,
    },
    /// The recording is shorter than the extractor's smallest unit.
    #[error("too short for {extractor}: {seconds:.3} s of audio, at least {needed:.3} s")]
    TooShort {
        /// The extractor's kind.
        extractor: &'static str,
        /// Length of the recording in seconds.
        seconds: f64,
        /// Smallest length that the extractor accepts, in seconds.
        needed: f64,
    },
    /// A network refused what it was given.
    #[error(transparent)]
    Network(#[from] flowmill_nn::NnError),
    /// The audio could not be resampled or turned into features.
    #[error(transparent)]
    Audio(#[from] flowmill_audio::AudioError),
    /// The extractor gave a value that its column does not hold.
    #[error("{extractor} gave a value that is not one of its column: {source}")]
    Value {
        /// The extractor's kind.
        extractor: &'static str,
        /// The fault.
        source: Box<ColumnError>,
    },
    /// The extractor gave another number of values than it has columns.
    #[error("{extractor} gave {found} values for {wanted} columns")]
    Values {
        /// The extractor's kind.
        extractor: &'static str,
        /// The number of values.
        found: usize,
        /// The number of columns.
        wanted: usize,
    },
    /// The extractor gave codes whose levels do not have the same number of frames.
    #[error("{extractor} gave levels of codes that differ in their number of frames")]
    Levels {
        /// The extractor's kind.
        extractor: &'static str,
    },
    /// The extractor computed something that is not a number.
    #[error("{extractor} gave a value that is not finite")]
    NotFinite {
        /// The extractor's kind.
        extractor: &'static str,
    },
}

/// Formats a language as the end of a message, with what to do.
fn named(language: &str) -> String {
    match language {
        "" => ", which the row does not name: set `language`, such as `language: en`".to_owned(),
        language => format!(", `{}`: correct it in the data, or set `language`", language.escape_debug()),
    }
}

impl ExtractError {
    /// Returns true if the cause is this machine at this time, and not the row.
    pub fn is_of_machine(&self) -> bool {
        match self {
            Self::Machine(_) => true,
            Self::Audio(error) => error.is_of_machine(),
            _ => false,
        }
    }
}

/// Weights that are not those of the model they were given to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnusableWeights(pub String);

impl From<flowmill_nn::NnError> for UnusableWeights {
    fn from(error: flowmill_nn::NnError) -> Self {
        Self(error.to_string())
    }
}

impl From<WeightError> for UnusableWeights {
    fn from(error: WeightError) -> Self {
        match error {
            // Who says whose weights these are names the file.
            WeightError::File { message, .. } => Self(message),
            other => Self(other.to_string()),
        }
    }
}

/// A setting of an extractor that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct ConfigError {
    /// The setting's key inside the extractor's configuration.
    pub field: &'static str,
    /// The fault, and what would be right.
    pub reason: String,
}

impl ConfigError {
    /// An error about one field.
    pub fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into() }
    }
}

/// Fails unless the value of a setting is from `least` to `most`.
pub(crate) fn within(field: &'static str, value: usize, least: usize, most: usize) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::new(field, format!("{value} is not within {least} to {most}")))
}

/// A fitted state, or a part of one, that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not a state.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// The state lacks an array, or has it in another shape or type.
    #[error("the state of {kind} has no array {array:?} of type {wanted}")]
    Missing {
        /// The extractor's kind.
        kind: String,
        /// The array's name.
        array: String,
        /// The expected type and shape.
        wanted: String,
    },
    /// The state belongs to another kind of extractor or to other settings.
    #[error("the state belongs to {found:?}, not to {wanted:?}; fit the extractor again")]
    Foreign {
        /// The kind it was asked for.
        wanted: String,
        /// The kind that it names.
        found: String,
    },
    /// The fit has too few data.
    #[error("{kind} cannot be fitted: {reason}")]
    NotEnough {
        /// The extractor's kind.
        kind: &'static str,
        /// The missing data.
        reason: String,
    },
    /// A program that the extractor runs is missing or cannot be used.
    #[error("{kind} runs the program {program}: {problem}")]
    Program {
        /// The extractor's kind.
        kind: &'static str,
        /// The program's name or path.
        program: String,
        /// The fault, and what to do.
        problem: String,
    },
    /// The result is not a number.
    #[error("fitting {kind} gave a value that is not finite")]
    NotFinite {
        /// The extractor's kind.
        kind: &'static str,
    },
}
