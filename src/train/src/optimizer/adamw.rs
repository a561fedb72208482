//! AdamW, fused: one multi-threaded pass per parameter updates moments and weights in place.

use std::collections::BTreeMap;

use candle_core::Tensor;
use flowmill_nn::{Gradients, NnError, ParameterId, Parameters, host};
use rayon::prelude::*;

use super::groups::settings;
use super::{OptimConfig, Optimizer, ParameterSettings, Update};
use crate::TrainError;

/// Values that one thread updates at a time. Each value's update is independent, so the size does not change results.
const CHUNK: usize = 1 << 14;

/// AdamW by PyTorch's formula (`torch.optim.AdamW`): with g the scaled gradient and t the number of the update,
///
/// ```text
/// w ← w (1 - rate decay);  m ← m + (1 - β1)(g - m);  v ← β2 v + (1 - β2) g²
/// w ← w - rate / (1 - β1^t) · m / (√v / √(1 - β2^t) + ε)
/// ```
#[derive(Debug)]
pub struct AdamW {
    betas: [f64; 2],
    eps: f64,
    slots: Vec<Slot>,
    updates: u64,
}

/// The state of one trainable parameter.
#[derive(Debug)]
struct Slot {
    id: ParameterId,
    name: String,
    settings: ParameterSettings,
    mean: Tensor,
    square: Tensor,
}

/// The scalars of one update, as the kernel uses them.
#[derive(Clone, Copy)]
struct Kernel {
    scale: f32,
    keep: f32,
    mean_weight: f32,
    square_keep: f32,
    square_weight: f32,
    root_correction: f32,
    eps: f32,
    step_size: f32,
}

impl AdamW {
    /// An optimiser over the trainable parameters, its moments zero.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn new(config: &OptimConfig, parameters: &Parameters) -> Result<Self, TrainError> {
        let slots = parameters.trainable_ids().map(|id| Slot::new(id, config, parameters)).collect::<Result<_, _>>();
        let slots = slots.map_err(TrainError::tensor("setting up AdamW"))?;
        Ok(Self { betas: config.betas, eps: config.eps, slots, updates: 0 })
    }

    fn kernel(&self, update: Update, settings: ParameterSettings) -> Kernel {
        let rate = update.rate * settings.lr_multiple;
        let [beta1, beta2] = self.betas;
        let number = self.updates as i32;
        Kernel {
            scale: update.scale as f32,
            keep: (1.0 - rate * settings.weight_decay) as f32,
            mean_weight: (1.0 - beta1) as f32,
            square_keep: beta2 as f32,
            square_weight: (1.0 - beta2) as f32,
            root_correction: (1.0 - beta2.powi(number)).sqrt() as f32,
            eps: self.eps as f32,
            step_size: (rate / (1.0 - beta1.powi(number))) as f32,
        }
    }
}

impl Optimizer for AdamW {
    fn step(&mut self, parameters: &mut Parameters, gradients: &Gradients, update: Update) -> Result<(), TrainError> {
        self.updates += 1;
        let kernels: Vec<Kernel> = self.slots.iter().map(|slot| self.kernel(update, slot.settings)).collect();
        let parameters = &*parameters;
        self.slots.par_iter().zip(kernels).try_for_each(|(slot, kernel)| {
            let Some(gradient) = gradients.get(slot.id) else {
                return Ok(());
            };
            slot.update(parameters, gradient, kernel).map_err(TrainError::tensor(format!("updating {}", slot.name)))
        })
    }

    fn updates(&self) -> u64 {
        self.updates
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let named = |slot: &Slot| slot.state().map(|(name, tensor)| (name, tensor.clone()));
        self.slots.iter().flat_map(named).collect()
    }

    fn restore(&mut self, updates: u64, stored: &mut BTreeMap<String, Tensor>) -> Result<(), String> {
        for slot in &mut self.slots {
            let [mean, square] = slot.state().map(|(name, tensor)| take(stored, name, tensor.dims()));
            (slot.mean, slot.square) = (mean?, square?);
        }
        self.updates = updates;
        Ok(())
    }
}

/// A stored tensor of the given name and shape.
fn take(stored: &mut BTreeMap<String, Tensor>, name: String, dims: &[usize]) -> Result<Tensor, String> {
    let tensor = stored.remove(&name).ok_or_else(|| format!("{name} is missing"))?;
    if tensor.dims() != dims {
        return Err(format!("{name} has shape {:?} instead of {dims:?}", tensor.dims()));
    }
    Ok(tensor)
}

impl Slot {
    fn new(id: ParameterId, config: &OptimConfig, parameters: &Parameters) -> Result<Self, NnError> {
        let tensor = parameters.tensor(id);
        let zeros = || host::tensor(vec![0.0; tensor.elem_count()], tensor.dims());
        Ok(Self {
            id,
            name: parameters.name(id).to_owned(),
            settings: settings(config, parameters.name(id), tensor.rank()),
            mean: zeros()?,
            square: zeros()?,
        })
    }

    fn state(&self) -> [(String, &Tensor); 2] {
        [(format!("exp_avg.{}", self.name), &self.mean), (format!("exp_avg_sq.{}", self.name), &self.square)]
    }

    fn update(&self, parameters: &Parameters, gradient: &Tensor, kernel: Kernel) -> Result<(), NnError> {
        let gradient = host::slice("AdamW", gradient)?;
        let (mut mean_changed, mut square_changed) = (Ok(()), Ok(()));
        host::modify(parameters.tensor(self.id), |weights| {
            mean_changed = host::modify(&self.mean, |mean| {
                square_changed =
                    host::modify(&self.square, |square| kernel.apply_all(weights, &gradient, mean, square));
            });
        })?;
        mean_changed.and(square_changed)
    }
}

impl Kernel {
    fn apply_all(self, weights: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32]) {
        weights
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(mean.par_chunks_mut(CHUNK).zip(square.par_chunks_mut(CHUNK)))
            .for_each(|((weights, gradient), (mean, square))| self.apply(weights, gradient, mean, square));
    }

    fn apply(self, weights: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32]) {
        for (((weight, gradient), mean), square) in weights.iter_mut().zip(gradient).zip(mean).zip(square) {
            let gradient = gradient * self.scale;
            *mean += self.mean_weight * (gradient - *mean);
            *square = *square * self.square_keep + self.square_weight * gradient * gradient;
            let root = square.sqrt() / self.root_correction + self.eps;
            *weight = *weight * self.keep - self.step_size * *mean / root;
        }
    }
}
