//! The estimators of the velocity.

use super::check_sizes;
use crate::flow::{FlowError, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// The network that estimates the velocity. In recipes only its settings are written: the family of the model
/// determines the network.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum EstimatorConfig {
    /// The estimator of CosyVoice 2.
    UNet(UNetConfig),
    /// The estimator of Step-Audio.
    Dit(DitConfig),
    /// The estimator of CosyVoice 3.
    RotaryDit(RotaryDitConfig),
}

impl Default for EstimatorConfig {
    fn default() -> Self {
        Self::UNet(UNetConfig::default())
    }
}

impl From<UNetConfig> for EstimatorConfig {
    fn from(config: UNetConfig) -> Self {
        Self::UNet(config)
    }
}

impl From<DitConfig> for EstimatorConfig {
    fn from(config: DitConfig) -> Self {
        Self::Dit(config)
    }
}

impl From<RotaryDitConfig> for EstimatorConfig {
    fn from(config: RotaryDitConfig) -> Self {
        Self::RotaryDit(config)
    }
}

/// Without a family, the settings are those of a U-Net.
impl<'de> Deserialize<'de> for EstimatorConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        UNetConfig::deserialize(deserializer).map(Self::UNet)
    }
}

impl EstimatorConfig {
    /// Returns the number of frames per chunk of the chunk-causal masks; 0 if there are no masks.
    pub fn static_chunk_size(&self) -> usize {
        match self {
            Self::UNet(config) => config.static_chunk_size,
            Self::Dit(config) => config.static_chunk_size,
            Self::RotaryDit(config) => config.static_chunk_size,
        }
    }

    /// Returns the dropout rate inside its blocks.
    pub(crate) fn dropout(&self) -> f32 {
        match self {
            Self::UNet(config) => config.dropout,
            Self::Dit(_) => 0.0,
            Self::RotaryDit(config) => config.dropout,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let refuse = |field, message: String| Err(FlowError::Config { field, message });
        match self {
            Self::UNet(config) => {
                check_sizes(&[
                    ("estimator.attention_head_dim", config.attention_head_dim),
                    ("estimator.num_heads", config.num_heads),
                    ("estimator.static_chunk_size", config.static_chunk_size.max(1)),
                ])?;
                let levels = config.channels.len();
                if !(1..=8).contains(&levels) || config.channels.iter().any(|size| !(1..=65_536).contains(size)) {
                    let message = format!("{:?}: 1 to 8 levels of 1 to 65536 channels", config.channels);
                    return refuse("estimator.channels", message);
                }
            }
            Self::Dit(config) => {
                check_sizes(&[
                    ("estimator.hidden_size", config.hidden_size),
                    ("estimator.depth", config.depth),
                    ("estimator.num_heads", config.num_heads),
                    ("estimator.head_dim", config.head_dim),
                    ("estimator.static_chunk_size", config.static_chunk_size.max(1)),
                ])?;
                if !(0.0..=64.0).contains(&config.mlp_ratio) || config.mlp_size() == 0 {
                    let message = format!("{} of {} leaves no channels", config.mlp_ratio, config.hidden_size);
                    return refuse("estimator.mlp_ratio", message);
                }
            }
            Self::RotaryDit(config) => {
                check_sizes(&[
                    ("estimator.dim", config.dim),
                    ("estimator.depth", config.depth),
                    ("estimator.heads", config.heads),
                    ("estimator.dim_head", config.dim_head),
                    ("estimator.ff_mult", config.ff_mult),
                    ("estimator.static_chunk_size", config.static_chunk_size.max(1)),
                ])?;
                if !config.dim.is_multiple_of(POSITION_GROUPS) {
                    let message = format!("{} is not a multiple of {POSITION_GROUPS}", config.dim);
                    return refuse("estimator.dim", message);
                }
                if !config.dim_head.is_multiple_of(2) {
                    return refuse("estimator.dim_head", format!("{} is odd", config.dim_head));
                }
            }
        }
        Ok(())
    }
}

/// The causal one-dimensional U-Net.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UNetConfig {
    /// Channels of each level. One level, as in the published model, keeps the frame rate. Every further level halves
    /// it, and looks ahead by one frame where it does.
    pub channels: Vec<usize>,
    /// Dropout in the transformer blocks.
    pub dropout: f32,
    /// Channels per attention head.
    pub attention_head_dim: usize,
    /// Number of transformer blocks after each residual block.
    pub n_blocks: usize,
    /// Number of residual blocks between the way down and the way up.
    pub num_mid_blocks: usize,
    /// Number of attention heads.
    pub num_heads: usize,
    /// Frames per chunk of the chunk-causal masks for streaming; 0 for no masks.
    pub static_chunk_size: usize,
}

impl Default for UNetConfig {
    fn default() -> Self {
        Self {
            channels: vec![256],
            dropout: 0.0,
            attention_head_dim: 64,
            n_blocks: 4,
            num_mid_blocks: 12,
            num_heads: 8,
            static_chunk_size: 50,
        }
    }
}

/// The diffusion transformer with causal convolutions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DitConfig {
    /// Channels between blocks.
    pub hidden_size: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Number of attention heads.
    pub num_heads: usize,
    /// Channels per attention head.
    pub head_dim: usize,
    /// Channels inside the feed-forward part of a block, as a multiple of `hidden_size`.
    pub mlp_ratio: f64,
    /// Frames per chunk of the chunk-causal masks for streaming; 0 for no masks.
    pub static_chunk_size: usize,
}

impl Default for DitConfig {
    fn default() -> Self {
        Self { hidden_size: 512, depth: 16, num_heads: 8, head_dim: 64, mlp_ratio: 4.0, static_chunk_size: 50 }
    }
}

impl DitConfig {
    /// Returns the number of channels inside the feed-forward part of a block.
    pub(crate) fn mlp_size(&self) -> usize {
        (self.hidden_size as f64 * self.mlp_ratio) as usize
    }
}

/// Groups of channels of the convolutions that give a [rotary DiT](RotaryDitConfig) its positions.
pub(crate) const POSITION_GROUPS: usize = 16;

/// The diffusion transformer with rotary positions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RotaryDitConfig {
    /// Channels between blocks, a multiple of 16.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Channels per attention head.
    pub dim_head: usize,
    /// Channels inside the feed-forward part of a block, as a multiple of `dim`.
    pub ff_mult: usize,
    /// Dropout after the attention and inside the feed-forward part of a block.
    pub dropout: f32,
    /// Frames per chunk of the chunk-causal masks for streaming; 0 for no masks.
    pub static_chunk_size: usize,
}

impl Default for RotaryDitConfig {
    fn default() -> Self {
        Self { dim: 1024, depth: 22, heads: 16, dim_head: 64, ff_mult: 2, dropout: 0.1, static_chunk_size: 50 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In single precision, 50 x 0.7 is a little less than 35.
    #[test]
    fn the_feed_forward_part_has_the_channels_of_the_public_implementation() {
        let channels = |hidden_size, mlp_ratio| DitConfig { hidden_size, mlp_ratio, ..DitConfig::default() }.mlp_size();
        assert_eq!(channels(50, 0.7), 35);
        assert_eq!(channels(512, 4.0), 2048);
        assert_eq!(channels(21, 1.7), 35);
    }
}
