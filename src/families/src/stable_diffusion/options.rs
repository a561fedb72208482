//! The options of the family in the sections `train` and `export`, and the description of a model.

use flowmill_family::KeyError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Sampling;

/// Options in the section `train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// Weight of the divergence of the latents from the normal distribution, averaged over their elements.
    pub divergence_weight: f32,
    /// Share of images whose caption is left out, so that guidance has a prediction without one.
    pub caption_dropout: f32,
    /// Share of images that are mirrored.
    pub flip: f32,
    /// Number of noise levels per image and step that the U-Net is trained on.
    pub draws_per_image: usize,
    /// Sampling of previews.
    pub sampling: Sampling,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            divergence_weight: 1e-4,
            caption_dropout: 0.1,
            flip: 0.5,
            draws_per_image: 1,
            sampling: Sampling::default(),
        }
    }
}

impl TrainOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// Returns the first invalid key.
    pub fn check(&self) -> Result<(), KeyError> {
        let wrong = |key: &str, reason: &str| Err(KeyError::new(format!("train.{key}"), reason));
        if !(self.divergence_weight >= 0.0 && self.divergence_weight.is_finite()) {
            return wrong("divergence_weight", "not a number from 0 on");
        }
        for (key, share) in [("caption_dropout", self.caption_dropout), ("flip", self.flip)] {
            if !(0.0..=1.0).contains(&share) {
                return wrong(key, "not a share from 0 to 1");
            }
        }
        if !(1..=64).contains(&self.draws_per_image) {
            return wrong("draws_per_image", "not between 1 and 64");
        }
        self.sampling.check().map_err(|(key, reason)| KeyError::new(format!("train.sampling.{key}"), reason))
    }
}

/// Options in the section `export`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExportOptions {
    /// Sampling of the images that are shown.
    pub images: Sampling,
}

/// The family's part of a model's description.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// The settings of sampling; in trainings those of previews.
    #[serde(default)]
    pub sampling: Sampling,
}
