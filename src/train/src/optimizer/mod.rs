//! Optimisers: how a gradient becomes a change of the weights.

mod adamw;
mod groups;
mod norm;

use std::collections::BTreeMap;

use candle_core::Tensor;
use flowmill_nn::{Gradients, Parameters};
use serde::{Deserialize, Serialize};

pub use adamw::AdamW;
pub(crate) use groups::freeze;
pub use groups::{GroupConfig, ParameterSettings};
pub use norm::{GradientNorms, gradient_norms};

use crate::TrainError;

/// Which optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), by PyTorch's formula.
    AdamW,
}

/// The recipe's `optim` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimConfig {
    /// Which optimiser.
    pub name: OptimizerName,
    /// The full learning rate, which the schedule scales.
    pub lr: f64,
    /// Decay of the running mean of gradients and of their squares.
    pub betas: [f64; 2],
    /// Added to the root of the mean square.
    pub eps: f64,
    /// Decoupled weight decay: every update multiplies the weights by `1 - rate * weight_decay`.
    pub weight_decay: f64,
    /// Leaves vectors and scalars (biases, gains) out of the weight decay.
    pub decay_matrices_only: bool,
    /// Parameters with settings of their own, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupConfig>,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self {
            name: OptimizerName::AdamW,
            lr: 1e-3,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            decay_matrices_only: false,
            groups: Vec::new(),
        }
    }
}

impl OptimConfig {
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        let fail = |key, reason: String| Err(TrainError::Config { key, reason });
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return fail("optim.lr", format!("{} is not a positive number", self.lr));
        }
        if self.betas.iter().any(|beta| !(0.0..1.0).contains(beta)) {
            return fail("optim.betas", format!("{:?}: each must be at least 0 and less than 1", self.betas));
        }
        if !(self.eps > 0.0 && self.eps.is_finite()) {
            return fail("optim.eps", format!("{} is not a positive number", self.eps));
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return fail("optim.weight_decay", format!("{} is negative or not a number", self.weight_decay));
        }
        self.groups.iter().try_for_each(GroupConfig::check)
    }

    /// Builds the optimiser over the trainable parameters, with empty state.
    pub fn build(&self, parameters: &Parameters) -> Result<Box<dyn Optimizer>, TrainError> {
        match self.name {
            OptimizerName::AdamW => Ok(Box::new(AdamW::new(self, parameters)?)),
        }
    }
}

/// What one update needs beside the gradients.
#[derive(Debug, Clone, Copy)]
pub struct Update {
    /// The learning rate of this step, which groups of parameters multiply.
    pub rate: f64,
    /// Multiplies every gradient value first: the averaging over accumulated batches and the clipping in one factor.
    pub scale: f64,
}

/// Changes weights by their gradients; its state is a function of the gradients seen, and is stored in checkpoints.
pub trait Optimizer {
    /// Updates every trainable parameter in place. Every trainable parameter must have a finite gradient.
    fn step(&mut self, parameters: &mut Parameters, gradients: &Gradients, update: Update) -> Result<(), TrainError>;

    /// Updates made so far.
    fn updates(&self) -> u64;

    /// The state in parameter order, each tensor as `KIND.PARAMETER`, such as `exp_avg.encoder.embed.weight`. They are the
    /// tensors that the next step changes in place.
    fn state(&self) -> Vec<(String, Tensor)>;

    /// Takes over a stored state.
    ///
    /// # Errors
    /// What is missing or has another shape.
    fn restore(&mut self, updates: u64, stored: &mut BTreeMap<String, Tensor>) -> Result<(), String>;
}
