//! An optimizer's state of each parameter, and access to the arrays.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
#[cfg(feature = "cuda")]
use flowmill_nn::cuda::lists::Entry;
use flowmill_nn::{Gradients, NnError, ParameterId, Parameters, device, host};
use rayon::prelude::*;

use super::composition::{Tensors, Updated, fetch};
#[cfg(feature = "cuda")]
use super::multi_tensor;
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

/// Two numbers that a visit measures for a parameter.
pub(super) type Figures = [f64; 2];

/// The arrays of one parameter, all row-major, that an update by a kernel reads and changes.
pub(super) struct Arrays<'a> {
    pub(super) weights: &'a mut [f32],
    /// The gradient before scaling and limiting.
    pub(super) gradient: &'a [f32],
    /// State arrays in the order in which the optimizer declared them.
    pub(super) state: Vec<&'a mut [f32]>,
}

/// Every trainable parameter, in order.
#[derive(Debug)]
pub(super) struct Slots(Vec<Slot>);

impl Slots {
    /// Creates slots for the trainable parameters, each with the zeroed state arrays that `state` declares for its shape and settings.
    pub(super) fn new(
        config: &OptimConfig,
        parameters: &Parameters,
        state: impl Fn(&[usize], ParameterSettings) -> Vec<StateArray>,
    ) -> Result<Self, TrainError> {
        let slot = |id: ParameterId| {
            let (name, dims) = (parameters.name(id).to_owned(), parameters.tensor(id).dims().to_vec());
            let settings = groups::settings(config, &name, dims.len());
            let device = parameters.tensor(id).device();
            let zeros = |array: StateArray| Ok((array.kind, Tensor::zeros(array.dims.as_slice(), DType::F32, device)?));
            let state = state(&dims, settings).into_iter().map(zeros).collect::<Result<_, NnError>>()?;
            Ok(Slot { id, name, dims, settings, state })
        };
        let slots = parameters.trainable_ids().map(slot).collect::<Result<_, NnError>>();
        Ok(Self(slots.map_err(TrainError::tensor("setting up the optimizer"))?))
    }

    /// Copies every parameter into the last of its state arrays, as the start of training.
    pub(super) fn start(&mut self, parameters: &Parameters) -> Result<(), TrainError> {
        let copy = |slot: &mut Slot| -> Result<(), NnError> {
            let Some((_, start)) = slot.state.last_mut() else { return Ok(()) };
            *start = parameters.tensor(slot.id).copy()?;
            Ok(())
        };
        self.0.iter_mut().try_for_each(|slot| {
            copy(slot).map_err(|source| TrainError::tensor(format!("copying {}", slot.name))(source))
        })
    }

