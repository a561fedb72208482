//! Updates as compositions of candle operations, for every device without a kernel of its own; also the reference for the kernels.

use candle_core::{DType, Device, Tensor};
use flowmill_nn::NnError;

use super::Update;

/// The tensors of one parameter that an update reads.
pub(super) struct Tensors {
    pub(super) weights: Tensor,
    /// The gradient before scaling and limiting.
    pub(super) gradient: Tensor,
    /// State tensors in the order in which the optimizer declared them.
    pub(super) state: Vec<Tensor>,
}

/// Result of an update of a parameter.
pub(super) struct Updated {
    pub(super) weights: Tensor,
    /// State tensors in the order of [`Tensors::state`].
    pub(super) state: Vec<Tensor>,
    /// Two scalars about the update, if they are measured; see [`Figures`](super::slot::Figures).
    pub(super) figures: Option<[Tensor; 2]>,
}

impl Updated {
    /// Creates a result without figures.
    pub(super) fn new(weights: Tensor, state: Vec<Tensor>) -> Self {
        Self { weights, state, figures: None }
    }

    /// Returns a parameter without such state unchanged.
    pub(super) fn unchanged(tensors: &Tensors) -> Self {
        Self::new(tensors.weights.clone(), tensors.state.clone())
    }

    /// Adds the norms of the weights before the update and of the update, if they are `wanted`.
    pub(super) fn measured(self, wanted: bool, before: &Tensor) -> Result<Self, NnError> {
        if !wanted {
            return Ok(self);
        }
        let change = self.weights.sub(before)?;
        let norms = [sum_of_squares(before)?.sqrt()?, sum_of_squares(&change)?.sqrt()?];
        Ok(Self { figures: Some(norms), ..self })
    }
}

impl Update {
    /// Scales and limits a gradient for the optimizer.
    pub(crate) fn tensor(&self, gradient: &Tensor) -> Result<Tensor, NnError> {
        let scaled = gradient.affine(self.scale, 0.0)?;
        if self.limit.is_infinite() {
            return Ok(scaled);
        }
        let bound = |limit: f64| Tensor::full(limit as f32, (), gradient.device());
        Ok(scaled.broadcast_minimum(&bound(self.limit)?)?.broadcast_maximum(&bound(-self.limit)?)?)
    }
}

/// `keep · a + factor · b`.
pub(super) fn mix(keep: f64, a: &Tensor, factor: f64, b: &Tensor) -> Result<Tensor, NnError> {
    Ok(a.affine(keep, 0.0)?.add(&b.affine(factor, 0.0)?)?)
}

/// Returns the larger of every element and a small constant. The constant is part of the kernel: nothing is copied to the device.
pub(super) fn at_least(tensor: &Tensor, least: f64) -> Result<Tensor, NnError> {
    Ok(tensor.affine(1.0, -least)?.relu()?.affine(1.0, least)?)
}

/// Returns the sum of all squares as a scalar on the tensor's device.
pub(super) fn sum_of_squares(tensor: &Tensor) -> Result<Tensor, NnError> {
    Ok(wide(tensor)?.sqr()?.sum_all()?)
}

/// Returns the sum of squares of each tensor in one copy, by a CUDA kernel if there is one for them.
pub(super) fn sums_of_squares(tensors: &[&Tensor]) -> Result<Vec<f64>, NnError> {
    #[cfg(feature = "cuda")]
    if super::multi_tensor::serve(tensors.iter().copied()) {
        return super::multi_tensor::sums_of_squares(tensors);
    }
    let sums = tensors.iter().map(|tensor| sum_of_squares(tensor)).collect::<Result<Vec<_>, _>>()?;
    fetch(&sums)
}

/// Converts to the element type of sums over whole tensors: double precision if the device has it.
pub(super) fn wide(tensor: &Tensor) -> Result<Tensor, NnError> {
    let dtype = if matches!(tensor.device(), Device::Metal(_)) { DType::F32 } else { DType::F64 };
    Ok(tensor.to_dtype(dtype)?)
}

/// Returns the values of scalars of one type on one device, in one copy for all of them.
pub(super) fn fetch(scalars: &[Tensor]) -> Result<Vec<f64>, NnError> {
    if scalars.is_empty() {
        return Ok(Vec::new());
    }
    let together = Tensor::stack(scalars, 0)?.to_device(&Device::Cpu)?;
    Ok(together.to_dtype(DType::F64)?.to_vec1()?)
}
