//! The settings of U-Net and autoencoder: `config.json` of their folders, under the names of the package diffusers.

use super::{DiffusionError, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Largest size of a dimension, which keeps products of sizes within range.
const LARGEST: usize = 1 << 16;
/// Largest number of levels.
const MOST_LEVELS: usize = 16;

/// A size for all levels, or one per level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerLevel {
    /// The same for all levels.
    All(usize),
    /// One per level, from the largest images to the smallest.
    Each(Vec<usize>),
}

impl PerLevel {
    /// Returns the size of a level; 0 if there is none.
    pub fn at(&self, level: usize) -> usize {
        match self {
            Self::All(size) => *size,
            Self::Each(sizes) => sizes.get(level).copied().unwrap_or(0),
        }
    }
}

/// The kind of a block of the U-Net.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockType {
    /// Residual blocks on the way down.
    DownBlock2D,
    /// Residual blocks on the way down, each followed by attention to the conditions.
    CrossAttnDownBlock2D,
    /// Residual blocks on the way up.
    UpBlock2D,
    /// Residual blocks on the way up, each followed by attention to the conditions.
    CrossAttnUpBlock2D,
}

impl BlockType {
    /// Returns whether the block attends to the conditions.
    pub fn attends(self) -> bool {
        matches!(self, Self::CrossAttnDownBlock2D | Self::CrossAttnUpBlock2D)
    }
}

/// Settings of the U-Net (`UNet2DConditionModel`); the default is that of Stable Diffusion 1.5.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UNetConfig {
    /// Height and width of the latents it was trained on.
    pub sample_size: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Channels of each level.
    pub block_out_channels: Vec<usize>,
    /// Kinds of the blocks on the way down.
    pub down_block_types: Vec<BlockType>,
    /// Kinds of the blocks on the way up.
    pub up_block_types: Vec<BlockType>,
    /// Residual blocks per level on the way down; there is one more on the way up.
    pub layers_per_block: usize,
    /// Channels of the conditions.
    pub cross_attention_dim: usize,
    /// Number of attention heads (sic: the public name stands for the number, not for the channels per head).
    pub attention_head_dim: PerLevel,
    /// Groups of the normalizations.
    pub norm_num_groups: usize,
    /// Number added to the variances of the residual blocks' normalizations.
    pub norm_eps: f64,
    /// True if the projections around the transformers are linear layers and not convolutions.
    pub use_linear_projection: bool,
    /// All other keys.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Default for UNetConfig {
    fn default() -> Self {
        use BlockType::{CrossAttnDownBlock2D, CrossAttnUpBlock2D, DownBlock2D, UpBlock2D};
        Self {
            sample_size: 64,
            in_channels: 4,
            out_channels: 4,
            block_out_channels: vec![320, 640, 1280, 1280],
            down_block_types: vec![CrossAttnDownBlock2D, CrossAttnDownBlock2D, CrossAttnDownBlock2D, DownBlock2D],
            up_block_types: vec![UpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D],
            layers_per_block: 2,
            cross_attention_dim: 768,
            attention_head_dim: PerLevel::All(8),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            use_linear_projection: false,
            other: BTreeMap::new(),
        }
    }
}

/// Keys of the U-Net that other networks use, with the values that mean "not used here".
const UNUSED: [(&str, &[Unused]); 19] = [
    ("act_fn", &[Unused::Text("silu")]),
    ("addition_embed_type", &[]),
    ("class_embed_type", &[]),
    ("num_class_embeds", &[]),
    ("encoder_hid_dim", &[]),
    ("encoder_hid_dim_type", &[]),
    ("time_cond_proj_dim", &[]),
    ("timestep_post_act", &[]),
    ("time_embedding_type", &[Unused::Text("positional")]),
    ("resnet_time_scale_shift", &[Unused::Text("default")]),
    ("mid_block_type", &[Unused::Text("UNetMidBlock2DCrossAttn")]),
    ("center_input_sample", &[Unused::Flag(false)]),
    ("dual_cross_attention", &[Unused::Flag(false)]),
    ("only_cross_attention", &[Unused::Flag(false)]),
    ("flip_sin_to_cos", &[Unused::Flag(true)]),
    ("freq_shift", &[Unused::Number(0)]),
    ("downsample_padding", &[Unused::Number(1)]),
    ("transformer_layers_per_block", &[Unused::Number(1)]),
    ("conv_in_kernel", &[Unused::Number(3)]),
];

