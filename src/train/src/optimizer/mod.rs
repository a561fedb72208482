//! Optimizers: turn gradients into changes of the weights.

mod adafactor;
mod adam;
mod change;
mod composition;
mod config;
mod groups;
#[cfg(feature = "cuda")]
pub(crate) mod multi_tensor;
mod muon;
mod norm;
mod prodigy;
mod rule;
mod sgd;
mod slot;

use std::collections::BTreeMap;

use candle_core::Tensor;
use flowmill_nn::{Gradients, Parameters};

pub use adafactor::Adafactor;
pub use adam::{Adam, Decay};
pub use change::{Change, Changes};
pub use config::{OptimConfig, OptimizerName, Rule};
pub use groups::{GroupConfig, ParameterSettings};
pub(crate) use groups::{freeze, label, matches};
pub use muon::{AdjustLr, Muon};
pub use norm::{GradientNorms, gradient_norms};
pub use prodigy::Prodigy;
pub use sgd::Sgd;

use crate::{TrainConfig, TrainError};

/// Inputs of one update in addition to the gradients.
#[derive(Debug, Clone, Copy)]
pub struct Update {
    /// The learning rate of this step, which groups of parameters multiply.
    pub rate: f64,
    /// Factor on every gradient value, applied first: combines the averaging over accumulated batches and the clipping by norm.
    pub scale: f64,
    /// Largest absolute value after that: clipping by value, like PyTorch's `clip_grad_value_`; infinity disables it.
    pub limit: f64,
    /// True to measure how much each parameter changes.
    pub measure: bool,
}

impl Update {
    /// An update without a limit on values, not measured.
    pub fn new(rate: f64, scale: f64) -> Self {
        Self { rate, scale, limit: f64::INFINITY, measure: false }
    }

    /// Creates an update by gradients that are `divisor` times those measured by `norms`, clipped as configured; not measured.
    pub(crate) fn clipped(config: &TrainConfig, norms: &GradientNorms, divisor: f64, rate: f64) -> Self {
        let limit = config.grad_clip_value.unwrap_or(f64::INFINITY);
        Self { rate, scale: norms.clip_factor(config.grad_clip) / divisor, limit, measure: false }
    }

    /// Scales and limits a gradient value.
    pub(crate) fn gradient(&self, value: f32) -> f32 {
        let limit = self.limit as f32;
        (value * self.scale as f32).clamp(-limit, limit)
    }
}

/// Changes weights by their gradients. The state is a function of the gradients so far, and is stored in checkpoints.
pub trait Optimizer {
    /// Updates every trainable parameter in place, and returns how much each changed if [`Update::measure`] is set. Every
    /// trainable parameter must have a finite gradient.
    fn step(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        update: Update,
    ) -> Result<Changes, TrainError>;

    /// Number of updates so far.
    fn updates(&self) -> u64;

    /// Returns the state in parameter order, each tensor as `KIND.PARAMETER`, such as `exp_avg.encoder.embed.weight`. The tensors are
    /// those that the next step changes in place, except for state of all parameters together, which is copied.
    fn state(&self) -> Vec<(String, Tensor)>;

    /// Returns the state of all ranks on rank 0 if each rank has a part of it; all ranks must call it. `None` if [`state`](Self::state) is
    /// the whole.
    fn gathered_state(&self) -> Result<Option<Vec<(String, Tensor)>>, TrainError> {
        Ok(None)
    }

    /// Restores a stored state, of which this optimizer takes its part.
    ///
    /// # Errors
    /// The tensor that is missing or has another shape.
    fn restore(&mut self, updates: u64, stored: &mut BTreeMap<String, Tensor>) -> Result<(), String>;
}
