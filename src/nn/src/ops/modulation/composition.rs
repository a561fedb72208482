//! Modulated norms and gated sums as compositions, replaced by CUDA kernels where they are supported.

use crate::device::wide;
use crate::ops::norm::{Normalize, Normalized, composed_input_gradient};
use crate::ops::operation::Operation;
use crate::ops::row_map::{Key, gated, sum_items, vector};
use crate::{Ragged, Result};
use candle_core::Tensor;

/// The gradient of all vectors `[item, n x channel]` from the gradients of some, by their places, in single precision or wider.
fn of_vectors(parts: &[(usize, Tensor)], count: usize) -> Result<Tensor> {
    let part = |place: usize| {
        let found = parts.iter().find(|(at, _)| *at == place);
        found.map_or_else(|| Ok(parts[0].1.zeros_like()?), |(_, part)| Ok(part.clone()))
    };
    Ok(Tensor::cat(&(0..count).map(part).collect::<Result<Vec<_>>>()?, 1)?)
}

/// `normalized x * (1 + scale) + shift`; inputs `x` `[row, channel]` and the vectors `[item, n x channel]`.
pub(super) struct ModulatedNorm {
    pub(super) rows: Ragged,
    /// The places of shift and scale among the vectors.
    pub(super) places: [usize; 2],
    pub(super) epsilon: f32,
    /// Accumulator for the gradient of the input, `[row, channel]`.
    #[cfg(feature = "cuda")]
    pub(super) arrived: Option<Tensor>,
}

impl ModulatedNorm {
    /// 1 + scale of each row's item; 0 on rows of no item.
    fn gains(&self, vectors: &Tensor, width: usize) -> Result<Tensor> {
        let gains = wide(&vector(vectors, self.places[1], width)?)?.affine(1.0, 1.0)?;
        self.rows.map(Key::Expand)?.gather(&gains)
    }
}

impl Operation for ModulatedNorm {
    /// Saved state of the norm, and the vectors.
    type Saved = (Normalized, Tensor);

    #[cfg(feature = "cuda")]
    fn cuda(&self, inputs: &[Tensor]) -> Result<Option<(Tensor, Self::Saved)>> {
        use crate::cuda::layer_norm::{Affine, Forward, forward, serves};
        let ([shift, scale], [x, vectors]) = (self.places, [&inputs[0], &inputs[1]]);
        if !serves(x) {
            return Ok(None);
        }
        let map = self.rows.map(Key::Expand)?.indices(x.device())?;
        let affine = Affine::Items { weight: (vectors, scale), bias: (vectors, shift), map: &map };
        let Forward { output, normal, scale } = forward(x, affine, self.epsilon)?;
        let (dtype, shape) = (x.dtype(), x.dims().to_vec());
        let norm = Normalized { dtype, shape, normal, scale, weight: None, by_kernel: true };
        Ok(Some((output, (norm, vectors.clone()))))
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Self::Saved)> {
        let [x, vectors] = [&inputs[0], &inputs[1]];
        let (width, dtype) = (x.dim(1)?, x.dtype());
        let (_, norm) = Normalize::new(false, false, self.epsilon).forward(&inputs[..1])?;
        let shift = wide(&vector(vectors, self.places[0], width)?)?;
        let shift = self.rows.map(Key::Expand)?.gather(&shift)?;
        let output = ((&norm.normal * self.gains(vectors, width)?)? + shift)?.to_dtype(dtype)?;
        Ok((output, (norm, vectors.clone())))
    }

    #[cfg(feature = "cuda")]
    fn onto(&mut self, (norm, _): &Self::Saved, arrived: &Tensor) -> bool {
        if norm.takes(arrived) {
            self.arrived = Some(arrived.clone());
        }
        self.arrived.is_some()
    }

    fn backward(self, saved: Self::Saved, gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (norm, vectors) = saved;
        let width = norm.normal.dim(1)?;
        let count = vectors.dim(1)? / width.max(1);
        #[cfg(feature = "cuda")]
        if norm.by_kernel {
            return self.cuda_backward(&norm, &vectors, gradient, needs, count);
        }
        let dy = wide(gradient)?;
        let input = || -> Result<Tensor> {
            let of_normal = (&dy * self.gains(&vectors, width)?)?;
            Ok(composed_input_gradient(&of_normal, &norm.normal, &norm.scale)?.to_dtype(norm.dtype)?)
        };
        let of_input = needs[0].then(input).transpose()?;
        let given = || {
            let [shift, scale] = self.places;
            let parts = [(shift, sum_items(&dy, &self.rows)?), (scale, sum_items(&(&dy * &norm.normal)?, &self.rows)?)];
            of_vectors(&parts, count)
        };
        Ok(vec![of_input, needs[1].then(given).transpose()?])
    }
}

#[cfg(feature = "cuda")]
impl ModulatedNorm {
    /// The backward pass by CUDA kernels, after a forward pass by CUDA kernels.
    fn cuda_backward(
        &self,
        norm: &Normalized,
        vectors: &Tensor,
        gradient: &Tensor,
        needs: &[bool],
        count: usize,
    ) -> Result<Vec<Option<Tensor>>> {
        use crate::cuda::layer_norm::{Affine, input_gradient, parameter_gradients};
        let ([shift, scale], normal) = (self.places, &norm.normal);
        let dy = gradient.to_dtype(norm.dtype)?;
        let map = self.rows.map(Key::Expand)?.indices(dy.device())?;
        let affine = Affine::Items { weight: (vectors, scale), bias: (vectors, shift), map: &map };
        let of_input =
            needs[0].then(|| input_gradient(&dy, normal, &norm.scale, affine, self.arrived.as_ref())).transpose()?;
        let given = || {
            let ranges = self.rows.ranges_on(dy.device())?;
            parameter_gradients(&dy, normal, Some(&ranges), [scale, shift], count)
        };
        Ok(vec![of_input, needs[1].then(given).transpose()?])
    }
}

/// `x + gate * update`; inputs `x` and the update, `[row, channel]`, and the vectors `[item, n x channel]`.
pub(super) struct AddGated {
    pub(super) rows: Ragged,
    /// The place of the gate among the vectors.
    pub(super) gate: usize,
}

impl Operation for AddGated {
    /// The update and the vectors.
    type Saved = [Tensor; 2];

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, [Tensor; 2])> {
        let [base, update, vectors] = [&inputs[0], &inputs[1], &inputs[2]];
        let sum = gated(Some(base), update, (vectors, self.gate), &self.rows)?;
        Ok((sum, [update.clone(), vectors.clone()]))
    }

    fn backward(
        self,
        [update, vectors]: [Tensor; 2],
        gradient: &Tensor,
        needs: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let of_update = needs[1].then(|| gated(None, gradient, (&vectors, self.gate), &self.rows)).transpose()?;
        let given = || {
            let count = vectors.dim(1)? / update.dim(1)?.max(1);
            #[cfg(feature = "cuda")]
            if crate::cuda::rows::serves(&update) && gradient.dtype() == update.dtype() {
                let ranges = self.rows.ranges_on(update.device())?;
                return crate::cuda::rows::sum_items(gradient, Some(&update), Some(&ranges), (self.gate, count));
            }
            of_vectors(&[(self.gate, sum_items(&(gradient * &update)?, &self.rows)?)], count)
        };
        Ok(vec![Some(gradient.clone()), of_update, needs[2].then(given).transpose()?])
    }
}
