//! The settings of a shallow flow.

use crate::flow::{FlowConfig, FlowError, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Dimensions and settings of the shallow flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SfmConfig {
    /// Encoder, estimator and conditions: the settings of `cosyvoice2-flow`. The published model of RWKVTTS has
    /// `conditions: speaker` and an encoder without chunks (`static_chunk_size: 0`).
    pub flow: FlowConfig,
    /// Rate of the dropout in the head.
    pub head_dropout: f32,
    /// Strength alpha of inference, which moves the start further along the path than the head's prediction.
    pub sfm_strength: f32,
}

impl Default for SfmConfig {
    fn default() -> Self {
        Self { flow: FlowConfig::default(), head_dropout: 0.5, sfm_strength: 2.5 }
    }
}

impl SfmConfig {
    /// Checks that the settings are consistent.
    ///
    /// # Errors
    /// [`FlowError::Config`] names the first wrong setting; settings of the flow are named without `flow.`.
    pub fn check(&self) -> Result<()> {
        self.flow.check()?;
        let refuse = |field, message: String| Err(FlowError::Config { field, message });
        if !(0.0..1.0).contains(&self.head_dropout) {
            return refuse("head_dropout", format!("{} is not in [0, 1)", self.head_dropout));
        }
        if !(self.sfm_strength > 0.0 && self.sfm_strength <= 100.0) {
            return refuse("sfm_strength", format!("{} is not in (0, 100]", self.sfm_strength));
        }
        let matching = &self.flow.matching;
        if matching.prior_weight != 0.0 {
            return refuse("flow.matching.prior_weight", "the coarse loss takes its place: set it to 0".to_owned());
        }
        Ok(())
    }
}
