//! The dimensions and settings of VALL-E, with those of the published full-size model as defaults.

use super::{Result, VallEError};
use crate::llama::LlamaConfig;
use flowmill_nn::Activation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Largest size of a dimension, which keeps products of sizes within range.
const LARGEST: usize = 1 << 20;
/// Digits of a length, and the token that ends it.
pub(super) const LENGTH_TOKENS: usize = 11;

/// Dimensions and settings of VALL-E.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VallEConfig {
    /// Channels of the transformer.
    pub dim: usize,
    /// Attention heads; each needs an even number of channels.
    pub heads: usize,
    /// Blocks of the transformer.
    pub layers: usize,
    /// Channels inside the feed-forward layers, as a multiple of `dim`.
    pub ffn_multiple: usize,
    /// Levels of the codec, that is, codes per frame.
    pub levels: usize,
    /// Codes per level of the codec.
    pub audio_tokens: usize,
    /// Phoneme symbols.
    pub phoneme_tokens: usize,
    /// Languages that have an embedding.
    pub languages: usize,
    /// Tones of voice that have an embedding; the published model was trained without tones.
    pub tones: usize,
    /// Tasks that have a token.
    pub tasks: usize,
    /// Dropout on attention weights.
    pub attention_dropout: f32,
}

impl Default for VallEConfig {
    fn default() -> Self {
        Self {
            dim: 1024,
            heads: 16,
            layers: 12,
            ffn_multiple: 4,
            levels: 8,
            audio_tokens: 1024,
            phoneme_tokens: 256,
            languages: 4,
            tones: 1,
            tasks: 8,
            attention_dropout: 0.1,
        }
    }
}

impl VallEConfig {
    /// Checks that the settings are consistent.
    ///
    /// # Errors
    /// [`VallEError::Config`] names the first wrong setting.
    pub fn check(&self) -> Result<()> {
        let refuse = |field, message: String| Err(VallEError::Config { field, message });
        let sizes = [
            ("dim", self.dim),
            ("heads", self.heads),
            ("layers", self.layers),
            ("ffn_multiple", self.ffn_multiple),
            ("levels", self.levels),
            ("audio_tokens", self.audio_tokens),
            ("phoneme_tokens", self.phoneme_tokens),
            ("languages", self.languages),
            ("tones", self.tones),
            ("tasks", self.tasks),
        ];
        if let Some((field, size)) = sizes.into_iter().find(|(_, size)| !(1..=LARGEST).contains(size)) {
            return refuse(field, format!("{size} is not between 1 and {LARGEST}"));
        }
        if !self.dim.is_multiple_of(2 * self.heads) {
            return refuse("heads", format!("{} channels in {} heads of an even number", self.dim, self.heads));
        }
        // Begin and end of the phonemes have the ids 1 and 2.
        if self.phoneme_tokens < 3 {
            return refuse("phoneme_tokens", format!("{} is less than 3", self.phoneme_tokens));
        }
        if !(0.0..1.0).contains(&self.attention_dropout) {
            return refuse("attention_dropout", format!("{} is not in [0, 1)", self.attention_dropout));
        }
        Ok(())
    }

    /// Returns the code that ends a response of level 0, and that stands for a masked frame.
    pub fn stop_token(&self) -> u32 {
        self.audio_tokens as u32
    }

    /// Returns the settings of the transformer.
    pub(super) fn transformer(&self) -> LlamaConfig {
        LlamaConfig {
            dim: self.dim,
            heads: self.heads,
            key_value_heads: self.heads,
            layers: self.layers,
            ffn: self.ffn_multiple * self.dim,
            activation: Activation::Gelu,
            epsilon: 1e-6,
            rotary_base: 10_000.0,
            attention_dropout: self.attention_dropout,
        }
    }
}
