//! Rotary positions (Su et al., arXiv 2104.09864): channels `c` and `c + half` of a head are rotated by the angle of the row.

use crate::gradients::{Flow, Gradient};
use crate::ops::operation::{Operation, apply};
use crate::tape::record;
use crate::{NnError, Result, Value, host};
use candle_core::Tensor;
use rayon::prelude::*;

/// Rows per task.
const ROWS_PER_TASK: usize = 64;

impl Value {
    /// Rotates queries or keys `[.., head x channel]` by the angles of their rows, given as cosines and sines `[row, pair]` with two
    /// channels of a head per pair. No derivative flows into the angles.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn rotate(&self, cosines: &Value, sines: &Value) -> Result<Value> {
        let (rows, width, pairs) = (self.rows(), self.width(), cosines.width());
        let fits = cosines.dims() == [rows, pairs] && pairs > 0 && width.is_multiple_of(2 * pairs);
        if !fits || sines.dims() != cosines.dims() {
            let expected = format!("{:?} rows of heads of {} channels", cosines.dims(), 2 * pairs);
            return Err(NnError::shape("rotary positions", expected, self.dims()));
        }
        apply(Rotate { pairs }, &[self, &cosines.detach(), &sines.detach()])
    }
}

/// A rotation of the pairs of channels of every head.
struct Rotate {
    /// Number of pairs per head.
    pairs: usize,
}

impl Rotate {
    fn turn(&self, x: &Tensor, cosines: &Tensor, sines: &Tensor) -> Result<Tensor> {
        let rows = cosines.dim(0)?;
        if x.elem_count() == 0 {
            return Ok(x.clone());
        }
        let heads = x.elem_count() / (rows * 2 * self.pairs);
        let halves = x.reshape((rows, heads, 2, self.pairs))?;
        let (first, second) = (halves.narrow(2, 0, 1)?.contiguous()?, halves.narrow(2, 1, 1)?.contiguous()?);
        let [cosines, sines] = [cosines, sines].map(|angles| angles.reshape((rows, 1, 1, self.pairs)));
        let (cosines, sines) = (cosines?, sines?);
        let turned = (first.broadcast_mul(&cosines)? - second.broadcast_mul(&sines)?)?;
        let other = (second.broadcast_mul(&cosines)? + first.broadcast_mul(&sines)?)?;
        Ok(Tensor::cat(&[turned, other], 2)?.reshape(x.dims())?)
    }
}

impl Operation for Rotate {
    /// Cosines and sines.
    type Saved = [Tensor; 2];

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Self::Saved)> {
        let [x, cosines, sines] = inputs else { return Err(NnError::invalid("rotary positions", "three inputs")) };
        Ok((self.turn(x, cosines, sines)?, [cosines.clone(), sines.clone()]))
    }

    fn backward(self, [cosines, sines]: Self::Saved, gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(self.turn(gradient, &cosines, &sines.neg()?)?), None, None])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let output = {
            let x = host::slice("rotary positions", inputs[0].tensor())?;
            let cosines = host::slice("rotary positions", inputs[1].tensor())?;
            let sines = host::slice("rotary positions", inputs[2].tensor())?;
            host::tensor(turned(&x, inputs[0].width(), &cosines, &sines, self.pairs), inputs[0].dims())?
        };
        Ok(record(output, inputs, || {
            let (cosines, sines) = (inputs[1].tensor().clone(), inputs[2].tensor().clone());
            let shape = inputs[0].dims().to_vec();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let dy = host::slice("rotary positions", gradient.tensor())?;
                let cosines = host::slice("rotary positions", &cosines)?;
                let back: Vec<f32> = host::slice("rotary positions", &sines)?.iter().map(|sine| -sine).collect();
                let dx = turned(&dy, shape.last().copied().unwrap_or(0), &cosines, &back, self.pairs);
                flow.give_vec(0, dx, &shape)
            }
        }))
    }
}

/// The kernel: `x` has rows of `width` channels, cosines and sines are `[row][pair]`.
fn turned(x: &[f32], width: usize, cosines: &[f32], sines: &[f32], pairs: usize) -> Vec<f32> {
    let mut out = x.to_vec();
    let tasks = out.par_chunks_mut((ROWS_PER_TASK * width).max(1)).enumerate();
    tasks.for_each(|(task, rows)| {
        for (row, channels) in (task * ROWS_PER_TASK..).zip(rows.chunks_exact_mut(width)) {
            let range = row * pairs..(row + 1) * pairs;
            let (cosines, sines) = (&cosines[range.clone()], &sines[range]);
            channels.chunks_exact_mut(2 * pairs).for_each(|head| turn_head(head, cosines, sines));
        }
    });
    out
}

fn turn_head(head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let (first, second) = head.split_at_mut(cosines.len());
    for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
        (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
    }
}
