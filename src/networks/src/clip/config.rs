//! The settings of a published CLIP, `config.json` of its folder. Keys that are not listed here are ignored.

use super::transformer::TransformerSettings;
use super::{ClipError, Result};
use serde::{Deserialize, Serialize};

/// Largest size of a dimension, which keeps products of sizes within range.
const LARGEST: usize = 1 << 20;
/// The end token that published settings name wrongly; those models end a text at its highest token.
const WRONG_END: u32 = 2;

/// Settings of the text transformer; the default is that of Stable Diffusion 1.5.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TextConfig {
    /// Number of tokens.
    pub vocab_size: usize,
    /// Channels.
    pub hidden_size: usize,
    /// Channels inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Largest number of positions.
    pub max_position_embeddings: usize,
    /// The activation of the feed-forward layers.
    pub hidden_act: String,
    /// Number added to the variances of the normalizations.
    pub layer_norm_eps: f64,
    /// The token that ends a text.
    pub eos_token_id: u32,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49_408,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".to_owned(),
            layer_norm_eps: 1e-5,
            eos_token_id: 49_407,
        }
    }
}

/// Settings of the image transformer; the default is that of ViT-L/14.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// Channels.
    pub hidden_size: usize,
    /// Channels inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Height and width of images.
    pub image_size: usize,
    /// Height and width of patches.
    pub patch_size: usize,
    /// Channels of images.
    pub num_channels: usize,
    /// The activation of the feed-forward layers.
    pub hidden_act: String,
    /// Number added to the variances of the normalizations.
    pub layer_norm_eps: f64,
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            hidden_size: 1024,
            intermediate_size: 4096,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            image_size: 224,
            patch_size: 14,
            num_channels: 3,
            hidden_act: "quick_gelu".to_owned(),
            layer_norm_eps: 1e-5,
        }
    }
}

/// Settings of both transformers and their common space.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipConfig {
    /// The text transformer.
    #[serde(rename = "text_config")]
    pub text: TextConfig,
    /// The image transformer.
    #[serde(rename = "vision_config")]
    pub image: ImageConfig,
    /// Channels of the common space.
    pub projection_dim: usize,
}

impl Default for ClipConfig {
    fn default() -> Self {
        Self { text: TextConfig::default(), image: ImageConfig::default(), projection_dim: 768 }
    }
}

fn refuse<T>(field: &'static str, message: String) -> Result<T> {
    Err(ClipError::Config { field, message })
}

fn check_sizes(sizes: &[(&'static str, usize)]) -> Result<()> {
    match sizes.iter().find(|(_, size)| !(1..=LARGEST).contains(size)) {
        Some((field, size)) => refuse(field, format!("{size} is not between 1 and {LARGEST}")),
        None => Ok(()),
    }
}

impl TextConfig {
    /// Returns the settings of its transformer.
    pub(super) fn transformer(&self) -> Result<TransformerSettings> {
        check_sizes(&[
            ("text_config.vocab_size", self.vocab_size),
            ("text_config.hidden_size", self.hidden_size),
            ("text_config.intermediate_size", self.intermediate_size),
            ("text_config.num_hidden_layers", self.num_hidden_layers),
            ("text_config.num_attention_heads", self.num_attention_heads),
            ("text_config.max_position_embeddings", self.max_position_embeddings),
        ])?;
        let settings = TransformerSettings {
            channels: self.hidden_size,
            inner: self.intermediate_size,
            blocks: self.num_hidden_layers,
            heads: self.num_attention_heads,
            epsilon: self.layer_norm_eps as f32,
            quick: is_quick("text_config.hidden_act", &self.hidden_act)?,
            causal: true,
        };
        settings.check("text_config.num_attention_heads")?;
        Ok(settings)
    }

    /// Returns the token that ends a text; `None` for models that end it at its highest token.
    pub(super) fn end(&self) -> Option<u32> {
        Some(self.eos_token_id).filter(|end| *end != WRONG_END)
    }
}

impl ImageConfig {
    /// Returns the settings of its transformer.
    pub(super) fn transformer(&self) -> Result<TransformerSettings> {
        check_sizes(&[
            ("vision_config.hidden_size", self.hidden_size),
            ("vision_config.intermediate_size", self.intermediate_size),
            ("vision_config.num_hidden_layers", self.num_hidden_layers),
            ("vision_config.num_attention_heads", self.num_attention_heads),
            ("vision_config.image_size", self.image_size),
            ("vision_config.patch_size", self.patch_size),
            ("vision_config.num_channels", self.num_channels),
        ])?;
        if self.patch_size > self.image_size {
            return refuse("vision_config.patch_size", format!("{} in {}", self.patch_size, self.image_size));
        }
        let settings = TransformerSettings {
            channels: self.hidden_size,
            inner: self.intermediate_size,
            blocks: self.num_hidden_layers,
            heads: self.num_attention_heads,
            epsilon: self.layer_norm_eps as f32,
            quick: is_quick("vision_config.hidden_act", &self.hidden_act)?,
            causal: false,
        };
        settings.check("vision_config.num_attention_heads")?;
        Ok(settings)
    }

    /// Number of patches along an axis.
    pub(super) fn patches(&self) -> usize {
        self.image_size / self.patch_size
    }
}

fn is_quick(field: &'static str, activation: &str) -> Result<bool> {
    match activation {
        "quick_gelu" => Ok(true),
        "gelu" => Ok(false),
        other => refuse(field, format!("`{other}` is not supported")),
    }
}
