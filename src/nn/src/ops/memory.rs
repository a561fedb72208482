//! Memory blocks of feed-forward sequential memory networks (FSMN; Gao et al., arXiv 2006.01713): a convolution of each channel over
//! time, parallel to the attention, added to its own input.

use crate::gradients::{Flow, Gradient};
use crate::kernels::depthwise;
use crate::ops::operation::{Operation, apply, give_composed};
use crate::ops::row_map::{RowMap, matrix, sum_rows};
use crate::tape::record;
use crate::{NnError, Ragged, Result, Value, host};
use candle_core::{DType, Device, Tensor};

impl Value {
    /// `self + values + (values convolved over time)`, with each item convolved separately; the taps are `[channel, 1, tap]`, centered.
    /// Rows that belong to no item are those of `self`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn add_memory(&self, values: &Value, taps: &Value, items: &Ragged) -> Result<Value> {
        let width = values.width();
        let &[channels, 1, count] = taps.dims() else {
            return Err(NnError::shape("memory taps", "[channel, 1, tap]", taps.dims()));
        };
        if channels != width || self.dims() != values.dims() || items.total() != values.rows() || count == 0 {
            return Err(NnError::shape("memory", format!("[{}, {channels}]", items.total()), values.dims()));
        }
        apply(AddMemory { items: items.clone(), count }, &[self, values, taps])
    }
}

/// The sum of residual, values and convolved values; inputs are residual, values and taps.
struct AddMemory {
    items: Ragged,
    /// Number of taps per channel.
    count: usize,
}

impl AddMemory {
    /// Number of taps before the centre tap.
    fn centre(&self) -> usize {
        (self.count - 1) / 2
    }

    fn longest(&self) -> usize {
        self.items.ranges().iter().map(|rows| rows.len()).max().unwrap_or(0)
    }

    /// The rows of each item after `before` zeros, followed by as many zeros as the taps reach: `[item, time, channel]`.
    fn padded(&self, x: &Tensor, before: usize) -> Result<Tensor> {
        let time = self.longest() + self.count - 1;
        let rows = self.items.ranges().iter().flat_map(|item| {
            let item = item.clone();
            (0..time).map(move |t| t.checked_sub(before).map(|t| item.start + t).filter(|row| item.contains(row)))
        });
        let x = matrix(x)?;
        let padded = RowMap::new(rows, self.items.total())?.gather(&x)?;
        Ok(padded.reshape((self.items.len(), time, x.dim(1)?))?)
    }

    /// Moves `[item, time, channel]` to the rows of the items; other rows are zero.
    fn rows(&self, x: &Tensor) -> Result<Tensor> {
        let (items, time, width) = x.dims3()?;
        let mut rows = vec![None; self.items.total()];
        for (item, range) in self.items.ranges().iter().enumerate() {
            rows[range.clone()].iter_mut().enumerate().for_each(|(t, row)| *row = Some(item * time + t));
        }
        RowMap::new(rows.into_iter(), items * time)?.gather(&x.reshape((items * time, width))?)
    }

    /// The sum over taps of each tap's window times its weights; the centre window is added once more.
    fn convolved(&self, padded: &Tensor, taps: &Tensor, offset: impl Fn(usize) -> usize) -> Result<Tensor> {
        let time = self.longest();
        let mut sum = padded.narrow(1, offset(self.centre()), time)?.contiguous()?;
        for tap in 0..self.count {
            let weights = taps.narrow(2, tap, 1)?.reshape((1, 1, taps.dim(0)?))?;
            sum = (sum + padded.narrow(1, offset(tap), time)?.contiguous()?.broadcast_mul(&weights)?)?;
        }
        Ok(sum)
    }
}

impl Operation for AddMemory {
    const IN_SINGLE_PRECISION: bool = true;

    /// Values and taps.
    type Saved = [Tensor; 2];

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Self::Saved)> {
        let [residual, values, taps] = inputs else { return Err(NnError::invalid("memory", "three inputs")) };
        let saved = [values.clone(), taps.clone()];
        if values.elem_count() == 0 || self.longest() == 0 {
            return Ok((residual.clone(), saved));
        }
        let sum = self.convolved(&self.padded(values, self.centre())?, taps, |tap| tap)?;
        Ok(((residual + self.rows(&sum)?.reshape(residual.dims())?)?, saved))
    }

    fn backward(self, [values, taps]: Self::Saved, gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let residual = Some(gradient.clone());
        if values.elem_count() == 0 || self.longest() == 0 {
            return Ok(vec![residual, Some(values.zeros_like()?), Some(taps.zeros_like()?)]);
        }
        let last = self.count - 1;
        let of_values = || -> Result<Tensor> {
            let sum = self.convolved(&self.padded(gradient, last - self.centre())?, &taps, |tap| last - tap)?;
            Ok(self.rows(&sum)?.reshape(values.dims())?)
        };
        let of_taps = || -> Result<Tensor> {
            let (seen, time) = (self.padded(&values, self.centre())?, self.longest());
            let gradient = self.padded(gradient, 0)?.narrow(1, 0, time)?.contiguous()?;
            let tap = |tap: usize| -> Result<Tensor> {
                let products = (seen.narrow(1, tap, time)?.contiguous()? * &gradient)?;
                sum_rows(&matrix(&products)?)
            };
            let sums = (0..self.count).map(tap).collect::<Result<Vec<_>>>()?;
            Ok(Tensor::stack(&sums, 1)?.reshape(taps.dims())?)
        };
        let of_values = needs[1].then(of_values).transpose()?;
        Ok(vec![residual, of_values, needs[2].then(of_taps).transpose()?])
    }

    /// The forward kernel; a recorded operation uses the composition's backward pass.
    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let [residual, values, taps] = inputs else { return Err(NnError::invalid("memory", "three inputs")) };
        let (width, centre) = (values.width(), self.centre());
        let output = {
            let weights = host::slice("memory taps", taps.tensor())?;
            let mut outermost = depthwise::taps_outermost(&weights, self.count);
            // The input itself is one more tap of weight 1 at the centre.
            outermost[centre * width..(centre + 1) * width].iter_mut().for_each(|weight| *weight += 1.0);
            let mut out = host::slice("memory", residual.tensor())?.to_vec();
            let x = host::slice("memory", values.tensor())?;
            depthwise::accumulate(&mut out, &x, &outermost, centre, &self.items, width);
            host::tensor(out, values.dims())?
        };
        let saved = [values.tensor().clone(), taps.tensor().clone()];
        Ok(record(output, inputs, || {
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                give_composed(self, saved, vec![DType::F32; 3], &Device::Cpu, gradient, flow)
            }
        }))
    }
}
