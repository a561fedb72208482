//! PMG (personalized multimodal generation with large language models, arXiv 2404.08677): soft prompts that turn the texts of a person's
//! history, read by a frozen language model, into conditions of a frozen diffusion model. Names of the trained parameters are those of
//! the public implementation (INTREBID/PMG: pmg/models/soft_prompt.py).
//!
//! Trained are the embeddings of image prompts, which follow the text; the keys and values of a prefix, which every row sees; and the
//! projection from the states of the image prompts to the conditions. Gradients flow through both frozen networks.

mod config;
mod model;
mod prompts;

pub use config::PmgConfig;
pub use model::{Frozen, Pmg, PmgBatch, PmgPrediction, PmgSettings};
pub use prompts::SoftPrompts;

use crate::llama::LlamaError;
use crate::stable_diffusion::DiffusionError;

/// An error of the PMG network.
#[derive(Debug, thiserror::Error)]
pub enum PmgError {
    /// A layer refused its input.
    #[error(transparent)]
    Nn(#[from] flowmill_nn::NnError),
    /// The language model refused its settings.
    #[error(transparent)]
    Llama(#[from] LlamaError),
    /// The diffusion model refused its settings or input.
    #[error(transparent)]
    Diffusion(#[from] DiffusionError),
    /// A setting that cannot be used, or contradicts others.
    #[error("PMG configuration, `{field}`: {message}")]
    Config {
        /// The setting.
        field: &'static str,
        /// The problem.
        message: String,
    },
    /// A text that is too long for the model.
    #[error(
        "item {item}: the text has {tokens} tokens; with {prompts} image prompts it is {excess} longer than \
         `max_sequence_length` ({limit})"
    )]
    TooLong {
        /// Position of the item in the batch.
        item: usize,
        /// Number of its tokens.
        tokens: usize,
        /// Number of image prompts.
        prompts: usize,
        /// The largest number of tokens and prompts.
        limit: usize,
        /// Number of tokens that are too many.
        excess: usize,
    },
    /// A text without tokens.
    #[error("item {item}: the text has no tokens")]
    Empty {
        /// Position of the item in the batch.
        item: usize,
    },
}

impl From<candle_core::Error> for PmgError {
    fn from(error: candle_core::Error) -> Self {
        Self::Nn(error.into())
    }
}

/// The result of every fallible function of the network.
pub type Result<T> = std::result::Result<T, PmgError>;
