//! The settings of the model: the soft prompts, and what is known of the frozen networks.

use std::path::{Path, PathBuf};

use flowmill_family::BoxError;
use flowmill_networks::llama::LlamaFileConfig;
use flowmill_networks::pmg::{PmgConfig, PmgSettings};
use flowmill_networks::stable_diffusion::sampling::ScheduleConfig;
use flowmill_networks::stable_diffusion::{AutoencoderConfig, UNetConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the soft prompts, and of the images that they are trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PmgModelConfig {
    /// Number of image prompts, which become the conditions of the diffusion model.
    ///
    /// Counterparts: PMG's `pmg.num_image_prompt`.
    pub num_image_prompt: usize,
    /// Number of positions of the prefix.
    ///
    /// Counterparts: PMG's `pmg.num_prefix_prompt`.
    pub num_prefix_prompt: usize,
    /// Channels inside the network that computes the prefix; without a number the prefix itself is trained.
    pub prefix_hidden_size: Option<usize>,
    /// Largest number of tokens of a text, image prompts included.
    ///
    /// Counterparts: PMG's `pmg.max_sequence_length`.
    pub max_sequence_length: usize,
    /// Height and width of images, in pixels.
    ///
    /// Counterparts: PMG's `pmg.image_size`.
    pub image_size: usize,
    /// Standard deviation of the initial image prompts and prefix. The public code has 1, which small learning rates hardly change.
    pub initial_deviation: f32,
    /// The frozen networks; filled in from their folders.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub frozen: Option<Box<FrozenSettings>>,
}

impl Default for PmgModelConfig {
    fn default() -> Self {
        let PmgConfig {
            num_image_prompt,
            num_prefix_prompt,
            prefix_hidden_size,
            max_sequence_length,
            initial_deviation,
        } = PmgConfig::default();
        Self {
            num_image_prompt,
            num_prefix_prompt,
            prefix_hidden_size,
            max_sequence_length,
            image_size: 512,
            initial_deviation,
            frozen: None,
        }
    }
}

/// The frozen networks: their settings, their places, and the checksum of their weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrozenSettings {
    /// The language model.
    pub llama: LlamaFileConfig,
    /// The seed of the language model's weights, if it has no folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llama_seed: Option<u64>,
    /// The U-Net.
    pub unet: UNetConfig,
    /// The autoencoder.
    pub autoencoder: AutoencoderConfig,
    /// The noise.
    pub schedule: ScheduleConfig,
    /// The BLAKE3 checksum of the files of all frozen networks.
    pub checksum: String,
    /// The folder of the language model, from the exported model's folder on; none if it follows from a seed.
    pub llama_folder: Option<PathBuf>,
    /// The folder of the diffusion model, from the exported model's folder on.
    pub diffusion_folder: PathBuf,
    /// The folder of the CLIP that scores, from the exported model's folder on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_folder: Option<PathBuf>,
    /// The weights of LPIPS that score, from the exported model's folder on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lpips_file: Option<PathBuf>,
}

impl PmgModelConfig {
    /// Returns the settings of the soft prompts.
    pub fn prompts(&self) -> PmgConfig {
        PmgConfig {
            num_image_prompt: self.num_image_prompt,
            num_prefix_prompt: self.num_prefix_prompt,
            prefix_hidden_size: self.prefix_hidden_size,
            max_sequence_length: self.max_sequence_length,
            initial_deviation: self.initial_deviation,
        }
    }

    /// Returns what is known of the frozen networks.
    ///
    /// # Errors
    /// When nothing is known yet.
    pub fn frozen(&self) -> Result<&FrozenSettings, BoxError> {
        self.frozen.as_deref().ok_or_else(|| "the frozen networks are not known".into())
    }

    /// Returns the settings of the whole network.
    ///
    /// # Errors
    /// When the frozen networks are not known, or their settings cannot be used.
    pub fn network(&self) -> Result<PmgSettings, BoxError> {
        let frozen = self.frozen()?;
        Ok(PmgSettings {
            prompts: self.prompts(),
            llama: frozen.llama.network()?,
            vocabulary: frozen.llama.vocab_size,
            unet: frozen.unet.clone(),
            schedule: frozen.schedule.clone(),
        })
    }

    /// Returns height and width of latents; 0 if the frozen networks are not known.
    pub fn latent_size(&self) -> usize {
        self.frozen.as_deref().map_or(0, |frozen| self.image_size / frozen.autoencoder.factor())
    }
}

/// Returns the way from a folder to a path: relative if they share the beginning of their real paths.
pub fn way(from: &Path, to: &Path) -> PathBuf {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (from, to) = (real(from), real(to));
    let (from_parts, to_parts): (Vec<_>, Vec<_>) = (from.components().collect(), to.components().collect());
    let shared = from_parts.iter().zip(&to_parts).take_while(|(a, b)| a == b).count();
    if shared <= 1 {
        return to;
    }
    let up = std::iter::repeat_n(Path::new("..").to_owned(), from_parts.len() - shared);
    up.chain(to_parts[shared..].iter().map(|part| PathBuf::from(part.as_os_str()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_relative_where_folders_share_a_beginning() {
        assert_eq!(way(Path::new("/no/exp/a/6-export"), Path::new("/no/exp/b")), Path::new("../../b"));
        assert_eq!(way(Path::new("/no/a"), Path::new("/yes/b")), Path::new("/yes/b"));
    }
}
