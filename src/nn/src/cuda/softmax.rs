//! The softmax of attention scores by CUDA kernels: one launch in each direction, with mask and relative positions.

use super::{Kernels, Launch, expect, uninitialized};
use crate::Result;
use candle_core::{DType, Tensor};

static KERNELS: Kernels =
    Kernels::new("attention's softmax", &[include_str!("elements.cuh"), include_str!("softmax.cu")]);

/// The weights in single precision from scores `[item x head, query, key]`, of a type and on a device that
/// [`attention`](super::attention::serves) allows. Distances are `[head, item x query, 2 time - 1]` in the type of the scores, the mask
/// `[item, 1, query, key]` in single precision.
pub(crate) fn forward(
    scores: &Tensor,
    distances: Option<&Tensor>,
    mask: &Tensor,
    scale: f32,
    heads: usize,
) -> Result<Tensor> {
    let (items, _, time, _) = mask.dims4()?;
    let rows = items * heads * time;
    expect("softmax", scores, &[items * heads, time, time], scores.dtype())?;
    expect("softmax", mask, &[items, 1, time, time], DType::F32)?;
    if let Some(distances) = distances {
        expect("softmax", distances, &[heads, items * time, 2 * time - 1], scores.dtype())?;
    }
    let launch = Launch::typed(&KERNELS, "forward", scores)?.count(rows)?.count(time)?.count(heads)?.number(scale);
    let launch = launch.tensor(scores)?.tensor(distances)?.tensor(mask)?;
    // SAFETY: all tensors have the shapes that the kernel reads and writes.
    unsafe {
        let weights = uninitialized((items * heads, time, time), DType::F32, scores)?;
        launch.tensor(&weights)?.over_rows(rows)?;
        Ok(weights)
    }
}

/// The gradient of the scores in the type of `like`, from the weights and their gradient, both in single precision; and the gradient of
/// the distances, if any.
pub(crate) fn backward(
    gradient: &Tensor,
    weights: &Tensor,
    scale: f32,
    heads: usize,
    relative: bool,
    like: &Tensor,
) -> Result<(Tensor, Option<Tensor>)> {
    let (batch, time, _) = weights.dims3()?;
    expect("softmax", gradient, &[batch, time, time], DType::F32)?;
    expect("softmax", weights, &[batch, time, time], DType::F32)?;
    let launch = Launch::typed(&KERNELS, "backward", like)?.count(batch * time)?.count(time)?.count(heads)?;
    let launch = launch.number(scale).tensor(weights)?.tensor(gradient)?;
    // SAFETY: as in the forward pass; the kernel writes all of its results.
    unsafe {
        let slopes = uninitialized((batch, time, time), like.dtype(), like)?;
        let of_distances =
            relative.then(|| uninitialized((heads, batch / heads * time, 2 * time - 1), like.dtype(), like));
        let of_distances = of_distances.transpose()?;
        launch.tensor(&slopes)?.tensor(of_distances.as_ref())?.over_rows(batch * time)?;
        Ok((slopes, of_distances))
    }
}
