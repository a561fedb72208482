//! Errors of golden files that cannot be checked.

use flowmill_audio::AudioError;
use flowmill_image::ImageError;
use flowmill_nn::{LoadReport, NnError};
use flowmill_weights::WeightError;

use crate::clip::ClipError;
use crate::float::FloatError;
use crate::flow::FlowError;
use crate::llama::LlamaError;
use crate::pmg::PmgError;
use crate::stable_diffusion::DiffusionError;
use crate::vall_e::VallEError;
use crate::vocoders::VocoderError;
use flowmill_extract::extractors::campplus::CampplusError;
use flowmill_extract::{CodecError, ExtractError, UnusableWeights};

/// The reason why a golden file cannot be checked. The caller adds the file's name.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// It cannot be read: missing, damaged, or with a number that is not finite.
    #[error("{0}")]
    Unreadable(String),
    /// An intact file of tensors that is not a golden file.
    #[error("this is not a golden file: {0}")]
    NotGolden(String),
    /// There is no model with this name.
    #[error("there is no model `{model}` (known: {known})")]
    UnknownModel {
        /// The name of the model in the file.
        model: String,
        /// The models that can be checked.
        known: String,
    },
    /// The configuration lacks a value, or has one that cannot be used.
    #[error("`config.{key}` {problem}")]
    Config {
        /// The key, as a dotted path.
        key: String,
        /// The problem.
        problem: String,
    },
    /// A tensor that the model needs is missing.
    #[error("tensor `{0}` is missing")]
    Missing(String),
    /// A tensor with another shape, type or range than the model's.
    #[error("tensor `{name}` is {found}, the model needs {expected}")]
    Tensor {
        /// The tensor.
        name: String,
        /// The shape, type or range in the file.
        found: String,
        /// The expected shape, type or range.
        expected: String,
    },
    /// An expected tensor that the model does not compute.
    #[error("the model {model} does not compute `{name}`")]
    Unchecked {
        /// The tensor.
        name: String,
        /// The model's name.
        model: String,
    },
    /// The weights are not those of the model that the configuration describes.
    #[error("its weights do not match the model that its `config` describes: {0}")]
    Weights(LoadReport),
    /// A layer refused its input.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// A tensor of the file cannot be converted.
    #[error(transparent)]
    Stored(#[from] WeightError),
    /// The weights are not those of the model.
    #[error(transparent)]
    UnusableWeights(#[from] UnusableWeights),
    /// An extractor refused its input.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// A codec refused its codes.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The flow refused its configuration or batch.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// FLOAT's transformer refused its configuration or batch.
    #[error(transparent)]
    Float(#[from] FloatError),
    /// VALL-E refused its configuration, a sample or a request.
    #[error(transparent)]
    VallE(#[from] VallEError),
    /// A LLaMA refused its settings or input.
    #[error(transparent)]
    Llama(#[from] LlamaError),
    /// A latent diffusion model refused its settings or input.
    #[error(transparent)]
    Diffusion(#[from] DiffusionError),
    /// CLIP refused its settings or input.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// PMG refused its settings or a batch.
    #[error(transparent)]
    Pmg(#[from] PmgError),
    /// A vocoder refused its settings, weights or input.
    #[error(transparent)]
    Vocoder(#[from] VocoderError),
    /// Images cannot be compared.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The weights are not those of a speaker encoder.
    #[error(transparent)]
    Campplus(#[from] CampplusError),
    /// A feature could not be computed.
    #[error(transparent)]
    Audio(#[from] AudioError),
}

impl From<candle_core::Error> for ParityError {
    fn from(error: candle_core::Error) -> Self {
        Self::Nn(error.into())
    }
}

impl ParityError {
    /// Creates the error of a tensor that differs from the model's.
    pub(super) fn tensor(name: &str, found: impl ToString, expected: impl ToString) -> Self {
        Self::Tensor { name: name.to_owned(), found: found.to_string(), expected: expected.to_string() }
    }

    /// Creates the error of an invalid value of the configuration.
    pub(super) fn config(path: &[&str], problem: impl ToString) -> Self {
        Self::Config { key: path.join("."), problem: problem.to_string() }
    }
}
