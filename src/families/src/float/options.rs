//! The options of FLOAT in the sections `train` and `export`.

use flowmill_family::KeyError;
use flowmill_networks::float::DropoutConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Sampling;

/// Options in the section `train`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// Shares of windows whose conditions are left out.
    pub dropout: DropoutConfig,
    /// Sampling of previews, and of the motion whose distance validations measure.
    pub sampling: Sampling,
    /// The direction of motion that opens the mouth, one number per channel. By default that of the extractor of stage 1, or else the
    /// first channel.
    pub mouth: Vec<f32>,
}

impl TrainOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// Returns the first invalid key.
    pub fn check(&self) -> Result<(), KeyError> {
        if let Some(name) = self.dropout.wrong() {
            return Err(KeyError::new(format!("train.dropout.{name}"), "not a share from 0 to 1"));
        }
        self.sampling.check().map_err(|(key, reason)| KeyError::new(format!("train.sampling.{key}"), reason))
    }
}

/// Options in the section `export`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExportOptions {
    /// Sampling of the motion that is scored. It is also the default of `talk`.
    pub motion: Sampling,
}
