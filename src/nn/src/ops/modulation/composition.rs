//! Modulated norms and gated sums as compositions, with CUDA kernels in their place where they serve.

use crate::device::{contiguous, wide};
use crate::ops::norm::{Normalize, Normalized, composed_input_gradient};
use crate::ops::operation::Operation;
use crate::ops::row_map::{Key, sum_items};
use crate::{Result, Sequences};
use candle_core::{DType, Tensor};

/// One of several vectors of every item, `[item, channel]`.
fn vector(vectors: &Tensor, place: usize, width: usize) -> Result<Tensor> {
    contiguous(&vectors.narrow(1, place * width, width)?)
}

/// The gradient of all vectors `[item, n x channel]` from those of some, by their places, in single precision at least.
fn of_vectors(parts: &[(usize, Tensor)], count: usize) -> Result<Tensor> {
    let part = |place: usize| {
        let found = parts.iter().find(|(at, _)| *at == place);
        found.map_or_else(|| Ok(parts[0].1.zeros_like()?), |(_, part)| Ok(part.clone()))
    };
    Ok(Tensor::cat(&(0..count).map(part).collect::<Result<Vec<_>>>()?, 1)?)
}

/// `normalized x * (1 + scale) + shift`; inputs `x` `[row, channel]` and the vectors `[item, n x channel]`.
pub(super) struct ModulatedNorm {
    pub(super) rows: Sequences,
    /// The places of shift and scale among the vectors.
    pub(super) places: [usize; 2],
    pub(super) epsilon: f32,
    /// Accumulator for the gradient of the input, `[row, channel]`.
    #[cfg(feature = "cuda")]
    pub(super) arrived: Option<Tensor>,
}

/// The state saved for the backward pass of a modulated norm.
pub(super) struct Saved {
    dtype: DType,
    /// `(x - mean) / deviation`, and `1 / deviation` of each row.
    normal: Tensor,
    scale: Tensor,
    vectors: Tensor,
    /// True if the CUDA kernels serve.
    #[cfg(feature = "cuda")]
    by_kernel: bool,
}

impl ModulatedNorm {
    /// 1 + scale of each row's item; 0 on rows of no item.
    fn gains(&self, vectors: &Tensor, width: usize) -> Result<Tensor> {
        let gains = wide(&vector(vectors, self.places[1], width)?)?.affine(1.0, 1.0)?;
        self.rows.map(Key::Expand)?.gather(&gains)
    }
}

impl Operation for ModulatedNorm {
    type Saved = Saved;

    #[cfg(feature = "cuda")]
    fn cuda(&self, inputs: &[Tensor]) -> Result<Option<(Tensor, Saved)>> {
        use crate::cuda::layer_norm::{Affine, forward, serves};
        let ([shift, scale], [x, vectors]) = (self.places, [&inputs[0], &inputs[1]]);
        if !serves(x) {
            return Ok(None);
        }
        let map = self.rows.map(Key::Expand)?.indices(x.device())?;
        let affine = Affine::Items { weight: (vectors, scale), bias: (vectors, shift), map: &map };
        let done = forward(x, affine, self.epsilon)?;
        let saved = Saved {
            dtype: x.dtype(),
            normal: done.normal,
            scale: done.scale,
            vectors: vectors.clone(),
            by_kernel: true,
        };
        Ok(Some((done.output, saved)))
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Saved)> {
        let [x, vectors] = [&inputs[0], &inputs[1]];
        let (width, dtype) = (x.dim(1)?, x.dtype());
        let plain = Normalize {
            has_weight: false,
            has_bias: false,
            epsilon: self.epsilon,
            #[cfg(feature = "cuda")]
            arrived: None,
        };
        let (_, Normalized { normal, scale, .. }) = plain.forward(&inputs[..1])?;
        let shift = wide(&vector(vectors, self.places[0], width)?)?;
        let shift = self.rows.map(Key::Expand)?.gather(&shift)?;
        let output = ((&normal * self.gains(vectors, width)?)? + shift)?.to_dtype(dtype)?;
        let saved = Saved {
            dtype,
            normal,
            scale,
            vectors: vectors.clone(),
            #[cfg(feature = "cuda")]
            by_kernel: false,
        };
        Ok((output, saved))
    }

