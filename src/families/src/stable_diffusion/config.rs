//! The settings of the model. The default is Stable Diffusion 1.5.

use flowmill_networks::clip::TextConfig;
use flowmill_networks::stable_diffusion::sampling::{Prediction, ScheduleConfig};
use flowmill_networks::stable_diffusion::{AutoencoderConfig, BlockType, DiffusionError, PerLevel, UNetConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use flowmill_family::KeyError;

use super::tokenizer::ClipTokenizer;

/// Settings of the autoencoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AutoencoderSettings {
    /// Channels of each level; each level after the first halves the images.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per level of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Channels of latents.
    pub latent_channels: usize,
    /// Groups of the normalizations.
    pub norm_num_groups: usize,
}

impl Default for AutoencoderSettings {
    fn default() -> Self {
        let AutoencoderConfig { block_out_channels, layers_per_block, latent_channels, norm_num_groups, .. } =
            AutoencoderConfig::default();
        Self { block_out_channels, layers_per_block, latent_channels, norm_num_groups }
    }
}

/// Settings of the U-Net. All levels except the last one attend to the caption.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UNetSettings {
    /// Channels of each level.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per level on the way down; there is one more on the way up.
    pub layers_per_block: usize,
    /// Number of attention heads (sic: the public name stands for the number, not for the channels per head).
    pub attention_head_dim: usize,
    /// Groups of the normalizations.
    pub norm_num_groups: usize,
}

impl Default for UNetSettings {
    fn default() -> Self {
        let UNetConfig { block_out_channels, layers_per_block, norm_num_groups, .. } = UNetConfig::default();
        Self { block_out_channels, layers_per_block, attention_head_dim: 8, norm_num_groups }
    }
}

/// Settings of the encoder of captions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TextEncoderSettings {
    /// Channels, which are also those of the conditions.
    pub hidden_size: usize,
    /// Channels inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Number of tokens of a caption, begin and end included; longer captions are cut.
    pub max_position_embeddings: usize,
    /// Most tokens that are fitted to the captions, in addition to the bytes.
    pub max_merges: usize,
}

impl Default for TextEncoderSettings {
    fn default() -> Self {
        let text = TextConfig::default();
        Self {
            hidden_size: text.hidden_size,
            intermediate_size: text.intermediate_size,
            num_hidden_layers: text.num_hidden_layers,
            num_attention_heads: text.num_attention_heads,
            max_position_embeddings: text.max_position_embeddings,
            max_merges: 48_894,
        }
    }
}

/// Settings of a latent diffusion model; the default is Stable Diffusion 1.5.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StableDiffusionConfig {
    /// Height and width of images, in pixels.
    pub image_size: usize,
    /// The autoencoder.
    pub autoencoder: AutoencoderSettings,
    /// The U-Net.
    pub unet: UNetSettings,
    /// The encoder of captions.
    pub text_encoder: TextEncoderSettings,
    /// The quantity that the U-Net predicts.
    pub prediction: Prediction,
    /// The pairs of symbols that the tokenizer joins, in order; filled in from the captions of the training.
    pub merges: Vec<String>,
}

impl Default for StableDiffusionConfig {
    fn default() -> Self {
        Self {
            image_size: 512,
            autoencoder: AutoencoderSettings::default(),
            unet: UNetSettings::default(),
            text_encoder: TextEncoderSettings::default(),
            prediction: Prediction::default(),
            merges: Vec::new(),
        }
    }
}

/// Names the key of a wrong setting.
fn about(section: &str, error: DiffusionError) -> KeyError {
    match error {
        DiffusionError::Config { field, message, .. } => {
            KeyError::new(format!("train.model.{section}.{field}"), message)
        }
        other => KeyError::new(format!("train.model.{section}"), other.to_string()),
    }
}

impl StableDiffusionConfig {
    /// Checks that the settings are consistent.
    ///
    /// # Errors
    /// The key of the first wrong setting.
    pub fn check(&self) -> Result<(), KeyError> {
        self.autoencoder_config(1.0).check().map_err(|error| about("autoencoder", error))?;
        self.unet_config().check().map_err(|error| about("unet", error))?;
        let text = &self.text_encoder;
        if text.num_attention_heads == 0 || !text.hidden_size.is_multiple_of(text.num_attention_heads) {
            let reason = format!("{} channels in {} heads", text.hidden_size, text.num_attention_heads);
            return Err(KeyError::new("train.model.text_encoder.num_attention_heads", reason));
        }
        if text.max_position_embeddings < 3 {
            let reason = format!("{} leaves no room for a caption", text.max_position_embeddings);
            return Err(KeyError::new("train.model.text_encoder.max_position_embeddings", reason));
        }
        let unit = self.autoencoder_config(1.0).factor() << (self.unet.block_out_channels.len() - 1);
        if self.image_size == 0 || !self.image_size.is_multiple_of(unit) {
            let reason = format!("{} is not a multiple of {unit}, by which the networks halve images", self.image_size);
            return Err(KeyError::new("train.model.image_size", reason));
        }
        Ok(())
    }

    /// Height and width of latents.
    pub fn latent_size(&self) -> usize {
        self.image_size / self.autoencoder_config(1.0).factor()
    }

    /// Returns the settings of the autoencoder, with the factor from its latents to the U-Net's samples.
    pub fn autoencoder_config(&self, scaling_factor: f64) -> AutoencoderConfig {
        let AutoencoderSettings { block_out_channels, layers_per_block, latent_channels, norm_num_groups } =
            self.autoencoder.clone();
        AutoencoderConfig {
            block_out_channels,
            layers_per_block,
            latent_channels,
            norm_num_groups,
            scaling_factor,
            ..AutoencoderConfig::default()
        }
    }

    /// Returns the settings of the U-Net.
    pub fn unet_config(&self) -> UNetConfig {
        let UNetSettings { block_out_channels, layers_per_block, attention_head_dim, norm_num_groups } =
            self.unet.clone();
        let levels = block_out_channels.len();
        let mut down_block_types = vec![BlockType::CrossAttnDownBlock2D; levels];
        let mut up_block_types = vec![BlockType::CrossAttnUpBlock2D; levels];
        if levels > 1 {
            (down_block_types[levels - 1], up_block_types[0]) = (BlockType::DownBlock2D, BlockType::UpBlock2D);
        }
        UNetConfig {
            sample_size: self.image_size / self.autoencoder_config(1.0).factor(),
            in_channels: self.autoencoder.latent_channels,
            out_channels: self.autoencoder.latent_channels,
            block_out_channels,
            down_block_types,
            up_block_types,
            layers_per_block,
            cross_attention_dim: self.text_encoder.hidden_size,
            attention_head_dim: PerLevel::All(attention_head_dim),
            norm_num_groups,
            ..UNetConfig::default()
        }
    }

    /// Returns the settings of the encoder of captions, for this tokenizer.
    pub fn text_config(&self, tokenizer: &ClipTokenizer) -> TextConfig {
        let text = &self.text_encoder;
        TextConfig {
            vocab_size: tokenizer.size(),
            hidden_size: text.hidden_size,
            intermediate_size: text.intermediate_size,
            num_hidden_layers: text.num_hidden_layers,
            num_attention_heads: text.num_attention_heads,
            max_position_embeddings: text.max_position_embeddings,
            eos_token_id: tokenizer.end(),
            ..TextConfig::default()
        }
    }

    /// Returns the settings of the noise.
    pub fn schedule_config(&self) -> ScheduleConfig {
        ScheduleConfig { prediction_type: self.prediction, ..ScheduleConfig::default() }
    }
}