/// A value of an optional setting.
#[derive(Debug, Clone, Copy)]
enum Unused {
    Text(&'static str),
    Flag(bool),
    Number(u64),
}

impl Unused {
    fn equals(self, value: &Value) -> bool {
        match self {
            Self::Text(text) => value.as_str() == Some(text),
            Self::Flag(flag) => value.as_bool() == Some(flag),
            Self::Number(number) => value.as_u64() == Some(number),
        }
    }
}

impl UNetConfig {
    /// Checks that the settings are those of a network that is implemented here, and consistent.
    ///
    /// # Errors
    /// [`DiffusionError::Config`] names the first wrong setting.
    pub fn check(&self) -> Result<()> {
        let refuse = |field, message: String| Err(DiffusionError::Config { what: "the U-Net", field, message });
        let levels = self.block_out_channels.len();
        let sizes = [
            ("sample_size", self.sample_size),
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("layers_per_block", self.layers_per_block),
            ("cross_attention_dim", self.cross_attention_dim),
            ("norm_num_groups", self.norm_num_groups),
        ];
        let channels = self.block_out_channels.iter().map(|channels| ("block_out_channels", *channels));
        if let Some((field, size)) = sizes.into_iter().chain(channels).find(|(_, size)| !(1..=LARGEST).contains(size)) {
            return refuse(field, format!("{size} is not between 1 and {LARGEST}"));
        }
        if !(1..=MOST_LEVELS).contains(&levels) {
            return refuse("block_out_channels", format!("{levels} levels"));
        }
        for (field, types, down) in
            [("down_block_types", &self.down_block_types, true), ("up_block_types", &self.up_block_types, false)]
        {
            let is_down = |kind: &BlockType| matches!(kind, BlockType::DownBlock2D | BlockType::CrossAttnDownBlock2D);
            if types.len() != levels || types.iter().any(|kind| is_down(kind) != down) {
                return refuse(field, format!("{types:?} for {levels} levels"));
            }
        }
        for (level, channels) in self.block_out_channels.iter().enumerate() {
            if !channels.is_multiple_of(self.norm_num_groups) {
                let message = format!("{channels} channels in groups of {}", self.norm_num_groups);
                return refuse("norm_num_groups", message);
            }
            let heads = self.attention_head_dim.at(level);
            if heads == 0 || !channels.is_multiple_of(heads) {
                return refuse("attention_head_dim", format!("{channels} channels in {heads} heads"));
            }
        }
        if !self.block_out_channels[0].is_multiple_of(2) {
            return refuse("block_out_channels", "the first level encodes steps in pairs of channels".to_owned());
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            return refuse("norm_eps", format!("{} is not between 0 and 1", self.norm_eps));
        }
        for (field, allowed) in UNUSED {
            let given = self.other.get(field).filter(|value| !value.is_null());
            if let Some(value) = given.filter(|value| !allowed.iter().any(|allowed| allowed.equals(value))) {
                return refuse(field, format!("{value} is not supported"));
            }
        }
        Ok(())
    }
}

/// Settings of the autoencoder (`AutoencoderKL`); the default is that of Stable Diffusion 1.5.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderConfig {
    /// Channels of images.
    pub in_channels: usize,
    /// Channels of decoded images.
    pub out_channels: usize,
    /// Channels of each level.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per level of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Channels of latents.
    pub latent_channels: usize,
    /// Groups of the normalizations.
    pub norm_num_groups: usize,
    /// Factor from latents to the U-Net's samples.
    pub scaling_factor: f64,
}

impl Default for AutoencoderConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
        }
    }
}

impl AutoencoderConfig {
    /// Checks that the settings are consistent.
    ///
    /// # Errors
    /// [`DiffusionError::Config`] names the first wrong setting.
    pub fn check(&self) -> Result<()> {
        let refuse = |field, message: String| Err(DiffusionError::Config { what: "the autoencoder", field, message });
        let sizes = [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("layers_per_block", self.layers_per_block),
            ("latent_channels", self.latent_channels),
            ("norm_num_groups", self.norm_num_groups),
        ];
        let channels = self.block_out_channels.iter().map(|channels| ("block_out_channels", *channels));
        if let Some((field, size)) = sizes.into_iter().chain(channels).find(|(_, size)| !(1..=LARGEST).contains(size)) {
            return refuse(field, format!("{size} is not between 1 and {LARGEST}"));
        }
        if !(1..=MOST_LEVELS).contains(&self.block_out_channels.len()) {
            return refuse("block_out_channels", format!("{} levels", self.block_out_channels.len()));
        }
        if let Some(channels) = self.block_out_channels.iter().find(|size| !size.is_multiple_of(self.norm_num_groups)) {
            return refuse("norm_num_groups", format!("{channels} channels in groups of {}", self.norm_num_groups));
        }
        if !(self.scaling_factor > 0.0 && self.scaling_factor.is_finite()) {
            return refuse("scaling_factor", format!("{} is not greater than 0", self.scaling_factor));
        }
        Ok(())
    }

    /// Pixels along an axis per latent.
    pub fn factor(&self) -> usize {
        1 << (self.block_out_channels.len().max(1) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_settings_are_accepted() {
        UNetConfig::default().check().unwrap();
        AutoencoderConfig::default().check().unwrap();
        assert_eq!(AutoencoderConfig::default().factor(), 8);
    }

    #[test]
    fn networks_that_are_not_implemented_are_refused_by_their_setting() {
        for (key, value) in [
            ("addition_embed_type", "\"text_time\""),
            ("class_embed_type", "\"timestep\""),
            ("transformer_layers_per_block", "[1, 2, 10]"),
            ("flip_sin_to_cos", "false"),
            ("norm_num_groups", "7"),
            ("layers_per_block", "0"),
            ("attention_head_dim", "[5, 10, 20]"),
            ("up_block_types", "[\"UpBlock2D\"]"),
        ] {
            let mut settings = serde_json::to_value(UNetConfig::default()).unwrap();
            settings[key] = serde_json::from_str(value).unwrap();
            let config: UNetConfig = serde_json::from_value(settings).unwrap();
            match config.check() {
                Err(DiffusionError::Config { field, .. }) => assert_eq!(field, key),
                other => panic!("{key}: {other:?}"),
            }
        }
    }
}
