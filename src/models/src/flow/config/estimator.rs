//! The estimators of the velocity.

use super::check_sizes;
use crate::flow::{FlowError, Result};
use serde::{Deserialize, Deserializer, Serialize};

/// The network that estimates the velocity. Written as its settings alone: the family of a model says which one it has.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum EstimatorConfig {
    /// CosyVoice 2's.
    UNet(UNetConfig),
    /// Step-Audio's.
    Dit(DitConfig),
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

/// Where no family says otherwise, the settings are those of a U-Net.
impl<'de> Deserialize<'de> for EstimatorConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        UNetConfig::deserialize(deserializer).map(Self::UNet)
    }
}

impl EstimatorConfig {
    /// Rate of the dropout inside of its blocks.
    pub(crate) fn dropout(&self) -> f32 {
        match self {
            Self::UNet(config) => config.dropout,
            Self::Dit(_) => 0.0,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let refuse = |field, message: String| Err(FlowError::Config { field, message });
        match self {
            Self::UNet(config) => {
                check_sizes(&[
                    ("estimator.attention_head_dim", config.attention_head_dim),
                    ("estimator.num_heads", config.num_heads),
                    ("estimator.static_chunk_size", config.static_chunk_size),
                ])?;
                if !matches!(config.channels.as_slice(), [1..=65_536]) {
                    return refuse("estimator.channels", format!("{:?}: one level is supported", config.channels));
                }
            }
            Self::Dit(config) => {
                check_sizes(&[
                    ("estimator.hidden_size", config.hidden_size),
                    ("estimator.depth", config.depth),
                    ("estimator.num_heads", config.num_heads),
                    ("estimator.head_dim", config.head_dim),
                    ("estimator.static_chunk_size", config.static_chunk_size),
                ])?;
                if !(0.0..=64.0).contains(&config.mlp_ratio) || config.mlp_size() == 0 {
                    let message = format!("{} of {} leaves no channels", config.mlp_ratio, config.hidden_size);
                    return refuse("estimator.mlp_ratio", message);
                }
            }
        }
        Ok(())
    }
}

/// The causal one-dimensional U-Net.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UNetConfig {
    /// Channels of each level. One level, as published: the causal U-Net keeps the frame rate.
    pub channels: Vec<usize>,
    /// Dropout in the transformer blocks.
    pub dropout: f32,
    /// Channels per attention head.
    pub attention_head_dim: usize,
    /// Transformer blocks after each residual block.
    pub n_blocks: usize,
    /// Residual blocks between the way down and the way up.
    pub num_mid_blocks: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Frames per chunk of the chunk-causal masks used for streaming.
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DitConfig {
    /// Channels between blocks.
    pub hidden_size: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Channels per attention head.
    pub head_dim: usize,
    /// Channels inside of the feed-forward part of a block, as a multiple of `hidden_size`.
    pub mlp_ratio: f32,
    /// Frames per chunk of the chunk-causal masks used for streaming.
    pub static_chunk_size: usize,
}

impl Default for DitConfig {
    fn default() -> Self {
        Self { hidden_size: 512, depth: 16, num_heads: 8, head_dim: 64, mlp_ratio: 4.0, static_chunk_size: 50 }
    }
}

impl DitConfig {
    /// Channels inside of the feed-forward part of a block.
    pub(crate) fn mlp_size(&self) -> usize {
        (self.hidden_size as f64 * f64::from(self.mlp_ratio)) as usize
    }
}
