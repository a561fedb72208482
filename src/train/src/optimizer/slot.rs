//! What an optimiser keeps of each parameter, and how it gets at the arrays.

use std::collections::BTreeMap;

use candle_core::Tensor;
use flowmill_nn::{Gradients, NnError, ParameterId, Parameters, host};
use rayon::prelude::*;

use super::rule::StateArray;
use super::{OptimConfig, ParameterSettings, groups};
use crate::TrainError;

/// A trainable parameter with its settings and state.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: ParameterId,
    pub(super) name: String,
    pub(super) dims: Vec<usize>,
    pub(super) settings: ParameterSettings,
    state: Vec<(&'static str, Tensor)>,
}

/// The arrays of one parameter, all row-major: what an update changes, and by what.
pub(super) struct Arrays<'a> {
    pub(super) weights: &'a mut [f32],
    /// The gradient as it came, not yet scaled or limited.
    pub(super) gradient: &'a [f32],
    /// In the order in which the optimiser declared them.
    pub(super) state: Vec<&'a mut [f32]>,
}

/// Every trainable parameter, in order.
#[derive(Debug)]
pub(super) struct Slots(Vec<Slot>);

impl Slots {
    /// Slots for the trainable parameters, each with the state arrays that `state` declares for its shape and settings, zero at first.
    pub(super) fn new(
        config: &OptimConfig,
        parameters: &Parameters,
        state: impl Fn(&[usize], ParameterSettings) -> Vec<StateArray>,
    ) -> Result<Self, TrainError> {
        let slot = |id: ParameterId| {
            let (name, dims) = (parameters.name(id).to_owned(), parameters.tensor(id).dims().to_vec());
            let settings = groups::settings(config, &name, dims.len());
            let zeros = |array: StateArray| Ok((array.kind, host::tensor(vec![0.0; array.count()], &array.dims)?));
            let state = state(&dims, settings).into_iter().map(zeros).collect::<Result<_, NnError>>()?;
            Ok(Slot { id, name, dims, settings, state })
        };
        let slots = parameters.trainable_ids().map(slot).collect::<Result<_, NnError>>();
        Ok(Self(slots.map_err(TrainError::tensor("setting up the optimiser"))?))
    }

    /// Copies every parameter into the last of its state arrays: what training starts from.
    pub(super) fn start(&self, parameters: &Parameters) -> Result<(), TrainError> {
        let copy = |slot: &Slot| -> Result<(), NnError> {
            let Some((_, tensor)) = slot.state.last() else { return Ok(()) };
            let weights = host::slice("optimiser", parameters.tensor(slot.id))?;
            host::modify(tensor, |start| start.copy_from_slice(&weights))
        };
        self.0.iter().try_for_each(|slot| copy(slot).map_err(TrainError::tensor(format!("copying {}", slot.name))))
    }

    /// Lets `visit` change the arrays of every parameter that has a gradient, several at a time; gives what it gave, in order.
    pub(super) fn visit<R: Send>(
        &self,
        parameters: &Parameters,
        gradients: &Gradients,
        visit: impl Fn(&Slot, Arrays<'_>) -> R + Sync,
    ) -> Result<Vec<(ParameterId, R)>, TrainError> {
        let visited = self.0.par_iter().map(|slot| {
            let Some(gradient) = gradients.get(slot.id) else { return Ok(None) };
            let given = slot.visit(parameters, gradient, |arrays| visit(slot, arrays));
            Ok(given.map_err(TrainError::tensor(format!("updating {}", slot.name)))?.map(|given| (slot.id, given)))
        });
        Ok(visited.collect::<Result<Vec<_>, TrainError>>()?.into_iter().flatten().collect())
    }

    /// The state arrays of every parameter, each as `KIND.PARAMETER`.
    pub(super) fn state(&self) -> Vec<(String, Tensor)> {
        let named = |slot: &Slot| {
            let entry = |(kind, tensor): &(&str, Tensor)| (format!("{kind}.{}", slot.name), tensor.clone());
            slot.state.iter().map(entry).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(named).collect()
    }

    /// Takes over stored arrays.
    ///
    /// # Errors
    /// What is missing or has another shape.
    pub(super) fn restore(&mut self, stored: &mut BTreeMap<String, Tensor>) -> Result<(), String> {
        for slot in &mut self.0 {
            for (kind, tensor) in &mut slot.state {
                *tensor = take(stored, &format!("{kind}.{}", slot.name), tensor.dims())?;
            }
        }
        Ok(())
    }
}

/// A stored tensor of the given name and shape.
pub(super) fn take(stored: &mut BTreeMap<String, Tensor>, name: &str, dims: &[usize]) -> Result<Tensor, String> {
    let tensor = stored.remove(name).ok_or_else(|| format!("{name} is missing"))?;
    if tensor.dims() != dims {
        return Err(format!("{name} has shape {:?} instead of {dims:?}", tensor.dims()));
    }
    Ok(tensor)
}

impl Slot {
    /// `None` only when there is nothing to visit.
    fn visit<R>(
        &self,
        parameters: &Parameters,
        gradient: &Tensor,
        visit: impl FnOnce(Arrays<'_>) -> R,
    ) -> Result<Option<R>, NnError> {
        let gradient = host::slice("optimiser", gradient)?;
        let mut given = None;
        let mut visit = Some(visit);
        let state: Vec<&Tensor> = self.state.iter().map(|(_, tensor)| tensor).collect();
        let mut inner = Ok(());
        host::modify(parameters.tensor(self.id), |weights| {
            inner = modify_all(&state, Vec::new(), &mut |state| {
                if let Some(visit) = visit.take() {
                    given = Some(visit(Arrays { weights: &mut *weights, gradient: &gradient, state }));
                }
            });
        })?;
        inner.map(|()| given)
    }
}

/// Gives `change` the elements of all tensors at once, each locked while it runs.
fn modify_all(
    tensors: &[&Tensor],
    held: Vec<&mut [f32]>,
    change: &mut dyn FnMut(Vec<&mut [f32]>),
) -> Result<(), NnError> {
    let Some((first, rest)) = tensors.split_first() else {
        change(held);
        return Ok(());
    };
    let mut inner = Ok(());
    host::modify(first, |elements| {
        let mut held: Vec<&mut [f32]> = held;
        held.push(elements);
        inner = modify_all(rest, held, change);
    })?;
    inner
}
