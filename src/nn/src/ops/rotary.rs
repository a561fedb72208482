//! Rotary positions (Su et al., arXiv 2104.09864): pairs of channels are rotated by the angles of their row.

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
        apply(Rotate { pairs, pairing: Pairing::Halves }, &[self, &cosines.detach(), &sines.detach()])
    }

    /// Rotates the first channels of each row, in pairs of neighbors, by angles like those of [`rotate`](Self::rotate): channels `2 p` and
    /// `2 p + 1` are pair `p`. The channels after the last pair stay as they are.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn rotate_leading(&self, cosines: &Value, sines: &Value) -> Result<Value> {
        let (rows, width, pairs) = (self.rows(), self.width(), cosines.width());
        let fits = cosines.dims() == [rows, pairs] && pairs > 0 && width >= 2 * pairs;
        if !fits || sines.dims() != cosines.dims() {
            let expected = format!("{:?} rows of at least {} channels", cosines.dims(), 2 * pairs);
            return Err(NnError::shape("rotary positions", expected, self.dims()));
        }
        apply(Rotate { pairs, pairing: Pairing::LeadingNeighbors }, &[self, &cosines.detach(), &sines.detach()])
    }
}

/// The channels of a row that are rotated together.
#[derive(Clone, Copy)]
enum Pairing {
    /// Channels `c` and `c + pairs` of every head of `2 pairs` channels.
    Halves,
    /// Channels `2 c` and `2 c + 1`, up to the last pair.
    LeadingNeighbors,
}

/// A rotation of pairs of channels.
struct Rotate {
    /// Number of pairs that have angles.
    pairs: usize,
    pairing: Pairing,
}

impl Rotate {
    fn turn(&self, x: &Tensor, cosines: &Tensor, sines: &Tensor) -> Result<Tensor> {
        if x.elem_count() == 0 {
            return Ok(x.clone());
        }
        match self.pairing {
            Pairing::Halves => self.turn_halves(x, cosines, sines),
            Pairing::LeadingNeighbors => self.turn_neighbors(x, cosines, sines),
        }
    }

    fn turn_neighbors(&self, x: &Tensor, cosines: &Tensor, sines: &Tensor) -> Result<Tensor> {
        let (rows, turned) = (cosines.dim(0)?, 2 * self.pairs);
        let width = x.elem_count() / rows;
        let flat = x.reshape((rows, width))?;
        let leading = flat.narrow(1, 0, turned)?.contiguous()?.reshape((rows, self.pairs, 2))?;
        let (first, second) = (leading.narrow(2, 0, 1)?.contiguous()?, leading.narrow(2, 1, 1)?.contiguous()?);
        let [cosines, sines] = [cosines, sines].map(|angles| angles.reshape((rows, self.pairs, 1)));
        let (cosines, sines) = (cosines?, sines?);
        let pair = [((&first * &cosines)? - (&second * &sines)?)?, ((&second * &cosines)? + (&first * &sines)?)?];
        let leading = Tensor::cat(&pair, 2)?.reshape((rows, turned))?;
        let rest = flat.narrow(1, turned, width - turned)?.contiguous()?;
        let parts = if width == turned { vec![leading] } else { vec![leading, rest] };
        Ok(Tensor::cat(&parts, 1)?.reshape(x.dims())?)
    }

    fn turn_halves(&self, x: &Tensor, cosines: &Tensor, sines: &Tensor) -> Result<Tensor> {
        let rows = cosines.dim(0)?;
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
            host::tensor(self.turned(&x, inputs[0].width(), &cosines, &sines), inputs[0].dims())?
        };
        Ok(record(output, inputs, || {
            let (cosines, sines) = (inputs[1].tensor().clone(), inputs[2].tensor().clone());
            let shape = inputs[0].dims().to_vec();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let dy = host::slice("rotary positions", gradient.tensor())?;
                let cosines = host::slice("rotary positions", &cosines)?;
                let back: Vec<f32> = host::slice("rotary positions", &sines)?.iter().map(|sine| -sine).collect();
                let dx = self.turned(&dy, shape.last().copied().unwrap_or(0), &cosines, &back);
                flow.give_vec(0, dx, &shape)
            }
        }))
    }
}

impl Rotate {
    /// The kernel: `x` has rows of `width` channels, cosines and sines are `[row][pair]`.
    fn turned(&self, x: &[f32], width: usize, cosines: &[f32], sines: &[f32]) -> Vec<f32> {
        let pairs = self.pairs;
        let mut out = x.to_vec();
        let tasks = out.par_chunks_mut((ROWS_PER_TASK * width).max(1)).enumerate();
        tasks.for_each(|(task, rows)| {
            for (row, channels) in (task * ROWS_PER_TASK..).zip(rows.chunks_exact_mut(width)) {
                let range = row * pairs..(row + 1) * pairs;
                let (cosines, sines) = (&cosines[range.clone()], &sines[range]);
                match self.pairing {
                    Pairing::Halves => {
                        channels.chunks_exact_mut(2 * pairs).for_each(|head| turn_halves(head, cosines, sines));
                    }
                    Pairing::LeadingNeighbors => turn_neighbors(channels, cosines, sines),
                }
            }
        });
        out
    }
}

fn turn_halves(head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let (first, second) = head.split_at_mut(cosines.len());
    for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
        (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
    }
}

/// Rotates as many pairs as there are angles.
fn turn_neighbors(row: &mut [f32], cosines: &[f32], sines: &[f32]) {
    for ((pair, cosine), sine) in row.chunks_exact_mut(2).zip(cosines).zip(sines) {
        let (a, b) = (pair[0], pair[1]);
        (pair[0], pair[1]) = (a * cosine - b * sine, b * cosine + a * sine);
    }
}
