//! Layer normalization by CUDA kernels, also with weight and bias per item of a batch: one launch forward, one backward for the
//! input and one for weight and bias.

use super::rows::Vector;
use super::{Kernels, Launch, expect, sums, uninitialized};
use crate::{NnError, Result};
use candle_core::{DType, Tensor};

static KERNELS: Kernels = Kernels::new("layer norm", &[include_str!("elements.cuh"), include_str!("layer_norm.cu")]);

/// Scale and shift of the rows.
#[derive(Clone, Copy)]
pub(crate) enum Affine<'a> {
    /// One weight and bias for all rows, `[channel]`.
    Shared { weight: Option<&'a Tensor>, bias: Option<&'a Tensor> },
    /// 1 + weight and bias of each item, both from the same matrix `[item, n x channel]`; `map` holds the item of each row.
    Items { weight: Vector<'a>, bias: Vector<'a>, map: &'a Tensor },
}

/// Result of the forward pass.
pub(crate) struct Forward {
    /// The output in the type of the input.
    pub(crate) output: Tensor,
    /// `(x - mean) / deviation` in single precision.
    pub(crate) normal: Tensor,
    /// `1 / deviation` of each row, in single precision.
    pub(crate) scale: Tensor,
}

/// Returns whether there are kernels for a tensor.
pub(crate) fn serves(tensor: &Tensor) -> bool {
    KERNELS.serve(tensor)
}

/// Weight and bias of the first item, the distance to those of the next, the number added to weights, and the map.
type Parts<'a> = ([Option<Tensor>; 2], usize, f32, Option<&'a Tensor>);

impl<'a> Affine<'a> {
    fn parts(self, rows: usize, width: usize, dtype: DType) -> Result<Parts<'a>> {
        match self {
            Self::Shared { weight, bias } => {
                for vector in [weight, bias].into_iter().flatten() {
                    expect("layer norm", vector, &[width], dtype)?;
                }
                Ok(([weight.cloned(), bias.cloned()], 0, 0.0, None))
            }
            Self::Items { weight, bias, map } => {
                expect("layer norm", map, &[rows], DType::U32)?;
                let part = |(vectors, place): Vector| vectors.narrow(1, place * width, width);
                let (weight_at, bias_at) = (part(weight)?, part(bias)?);
                if weight_at.dtype() != dtype || bias_at.dtype() != dtype || weight.0.dims() != bias.0.dims() {
                    return Err(NnError::shape("layer norm", format!("vectors in {dtype:?}"), weight.0.dims()));
                }
                Ok(([Some(weight_at), Some(bias_at)], weight.0.dim(1)?, 1.0, Some(map)))
            }
        }
    }
}

/// Normalizes the rows of `x` `[row, channel]`, which [`serves`] allows; weight and bias have the same element type.
pub(crate) fn forward(x: &Tensor, affine: Affine, epsilon: f32) -> Result<Forward> {
    let ((rows, width), x) = (x.dims2()?, x.contiguous()?);
    let ([weight, bias], stride, offset, map) = affine.parts(rows, width, x.dtype())?;
    let launch = Launch::typed(&KERNELS, "forward", &x)?.count(rows)?.count(width)?.count(stride)?;
    let launch = launch.number(epsilon).number(offset).tensor(map)?.tensor(&x)?;
    let launch = launch.strided(weight.as_ref())?.strided(bias.as_ref())?;
    // SAFETY: the kernel writes all of its three results; all tensors have the shapes that it reads and writes.
    unsafe {
        let output = uninitialized((rows, width), x.dtype(), &x)?;
        let normal = uninitialized((rows, width), DType::F32, &x)?;
        let scale = uninitialized(rows, DType::F32, &x)?;
        launch.tensor(&output)?.tensor(&normal)?.tensor(&scale)?.over_rows(rows)?;
        Ok(Forward { output, normal, scale })
    }
}

/// The gradient of the input from `dy` `[row, channel]` and the result of [`forward`], added to the gradient that has already arrived;
/// weight and arrived gradient have the type of `dy`.
pub(crate) fn input_gradient(
    dy: &Tensor,
    normal: &Tensor,
    scale: &Tensor,
    affine: Affine,
    arrived: Option<&Tensor>,
) -> Result<Tensor> {
    let ((rows, width), dy) = (normal.dims2()?, dy.contiguous()?);
    expect("layer norm", &dy, &[rows, width], dy.dtype())?;
    let ([weight, _], stride, offset, map) = affine.parts(rows, width, dy.dtype())?;
    let launch = Launch::typed(&KERNELS, "input_gradient", &dy)?.count(rows)?.count(width)?.count(stride)?;
    let launch = launch.number(offset).tensor(map)?.tensor(&dy)?.tensor(normal)?.tensor(scale)?;
    let arrived = arrived.map(Tensor::contiguous).transpose()?;
    if let Some(arrived) = &arrived {
        expect("layer norm", arrived, &[rows, width], dy.dtype())?;
    }
    let launch = launch.strided(weight.as_ref())?.tensor(arrived.as_ref())?;
    // SAFETY: as in the forward pass.
    unsafe {
        let dx = uninitialized((rows, width), dy.dtype(), &dy)?;
        launch.tensor(&dx)?.over_rows(rows)?;
        Ok(dx)
    }
}

/// The gradients of weight and bias in single precision, from `dy` `[row, channel]` and the result of [`forward`]: two of the `vectors`
/// vectors of each item, `[item, n x channel]`, by their places; the others are 0. `ranges` has the first and last row of each item,
/// `[item, 2]`; without it all rows are one item.
pub(crate) fn parameter_gradients(
    dy: &Tensor,
    normal: &Tensor,
    ranges: Option<&Tensor>,
    [weight, bias]: [usize; 2],
    vectors: usize,
) -> Result<Tensor> {
    let ((rows, width), dy) = (normal.dims2()?, dy.contiguous()?);
    expect("layer norm", &dy, &[rows, width], dy.dtype())?;
    let items = ranges.map_or(Ok(1), |ranges| ranges.dim(0))?;
    let launch = Launch::typed(&KERNELS, "parameter_gradients", &dy)?.count(rows)?.count(width)?;
    let launch = launch.count(vectors * width)?.tensor(ranges)?.tensor(&dy)?.tensor(normal)?;
    // SAFETY: ranges are of rows of `dy`; the kernel writes `width` columns of each item from each vector's first on.
    unsafe {
        let out = sums([items, vectors, width], 2, &dy)?;
        let [of_weight, of_bias] = [weight, bias].map(|place| out.narrow(1, place * width, width));
        launch.strided(&of_weight?)?.strided(&of_bias?)?.over_columns(width, items, rows)?;
        Ok(out)
    }
}