    #[cfg(feature = "cuda")]
    fn onto(&mut self, saved: &Saved, arrived: &Tensor) -> bool {
        if saved.by_kernel && arrived.dtype() == saved.dtype && arrived.device().same_device(saved.normal.device()) {
            self.arrived = Some(arrived.clone());
        }
        self.arrived.is_some()
    }

    fn backward(self, saved: Saved, gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let width = saved.normal.dim(1)?;
        let count = saved.vectors.dim(1)? / width.max(1);
        #[cfg(feature = "cuda")]
        if saved.by_kernel {
            return self.cuda_backward(&saved, gradient, needs, count);
        }
        let Saved { dtype, normal, scale, vectors, .. } = &saved;
        let dy = wide(gradient)?;
        let input = || -> Result<Tensor> {
            let of_normal = (&dy * self.gains(vectors, width)?)?;
            Ok(composed_input_gradient(&of_normal, normal, scale)?.to_dtype(*dtype)?)
        };
        let of_input = needs[0].then(input).transpose()?;
        let given = || {
            let [shift, scale] = self.places;
            let parts = [(shift, sum_items(&dy, &self.rows)?), (scale, sum_items(&(&dy * normal)?, &self.rows)?)];
            of_vectors(&parts, count)
        };
        Ok(vec![of_input, needs[1].then(given).transpose()?])
    }
}

#[cfg(feature = "cuda")]
impl ModulatedNorm {
    /// The backward pass by CUDA kernels, of a forward pass by them.
    fn cuda_backward(
        &self,
        saved: &Saved,
        gradient: &Tensor,
        needs: &[bool],
        count: usize,
    ) -> Result<Vec<Option<Tensor>>> {
        use crate::cuda::layer_norm::{Affine, input_gradient, parameter_gradients};
        let ([shift, scale], Saved { dtype, normal, vectors, .. }) = (self.places, saved);
        let dy = gradient.to_dtype(*dtype)?;
        let map = self.rows.map(Key::Expand)?.indices(dy.device())?;
        let affine = Affine::Items { weight: (vectors, scale), bias: (vectors, shift), map: &map };
        let of_input =
            needs[0].then(|| input_gradient(&dy, normal, &saved.scale, affine, self.arrived.as_ref())).transpose()?;
        let given = || {
            let ranges = self.rows.ranges_on(dy.device())?;
            parameter_gradients(&dy, normal, Some(&ranges), [scale, shift], count)
        };
        Ok(vec![of_input, needs[1].then(given).transpose()?])
    }
}

/// `x + gate * update`; inputs `x` and the update, `[row, channel]`, and the vectors `[item, n x channel]`.
pub(super) struct AddGated {
    pub(super) rows: Sequences,
    /// The place of the gate among the vectors.
    pub(super) gate: usize,
}

impl AddGated {
    /// `base + gate * update`.
    fn gated(&self, base: Option<&Tensor>, update: &Tensor, vectors: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if crate::cuda::rows::serves(update) {
            let map = self.rows.map(Key::Expand)?.indices(update.device())?;
            return crate::cuda::rows::modulate(base, Some(update), 0.0, Some((vectors, self.gate)), None, &map);
        }
        let gates = vector(vectors, self.gate, update.dim(1)?)?;
        let change = (update * self.rows.map(Key::Expand)?.gather(&gates)?)?;
        Ok(base.map_or(Ok(change.clone()), |base| base + &change)?)
    }
}

impl Operation for AddGated {
    /// The update and the vectors.
    type Saved = [Tensor; 2];

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, [Tensor; 2])> {
        let [base, update, vectors] = [&inputs[0], &inputs[1], &inputs[2]];
        Ok((self.gated(Some(base), update, vectors)?, [update.clone(), vectors.clone()]))
    }

    fn backward(
        self,
        [update, vectors]: [Tensor; 2],
        gradient: &Tensor,
        needs: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let of_update = needs[1].then(|| self.gated(None, gradient, &vectors)).transpose()?;
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
