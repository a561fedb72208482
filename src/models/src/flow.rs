//! The CosyVoice 2 token-to-mel flow (arXiv 2412.10117): speech tokens through a conformer encoder with 2x upsampling to frames, then
//! conditional flow matching to a mel spectrogram with a causal U-Net as the estimator of the velocity.
//!
//! The same function with the same parameter names as the public implementation (FunAudioLLM/CosyVoice: cosyvoice/flow and
//! cosyvoice/transformer; shivammehta25/Matcha-TTS: matcha/models/components). Channels are innermost here, and the items of a batch
//! lie one after the other without padding, so padded frames cost nothing.

mod batch;
mod config;
mod encoder;
mod estimator;
mod generate;
mod model;

pub(crate) use batch::token_ids;
pub use batch::{FlowBatch, FlowDraws, FlowItem};
pub use config::{EncoderConfig, EstimatorConfig, FlowConfig, MatchingConfig, MelNormalisation};
pub use generate::{Generated, GenerationOptions, GenerationRequest, Prompt};
pub(crate) use generate::{Prepared, in_groups};
pub(crate) use model::{Encoded, pack};
pub use model::{Extent, Flow, FlowLoss};

/// What can go wrong with a flow model.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// A layer refused its input.
    #[error(transparent)]
    Nn(#[from] flowmill_nn::NnError),
    /// candle refused.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A setting that does not fit the others.
    #[error("flow configuration, `{field}`: {message}")]
    Config {
        /// The setting, as a dotted path.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// A batch that the model cannot be trained on.
    #[error("flow batch, item {item}: {message}")]
    Batch {
        /// Position of the item in the batch.
        item: usize,
        /// What is wrong with it.
        message: String,
    },
}

/// What every fallible function of the flow returns.
pub type Result<T> = std::result::Result<T, FlowError>;