    /// Updates every parameter with a gradient; returns the figures of each, in order. On the CPU, kernels change arrays in place,
    /// several parameters at a time. Elsewhere, if `visit_together` has no kernel for the rule or the tensors, compositions create new
    /// tensors.
    pub(super) fn visit(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        kernel: impl Fn(&Slot, Arrays<'_>) -> Figures + Sync,
        composition: impl Fn(&Slot, &Tensors) -> Result<Updated, NnError>,
    ) -> Result<Vec<(ParameterId, Figures)>, TrainError> {
        if self.0.iter().all(|slot| device::is_fused(parameters.tensor(slot.id))) {
            return self.visit_arrays(parameters, gradients, kernel);
        }
        self.visit_tensors(parameters, gradients, composition)
    }

    /// Updates every parameter with a gradient by a CUDA kernel over all of them, in place; returns the norms of the weights before the
    /// update and of the update, if they are measured. `None` if there is no kernel for the rule or the tensors.
    #[cfg(feature = "cuda")]
    pub(super) fn visit_together(
        &self,
        parameters: &Parameters,
        gradients: &Gradients,
        measure: bool,
        kernel: impl Fn(&Slot) -> Option<(&'static str, Vec<f32>)>,
    ) -> Result<Option<Vec<(ParameterId, Figures)>>, TrainError> {
        let (mut ids, mut entries, mut name) = (Vec::new(), Vec::new(), "");
        for slot in &self.0 {
            let Some(gradient) = gradients.get(slot.id) else { continue };
            let Some((kernel, numbers)) = kernel(slot) else { return Ok(None) };
            let state = slot.state.iter().map(|(_, tensor)| tensor);
            let tensors: Vec<&Tensor> = [parameters.tensor(slot.id), gradient].into_iter().chain(state).collect();
            if !multi_tensor::serve(tensors.iter().copied()) {
                return Ok(None);
            }
            name = kernel;
            ids.push(slot.id);
            entries.push(Entry { tensors, numbers });
        }
        let figures = multi_tensor::update(name, &entries, measure);
        let figures = figures.map_err(TrainError::tensor("updating the parameters"))?;
        Ok(Some(ids.into_iter().zip(figures).collect()))
    }

    fn visit_arrays(
        &self,
        parameters: &Parameters,
        gradients: &Gradients,
        kernel: impl Fn(&Slot, Arrays<'_>) -> Figures + Sync,
    ) -> Result<Vec<(ParameterId, Figures)>, TrainError> {
        let visited = self.0.par_iter().map(|slot| {
            let Some(gradient) = gradients.get(slot.id) else { return Ok(None) };
            let given = slot.visit(parameters, gradient, |arrays| kernel(slot, arrays));
            Ok(given.map_err(TrainError::tensor(format!("updating {}", slot.name)))?.map(|given| (slot.id, given)))
        });
        Ok(visited.collect::<Result<Vec<_>, TrainError>>()?.into_iter().flatten().collect())
    }

    /// Updates by compositions; the figures of all parameters are read in one copy.
    fn visit_tensors(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        composition: impl Fn(&Slot, &Tensors) -> Result<Updated, NnError>,
    ) -> Result<Vec<(ParameterId, Figures)>, TrainError> {
        let (mut visited, mut scalars) = (Vec::new(), Vec::new());
        for slot in &mut self.0 {
            let Some(gradient) = gradients.get(slot.id) else { continue };
            let state = slot.state.iter().map(|(_, tensor)| tensor.clone()).collect();
            let tensors = Tensors { weights: parameters.tensor(slot.id).clone(), gradient: gradient.clone(), state };
            let failed = |source: NnError| TrainError::tensor(format!("updating {}", slot.name))(source);
            let updated = composition(slot, &tensors).map_err(failed)?;
            parameters.set(slot.id, updated.weights).map_err(failed)?;
            slot.state.iter_mut().zip(updated.state).for_each(|((_, tensor), updated)| *tensor = updated);
            visited.push((slot.id, updated.figures.is_some()));
            scalars.extend(updated.figures.into_iter().flatten());
        }
        let values = fetch(&scalars).map_err(TrainError::tensor("measuring the updates"))?;
        let mut pairs = values.as_chunks::<2>().0.iter();
        let mut figures = |measured: bool| if measured { pairs.next().copied() } else { None };
        Ok(visited.into_iter().map(|(id, measured)| (id, figures(measured).unwrap_or_default())).collect())
    }

    /// Returns the state arrays of every parameter, each as `KIND.PARAMETER`.
    pub(super) fn state(&self) -> Vec<(String, Tensor)> {
        let named = |slot: &Slot| {
            let entry = |(kind, tensor): &(&str, Tensor)| (format!("{kind}.{}", slot.name), tensor.clone());
            slot.state.iter().map(entry).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(named).collect()
    }

    /// Restores stored arrays.
    ///
    /// # Errors
    /// The array that is missing or has another shape.
    pub(super) fn restore(&mut self, stored: &mut BTreeMap<String, Tensor>) -> Result<(), String> {
        for slot in &mut self.0 {
            for (kind, tensor) in &mut slot.state {
                let taken = take(stored, &format!("{kind}.{}", slot.name), tensor.dims())?;
                *tensor = taken.to_device(tensor.device()).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}

/// Takes a stored tensor of the given name and shape.
pub(super) fn take(stored: &mut BTreeMap<String, Tensor>, name: &str, dims: &[usize]) -> Result<Tensor, String> {
    let tensor = stored.remove(name).ok_or_else(|| format!("{name} is missing"))?;
    if tensor.dims() != dims {
        return Err(format!("{name} has shape {:?} instead of {dims:?}", tensor.dims()));
    }
    Ok(tensor)
}

impl Slot {
    /// Returns `None` only if there is nothing to visit.
    fn visit<R>(
        &self,
        parameters: &Parameters,
        gradient: &Tensor,
        visit: impl FnOnce(Arrays<'_>) -> R,
    ) -> Result<Option<R>, NnError> {
        let gradient = host::slice("optimizer", gradient)?;
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

/// Passes the elements of all tensors to `change` at the same time, each locked while it runs.
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
