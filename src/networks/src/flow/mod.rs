//! Token-to-mel flows: speech tokens through an encoder with 2x upsampling to frames, then conditional flow matching to a mel
//! spectrogram.
//!
//! | | tokens | encoder | estimator of the velocity | public implementation |
//! |---|---|---|---|---|
//! | CosyVoice 2 (arXiv 2412.10117) | one id per token | conformer | causal U-Net | FunAudioLLM/CosyVoice: cosyvoice/flow, cosyvoice/transformer; shivammehta25/Matcha-TTS: matcha/models/components |
//! | CosyVoice 3 (arXiv 2505.17589) | one id per token | look-ahead convolutions | transformer with rotary positions (DiT) | FunAudioLLM/CosyVoice: cosyvoice/flow, cosyvoice/flow/DiT |
//! | Step-Audio (arXiv 2511.03601) | two ids per token, one from each codebook | conformer | transformer with causal convolutions (DiT) | stepfun-ai/Step-Audio-EditX: stepvocoder/cosyvoice2 |
//!
//! Each is the same function as the public one, with the same parameter names. Everything except the embedding of the
//! tokens, the encoder and the estimator is shared. Channels are innermost here, and the items of a batch are concatenated without
//! padding, so padded frames cost nothing.

mod batch;
mod config;
mod direct;
mod encoder;
mod estimate;
mod estimator;
mod generate;
mod model;
mod onnx;
mod rows;

pub use batch::{FlowBatch, FlowDraws, FlowItem};
pub use config::{
    ConditionsConfig, CosyVoice3Config, DitConfig, EncoderConfig, EstimatorConfig, FlowConfig, MatchingConfig,
    MelNormalization, RotaryDitConfig, StepAudioConfig, UNetConfig,
};
pub use estimate::EstimatorInputs;
use flowmill_extract::dual_codebook::DualCodebookError;
pub use generate::{Generated, GenerationOptions, GenerationRequest, Prompt};
pub(crate) use generate::{Prepared, in_groups};
pub(crate) use model::{Encoded, pack};
pub use model::{Extent, Flow, FlowLoss};
pub use onnx::write_estimator;

/// An error of a flow model.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// A layer refused its input.
    #[error(transparent)]
    Nn(#[from] flowmill_nn::NnError),
    /// A setting that contradicts others.
    #[error("flow configuration, `{field}`: {message}")]
    Config {
        /// The setting, as a dotted path.
        field: &'static str,
        /// The problem.
        message: String,
    },
    /// A batch that the model cannot be trained on.
    #[error("flow batch, item {item}: {message}")]
    Batch {
        /// Position of the item in the batch.
        item: usize,
        /// The problem.
        message: String,
    },
}

impl From<candle_core::Error> for FlowError {
    fn from(error: candle_core::Error) -> Self {
        Self::Nn(error.into())
    }
}

/// Tokens of a row that the model has no entries for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// They are no mixed sequence of two codebooks.
    #[error(transparent)]
    DualCodebook(#[from] DualCodebookError),
    /// A token is not in the vocabulary.
    #[error("token {token} is not in the vocabulary of {vocabulary} (train.model.vocab_size)")]
    Vocabulary {
        /// The token.
        token: i64,
        /// Number of entries.
        vocabulary: usize,
    },
}

/// The result of every fallible function of the flow.
pub type Result<T> = std::result::Result<T, FlowError>;
