//! Errors of vocoders.

use std::path::PathBuf;

use flowmill_audio::AudioError;
use flowmill_extract::UnusableWeights;
use flowmill_nn::NnError;

/// The reason why a vocoder cannot be opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VocoderError {
    /// A weight file cannot be read, or has the weights of another network.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// The weights are those of another network.
    #[error(transparent)]
    Weights(#[from] UnusableWeights),
    /// A setting of the public configuration that cannot be used.
    #[error("the vocoder's configuration: {0}")]
    Config(String),
    /// A mel that the vocoder does not decode.
    #[error("{0}")]
    Mel(String),
    /// A network refused its input.
    #[error(transparent)]
    Network(#[from] NnError),
    /// A spectrum could not be turned into sound.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// The result has a sample that is not finite.
    #[error("the vocoder gave a sample that is not finite")]
    NotFinite,
}

impl From<candle_core::Error> for VocoderError {
    fn from(error: candle_core::Error) -> Self {
        Self::Network(error.into())
    }
}
