//! Updates as compositions of candle operations, for every device that has no kernel of its own; also what the kernels are compared to.

use candle_core::{DType, Device, Tensor};
use flowmill_nn::NnError;

use super::Update;

/// The tensors of one parameter: what an update reads.
pub(super) struct Tensors {
    pub(super) weights: Tensor,
    /// The gradient as it came, not yet scaled or limited.
    pub(super) gradient: Tensor,
    /// In the order in which the optimizer declared them.
    pub(super) state: Vec<Tensor>,
}

/// What an update makes of a parameter.
pub(super) struct Updated {
    pub(super) weights: Tensor,
    /// In the order of [`Tensors::state`].
    pub(super) state: Vec<Tensor>,
    /// Two scalars about it, where they are wanted; see [`Figures`](super::slot::Figures).
    pub(super) figures: Option<[Tensor; 2]>,
}

impl Updated {
    /// Without figures.
    pub(super) fn new(weights: Tensor, state: Vec<Tensor>) -> Self {
        Self { weights, state, figures: None }
    }

    /// Of a parameter that has no such state: it stays as it is.
    pub(super) fn unchanged(tensors: &Tensors) -> Self {
        Self::new(tensors.weights.clone(), tensors.state.clone())
    }

    /// With the norms of the weights before the update and of what it added to them, when they are `wanted`.
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
    /// A gradient as the optimizer takes it: scaled and limited.
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

/// The larger of every element and a small constant. The constant is part of the kernel: nothing is copied to the device.
pub(super) fn at_least(tensor: &Tensor, least: f64) -> Result<Tensor, NnError> {
    Ok(tensor.affine(1.0, -least)?.relu()?.affine(1.0, least)?)
}

/// The sum of all squares as a scalar where the tensor is.
pub(super) fn sum_of_squares(tensor: &Tensor) -> Result<Tensor, NnError> {
    Ok(wide(tensor)?.sqr()?.sum_all()?)
}

/// The sum of squares of each tensor, in one copy; by a CUDA kernel where there is one for them.
pub(super) fn sums_of_squares(tensors: &[&Tensor]) -> Result<Vec<f64>, NnError> {
    #[cfg(feature = "cuda")]
    if super::multi_tensor::serve(tensors.iter().copied()) {
        return super::multi_tensor::sums_of_squares(tensors);
    }
    let sums = tensors.iter().map(|tensor| sum_of_squares(tensor)).collect::<Result<Vec<_>, _>>()?;
    fetch(&sums)
}

/// In the element type that sums over whole tensors are taken in: double precision where the device has it.
pub(super) fn wide(tensor: &Tensor) -> Result<Tensor, NnError> {
    let dtype = if matches!(tensor.device(), Device::Metal(_)) { DType::F32 } else { DType::F64 };
    Ok(tensor.to_dtype(dtype)?)
}

/// The values of scalars of one type on one device: one copy for all of them.
pub(super) fn fetch(scalars: &[Tensor]) -> Result<Vec<f64>, NnError> {
    if scalars.is_empty() {
        return Ok(Vec::new());
    }
    let together = Tensor::stack(scalars, 0)?.to_device(&Device::Cpu)?;
    Ok(together.to_dtype(DType::F64)?.to_vec1()?)
}
