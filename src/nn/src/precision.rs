//! The number formats that training can compute in.

use crate::kernels::elementwise::{CHUNK, map_assign};
use crate::{Result, device, host};
use candle_core::Tensor;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The number format of a recorded computation.
///
/// On devices a format is an element type. On the CPU tensors are `f32` in memory in every format. In `bf16` and `fp16` their values are
/// rounded to the nearest number of the format (ties to even; infinity beyond its range; subnormals are kept) where a computation in that
/// format would store them:
///
/// * weights in the forward pass (the weights themselves, and the optimizer's computations, stay `f32`);
/// * the output of every recorded operation;
/// * the gradient of every recorded value and of every weight, after all contributions have been added up.
///
/// Inside of an operation (products, sums, statistics of norms, attention weights) and in losses everything is `f32`. Input data are
/// `f32` too: they are rounded with the first operation's output. Automatic mixed precision on devices that accumulate products in `f32`
/// computes the same, except for the order of sums and for roundings between parts of one fused operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision throughout.
    #[default]
    Fp32,
    /// The upper half of single precision: its range with 8 significant bits.
    Bf16,
    /// IEEE half precision: 11 significant bits, up to 65504. Gradients need a loss scale.
    Fp16,
}

/// Numbers converted to half precision at a time.
const RUN: usize = 1024;

/// Rounds every number to the nearest one of IEEE half precision, on this thread.
fn round_to_half(elements: &mut [f32]) {
    let mut halves = [f16::ZERO; RUN];
    for run in elements.chunks_mut(RUN) {
        let halves = &mut halves[..run.len()];
        halves.convert_from_f32_slice(run);
        halves.convert_to_f32_slice(run);
    }
}

impl Precision {
    /// Rounds every number to the nearest one of the format.
    pub fn round(self, elements: &mut [f32]) {
        match self {
            Self::Fp32 => {}
            Self::Bf16 => map_assign(elements, |x| bf16::from_f32(x).to_f32()),
            Self::Fp16 => elements.par_chunks_mut(CHUNK).for_each(round_to_half),
        }
    }

    /// Like [`round`](Self::round), on this thread.
    pub(crate) fn round_here(self, elements: &mut [f32]) {
        match self {
            Self::Fp32 => {}
            Self::Bf16 => elements.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32()),
            Self::Fp16 => round_to_half(elements),
        }
    }

    /// Returns a copy with rounded numbers (on devices in the format's element type), or the tensor itself in single precision.
    ///
    /// # Errors
    /// When candle cannot convert it.
    pub fn rounded(self, tensor: &Tensor) -> Result<Tensor> {
        if self == Self::Fp32 {
            return Ok(tensor.clone());
        }
        if !device::is_host_single(tensor) {
            return Ok(tensor.to_dtype(device::dtype(self))?);
        }
        let mut elements = host::slice("rounding", tensor)?.to_vec();
        self.round(&mut elements);
        host::tensor(elements, tensor.dims())
    }

    /// Returns the format that a value of this shape is stored in: scalars are losses or parts of them, which stay in single precision.
    pub(crate) fn of_shape(self, dims: &[usize]) -> Self {
        if dims.is_empty() { Self::Fp32 } else { self }
    }
}
