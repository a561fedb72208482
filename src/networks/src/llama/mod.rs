//! The transformer of LLaMA (arXiv 2302.13971): normalization by the root mean square before each part, rotary positions, gated
//! feed-forward layers, no biases. Parameter names are those of the package transformers (`LlamaModel`).
//!
//! [`Llama`] runs on the tape, over packed sequences, also after a [`Prefix`] of given keys and values. [`LlamaDecoder`] runs the same
//! network without a tape, on packed weights and with a cache of keys and values. [`LanguageModel`] adds the embeddings and the classifier
//! of tokens, and generates.

mod block;
mod config;
mod decoder;
mod language_model;
mod prefix;

pub use block::Llama;
pub use config::LlamaFileConfig;
pub use decoder::LlamaDecoder;
pub(crate) use decoder::packed;
pub use language_model::{Generator, LanguageModel};
pub use prefix::Prefix;

use flowmill_nn::Activation;

/// An error of a LLaMA network or its settings.
#[derive(Debug, thiserror::Error)]
pub enum LlamaError {
    /// A layer refused its input.
    #[error(transparent)]
    Nn(#[from] flowmill_nn::NnError),
    /// A setting of a `config.json` that this network does not have.
    #[error("LLaMA's config.json, `{field}`: {message}")]
    Config {
        /// The setting.
        field: &'static str,
        /// The problem.
        message: String,
    },
}

/// Dimensions and settings of the transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Channels of the residual stream.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Heads of keys and values, each shared by the same number of attention heads (grouped-query attention, arXiv 2305.13245).
    pub key_value_heads: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Channels inside the feed-forward layers.
    pub ffn: usize,
    /// Activation of the gate.
    pub activation: Activation,
    /// Number added to the mean squares of the normalizations.
    pub epsilon: f32,
    /// Base of the wavelengths of the rotary positions.
    pub rotary_base: f32,
    /// Rate of the dropout on attention weights in training.
    pub attention_dropout: f32,
}

impl LlamaConfig {
    /// Channels per head.
    pub fn head_width(&self) -> usize {
        self.dim / self.heads.max(1)
    }

    /// Channels of keys and of values.
    pub fn key_value_width(&self) -> usize {
        self.key_value_heads * self.head_width()
    }
}
