//! The dimensions and settings of VALL-E, with those of the published full-size model as defaults.

use super::{Result, VallEError};
use crate::llama::LlamaConfig;
use flowmill_nn::Activation;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// Largest size of a dimension, which keeps products of sizes within range.
const LARGEST: usize = 1 << 20;
/// Digits of a length, and the token that ends it.
pub(super) const LENGTH_TOKENS: usize = 11;

/// A published size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ModelSize {
    /// 256 channels, 4 heads, 12 blocks.
    Quarter,
    /// 512 channels, 8 heads, 12 blocks.
    Half,
    /// 1024 channels, 16 heads, 12 blocks.
    Full,
    /// 1024 channels, 16 heads, 24 blocks.
    Double,
}

impl ModelSize {
    /// Returns channels, heads and blocks.
    fn dimensions(self) -> [usize; 3] {
        match self {
            Self::Quarter => [256, 4, 12],
            Self::Half => [512, 8, 12],
            Self::Full => [1024, 16, 12],
            Self::Double => [1024, 16, 24],
        }
    }
}

/// Dimensions and settings of VALL-E.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VallEConfig {
    /// A published size: the defaults of `dim`, `heads` and `layers`.
    ///
    /// Counterparts: VALL-E's `models[].size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<ModelSize>,
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
        let [dim, heads, layers] = ModelSize::Full.dimensions();
        Self {
            size: None,
            dim,
            heads,
            layers,
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

/// The settings as they are given. Missing ones have their defaults, which depend on the size.
#[derive(Deserialize)]
#[serde(rename = "VallEConfig", deny_unknown_fields)]
struct Given {
    size: Option<ModelSize>,
    dim: Option<usize>,
    heads: Option<usize>,
    layers: Option<usize>,
    ffn_multiple: Option<usize>,
    levels: Option<usize>,
    audio_tokens: Option<usize>,
    phoneme_tokens: Option<usize>,
    languages: Option<usize>,
    tones: Option<usize>,
    tasks: Option<usize>,
    attention_dropout: Option<f32>,
}

impl<'de> Deserialize<'de> for VallEConfig {
    /// Reads the settings; a size becomes its dimensions, so that the same model always has the same settings.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let given = Given::deserialize(deserializer)?;
        let own = Self::default();
        let [dim, heads, layers] = given.size.unwrap_or(ModelSize::Full).dimensions();
        Ok(Self {
            size: None,
            dim: given.dim.unwrap_or(dim),
            heads: given.heads.unwrap_or(heads),
            layers: given.layers.unwrap_or(layers),
            ffn_multiple: given.ffn_multiple.unwrap_or(own.ffn_multiple),
            levels: given.levels.unwrap_or(own.levels),
            audio_tokens: given.audio_tokens.unwrap_or(own.audio_tokens),
            phoneme_tokens: given.phoneme_tokens.unwrap_or(own.phoneme_tokens),
            languages: given.languages.unwrap_or(own.languages),
            tones: given.tones.unwrap_or(own.tones),
            tasks: given.tasks.unwrap_or(own.tasks),
            attention_dropout: given.attention_dropout.unwrap_or(own.attention_dropout),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_short_for_its_dimensions() {
        let read = |text: &str| serde_json::from_str::<VallEConfig>(text).unwrap();
        let dimensions = |text: &str| {
            let config = read(text);
            [config.dim, config.heads, config.layers]
        };
        assert_eq!(read("{}"), VallEConfig::default());
        assert_eq!(dimensions(r#"{"size": "quarter"}"#), [256, 4, 12]);
        assert_eq!(dimensions(r#"{"size": "half", "layers": 3}"#), [512, 8, 3]);
        assert_eq!(dimensions(r#"{"size": "double"}"#), [1024, 16, 24]);
        assert_eq!(read(r#"{"size": "full"}"#), VallEConfig::default());
        let half = read(r#"{"size": "half"}"#);
        assert_eq!(read(&serde_json::to_string(&half).unwrap()), half);
        assert!(serde_json::from_str::<VallEConfig>(r#"{"size": "tiny"}"#).is_err());
        assert!(serde_json::from_str::<VallEConfig>(r#"{"sise": "half"}"#).is_err());
    }
}
