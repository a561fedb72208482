//! The settings of the soft prompts, with those of the public implementation as defaults.

use super::{PmgError, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Largest number of prompts, and of tokens.
const LARGEST: usize = 1 << 16;

/// Settings of the soft prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PmgConfig {
    /// Number of image prompts, which become the conditions of the diffusion model.
    pub num_image_prompt: usize,
    /// Number of positions of the prefix.
    pub num_prefix_prompt: usize,
    /// Channels inside the network that computes the prefix; without a number the prefix itself is trained.
    pub prefix_hidden_size: Option<usize>,
    /// Largest number of tokens of a text, image prompts included.
    pub max_sequence_length: usize,
    /// Standard deviation of the initial image prompts and prefix. The public code has 1, which small learning rates hardly change.
    pub initial_deviation: f32,
}

impl Default for PmgConfig {
    fn default() -> Self {
        Self {
            num_image_prompt: 2,
            num_prefix_prompt: 2,
            prefix_hidden_size: None,
            max_sequence_length: 600,
            initial_deviation: 0.02,
        }
    }
}

impl PmgConfig {
    /// Checks that the settings are consistent.
    ///
    /// # Errors
    /// [`PmgError::Config`] names the first wrong setting.
    pub fn check(&self) -> Result<()> {
        let refuse = |field, message: String| Err(PmgError::Config { field, message });
        let sizes = [
            ("num_image_prompt", self.num_image_prompt),
            ("num_prefix_prompt", self.num_prefix_prompt),
            ("prefix_hidden_size", self.prefix_hidden_size.unwrap_or(1)),
            ("max_sequence_length", self.max_sequence_length),
        ];
        if let Some((field, size)) = sizes.into_iter().find(|(_, size)| !(1..=LARGEST).contains(size)) {
            return refuse(field, format!("{size} is not between 1 and {LARGEST}"));
        }
        if self.max_sequence_length <= self.num_image_prompt {
            let message = format!("{} leaves no room for a text", self.max_sequence_length);
            return refuse("max_sequence_length", message);
        }
        if !(self.initial_deviation > 0.0 && self.initial_deviation.is_finite()) {
            return refuse("initial_deviation", format!("{} is not greater than 0", self.initial_deviation));
        }
        Ok(())
    }
}
