//! Errors of using a token-to-mel model.

use std::path::PathBuf;

use flowmill_extract::{ExtractError, StateError};
use flowmill_family::BoxError;
use flowmill_networks::flow::FlowError;
use flowmill_networks::vocoders::VocoderError;

/// An error of generation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UseError {
    /// A row of a shard lacks what the model reads.
    #[error(transparent)]
    Column(#[from] flowmill_corpus::ColumnError),
    /// An extractor's fitted state cannot be used.
    #[error(transparent)]
    Extractor(#[from] StateError),
    /// No tokens or embedding could be extracted from a recording.
    #[error("{}: {source}", path.display())]
    Recording {
        /// The recording.
        path: PathBuf,
        /// The reason.
        source: ExtractError,
    },
    /// A request without what the model needs.
    #[error("{reason}")]
    Request {
        /// What is missing.
        reason: String,
    },
    /// The sound could not be passed on.
    #[error(transparent)]
    Play(BoxError),
    /// The model could not generate.
    #[error("generating: {reason}")]
    Generate {
        /// The reason.
        reason: String,
    },
    /// An option that the model does not have.
    #[error("{option}: {reason}")]
    Option {
        /// The option.
        option: &'static str,
        /// The reason.
        reason: String,
    },
    /// A neural vocoder cannot be used.
    #[error(transparent)]
    Vocoder(#[from] VocoderError),
    /// Audio could not be decoded or made.
    #[error(transparent)]
    Audio(#[from] flowmill_audio::AudioError),
}

impl From<FlowError> for UseError {
    fn from(error: FlowError) -> Self {
        Self::Generate { reason: error.to_string() }
    }
}
