//! The transformer of LLaMA (arXiv 2302.13971): normalization by the root mean square before each part, rotary positions, gated
//! feed-forward layers, no biases. Parameter names are those of the package transformers (`LlamaModel`).
//!
//! [`Llama`] runs on the tape, over packed sequences. [`LlamaDecoder`] runs the same network without a tape, on packed weights and with a
//! cache of keys and values.

mod block;
mod decoder;

pub use block::Llama;
pub use decoder::LlamaDecoder;
pub(crate) use decoder::packed;

use flowmill_nn::Activation;

/// Dimensions and settings of the transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Channels of the residual stream.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
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
}
