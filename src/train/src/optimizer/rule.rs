//! Optimizers that update every parameter independently.

use std::collections::BTreeMap;
use std::fmt::Debug;

use candle_core::Tensor;
use flowmill_nn::{Gradients, NnError, Parameters};

use super::change::{Change, Changes};
use super::composition::{Tensors, Updated};
#[cfg(feature = "cuda")]
use super::slot::Slot;
use super::slot::{Arrays, Slots};
use super::{OptimConfig, Optimizer, ParameterSettings, Update};
use crate::TrainError;

/// A state array that an optimizer keeps for a parameter.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StateArray {
    /// The name in the libraries, such as `exp_avg`.
    pub(super) kind: &'static str,
    /// The shape.
    pub(super) dims: Vec<usize>,
}

impl StateArray {
    pub(super) fn new(kind: &'static str, dims: &[usize]) -> Self {
        Self { kind, dims: dims.to_vec() }
    }
}

/// One update of one parameter.
pub(super) struct Step<'a> {
    /// Number of the update, from 1.
    pub(super) number: u64,
    pub(super) update: Update,
    /// The parameter's shape.
    pub(super) dims: &'a [usize],
    pub(super) settings: ParameterSettings,
}

impl Step<'_> {
    /// The parameter's learning rate.
    pub(super) fn rate(&self) -> f64 {
        self.update.rate * self.settings.lr_multiple
    }
}

/// The update rule of one parameter, independent of the others: a fused CPU kernel, and a composition of candle operations that computes
/// the same on any device.
pub(super) trait UpdateRule: Debug + Send + Sync {
    /// Returns the state arrays for a parameter; they depend only on the step's shape and settings.
    fn state(&self, step: &Step<'_>) -> Vec<StateArray>;

    /// Changes weights and state; the arrays are those that [`state`](Self::state) declares for the same shape and settings.
    fn update(&self, step: &Step<'_>, arrays: Arrays<'_>);

    /// Returns the CUDA kernel that updates all parameters in one launch, and its numbers for this parameter. Its tensors are weights,
    /// gradient and state. `None` if the rule has none.
    #[cfg(feature = "cuda")]
    fn kernel(&self, step: &Step<'_>) -> Option<(&'static str, Vec<f32>)> {
        let _ = step;
        None
    }

    /// The composition of [`update`](Self::update): returns the new weights, and the new state in the same order.
    fn compose(&self, step: &Step<'_>, tensors: &Tensors) -> Result<Updated, NnError>;
}

/// An optimizer that applies a rule to each parameter.
#[derive(Debug)]
pub(super) struct PerParameter<R> {
    rule: R,
    slots: Slots,
    updates: u64,
}

impl<R: UpdateRule> PerParameter<R> {
    /// Creates the optimizer over the trainable parameters, with zero state.
    pub(super) fn new(rule: R, config: &OptimConfig, parameters: &Parameters) -> Result<Self, TrainError> {
        let state =
            |dims: &[usize], settings| rule.state(&Step { number: 0, update: Update::new(0.0, 0.0), dims, settings });
        let slots = Slots::new(config, parameters, state)?;
        Ok(Self { rule, slots, updates: 0 })
    }
}

impl<R: UpdateRule> Optimizer for PerParameter<R> {
    fn step(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        update: Update,
    ) -> Result<Changes, TrainError> {
        self.updates += 1;
        let (rule, number) = (&self.rule, self.updates);
        #[cfg(feature = "cuda")]
        {
            let kernel = |slot: &Slot| rule.kernel(&Step { number, update, dims: &slot.dims, settings: slot.settings });
            if let Some(changes) = self.slots.visit_together(parameters, gradients, update.measure, kernel)? {
                return Ok(Changes::of(update, changes));
            }
        }
        let changes = self.slots.visit(
            parameters,
            gradients,
            |slot, arrays| {
                let step = Step { number, update, dims: &slot.dims, settings: slot.settings };
                Change::measured(update.measure, arrays, |arrays| rule.update(&step, arrays))
            },
            |slot, tensors| {
                let step = Step { number, update, dims: &slot.dims, settings: slot.settings };
                rule.compose(&step, tensors)?.measured(update.measure, &tensors.weights)
            },
        )?;
        Ok(Changes::of(update, changes))
    }

    fn updates(&self) -> u64 {
        self.updates
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.slots.state()
    }

    fn restore(&mut self, updates: u64, stored: &mut BTreeMap<String, Tensor>) -> Result<(), String> {
        self.slots.restore(stored)?;
        self.updates = updates;
        Ok(())
    }
}
