//! Operations that move elements without computing.

use crate::gradients::{Flow, Gradient};
use crate::kernels::elementwise::rows_per_chunk;
use crate::ops::operation::{Operation, apply};
use crate::ops::row_map::swap as swap_axes;
use crate::tape::record;
use crate::{NnError, Result, Value, host};
use candle_core::{D, Tensor};
use rayon::prelude::*;

impl Value {
    /// Gives the elements another shape with the same number of elements; nothing is copied.
    ///
    /// # Errors
    /// When the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Value> {
        if let Some(stored) = self.stored().and_then(|stored| stored.with_shape(shape)) {
            return Value::in_file(stored);
        }
        let output = self.tensor().reshape(shape)?;
        let before = self.dims();
        // The same on every device, because nothing is computed.
        Ok(record(output, &[self], || {
            let before = before.to_vec();
            move |gradient: Gradient, flow: &mut Flow<'_>| flow.give(0, gradient.reshape(&before)?)
        })
        .reshaped_from(self))
    }

    /// Swaps the two axes before the innermost: `[.., a, b, channel]` to `[.., b, a, channel]`.
    ///
    /// # Errors
    /// When the value has fewer than three axes.
    pub fn swap_middle(&self) -> Result<Value> {
        let axes = self.dims().len();
        if axes < 3 {
            return Err(NnError::shape("swap middle", "at least three axes", self.dims()));
        }
        let [a, b, width] = [self.dims()[axes - 3], self.dims()[axes - 2], self.dims()[axes - 1]];
        let mut shape = self.dims().to_vec();
        shape.swap(axes - 3, axes - 2);
        apply(Swap { sizes: [a, b, width], axes: [axes - 3, axes - 2], shape }, &[self])
    }

    /// Swaps the two innermost axes: `[.., a, b]` to `[.., b, a]`.
    ///
    /// # Errors
    /// When the value has fewer than two axes.
    pub fn transpose(&self) -> Result<Value> {
        let axes = self.dims().len();
        if axes < 2 {
            return Err(NnError::shape("transpose", "at least two axes", self.dims()));
        }
        let (a, b) = (self.dims()[axes - 2], self.dims()[axes - 1]);
        let mut shape = self.dims().to_vec();
        shape.swap(axes - 2, axes - 1);
        apply(Swap { sizes: [a, b, 1], axes: [axes - 2, axes - 1], shape }, &[self])
    }
}

/// Exchange of two neighboring axes.
struct Swap {
    /// Sizes of the two axes, and of everything inside of them.
    sizes: [usize; 3],
    axes: [usize; 2],
    /// Shape of the output.
    shape: Vec<usize>,
}

impl Operation for Swap {
    type Saved = ();

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, ())> {
        Ok((swap_axes(&inputs[0], self.sizes, &self.shape)?, ()))
    }

    fn backward(self, (): (), gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let ([a, b, inner], mut shape) = (self.sizes, self.shape);
        shape.swap(self.axes[0], self.axes[1]);
        Ok(vec![Some(swap_axes(gradient, [b, a, inner], &shape)?)])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let [a, b, width] = self.sizes;
        let output = host::tensor(swap(&host::slice("swap", inputs[0].tensor())?, a, b, width), &self.shape)?;
        Ok(record(output, inputs, || {
            let before = inputs[0].dims().to_vec();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let swapped = swap(&host::slice("swap", gradient.tensor())?, b, a, width);
                flow.give_vec(0, swapped, &before)
            }
        }))
    }
}

/// `[.., a, b, width]` to `[.., b, a, width]`.
fn swap(x: &[f32], a: usize, b: usize, width: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let block = (a * b * width).max(1);
    out.par_chunks_mut(block).zip(x.par_chunks(block)).for_each(|(out, x)| {
        for (j, out) in out.chunks_exact_mut((a * width).max(1)).enumerate() {
            for (i, out) in out.chunks_exact_mut(width.max(1)).enumerate() {
                out.copy_from_slice(&x[(i * b + j) * width..][..width]);
            }
        }
    });
    out
}

/// Joins values along the innermost axis; the other axes must agree.
///
/// # Errors
/// When there is nothing to join or the shapes do not fit.
pub fn concatenate(values: &[&Value]) -> Result<Value> {
    let first = values.first().ok_or_else(|| NnError::invalid("concatenate", "nothing to join"))?;
    let outer = &first.dims()[..first.dims().len().saturating_sub(1)];
    for value in values {
        if value.dims().is_empty() || value.dims()[..value.dims().len() - 1] != *outer {
            return Err(NnError::shape("concatenate", format!("{outer:?} and channels"), value.dims()));
        }
    }
    let widths: Vec<usize> = values.iter().map(|value| value.width()).collect();
    let shape = [outer, &[widths.iter().sum()]].concat();
    apply(Concatenate { widths, shape }, values)
}

struct Concatenate {
    widths: Vec<usize>,
    /// Shape of the output.
    shape: Vec<usize>,
}

impl Operation for Concatenate {
    type Saved = ();

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, ())> {
        Ok((Tensor::cat(inputs, self.shape.len() - 1)?, ()))
    }

    fn backward(self, (): (), gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let starts = self.widths.iter().scan(0, |end, width| {
            *end += width;
            Some(*end - width)
        });
        let parts = starts.zip(&self.widths).zip(needs);
        let part = |((start, width), needed): ((usize, &usize), &bool)| {
            Ok(needed.then(|| gradient.narrow(self.shape.len() - 1, start, *width)).transpose()?)
        };
        parts.map(part).collect()
    }

    fn fused(self, values: &[&Value]) -> Result<Value> {
        let Self { widths, shape } = self;
        let total: usize = widths.iter().sum();
        let slices =
            values.iter().map(|value| host::slice("concatenate", value.tensor())).collect::<Result<Vec<_>>>()?;
        let sources: Vec<&[f32]> = slices.iter().map(|slice| &**slice).collect();
        let mut out = vec![0.0; shape.iter().product()];
        let chunk = rows_per_chunk(total);
        out.par_chunks_mut((chunk * total).max(1)).enumerate().for_each(|(index, out)| {
            for (row, mut out) in out.chunks_exact_mut(total).enumerate() {
                for (source, width) in sources.iter().zip(&widths) {
                    let (part, rest) = out.split_at_mut(*width);
                    part.copy_from_slice(&source[(index * chunk + row) * width..][..*width]);
                    out = rest;
                }
            }
        });
        let output = host::tensor(out, &shape)?;
        Ok(record(output, values, || {
            let shapes: Vec<Vec<usize>> = values.iter().map(|value| value.dims().to_vec()).collect();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let dy = host::slice("concatenate", gradient.tensor())?;
                let mut start = 0;
                for (input, shape) in shapes.iter().enumerate() {
                    let width = widths[input];
                    if flow.wants(input) {
                        flow.give_vec(input, columns(&dy, total, start..start + width), shape)?;
                    }
                    start += width;
                }
                Ok(())
            }
        }))
    }
}

fn columns(x: &[f32], total: usize, range: std::ops::Range<usize>) -> Vec<f32> {
    let width = range.len();
    let mut out = vec![0.0; x.len() / total.max(1) * width];
    let chunk = rows_per_chunk(total);
    let tasks = out.par_chunks_mut((chunk * width).max(1)).zip(x.par_chunks((chunk * total).max(1)));
    tasks.for_each(|(out, x)| {
        let rows = out.chunks_exact_mut(width.max(1)).zip(x.chunks_exact(total.max(1)));
        rows.for_each(|(out, x)| out.copy_from_slice(&x[range.clone()]));
    });
    out
}

impl Value {
    /// Selects some of the channels: `[.., start..end]`.
    ///
    /// # Errors
    /// When the range reaches beyond the innermost axis.
    pub fn channels(&self, range: std::ops::Range<usize>) -> Result<Value> {
        let total = self.width();
        if range.start > range.end || range.end > total || self.dims().is_empty() {
            return Err(NnError::shape("channels", format!("at least {} channels", range.end), self.dims()));
        }
        apply(Channels { range, total }, &[self])
    }
}

/// Selection of some of `total` channels.
struct Channels {
    range: std::ops::Range<usize>,
    total: usize,
}

impl Operation for Channels {
    type Saved = ();

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, ())> {
        Ok((inputs[0].narrow(D::Minus1, self.range.start, self.range.len())?, ()))
    }

    fn backward(self, (): (), gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let Self { range, total } = self;
        Ok(vec![Some(gradient.pad_with_zeros(D::Minus1, range.start, total - range.end)?)])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let Self { range, total } = self;
        let mut shape = inputs[0].dims().to_vec();
        *shape.last_mut().unwrap_or(&mut 0) = range.len();
        let output = columns(&host::slice("channels", inputs[0].tensor())?, total, range.clone());
        Ok(record(host::tensor(output, &shape)?, inputs, || {
            let before = inputs[0].dims().to_vec();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let dy = host::slice("channels", gradient.tensor())?;
                let mut dx = vec![0.0; before.iter().product()];
                for (dx, dy) in dx.chunks_exact_mut(total).zip(dy.chunks_exact(range.len().max(1))) {
                    dx[range.clone()].copy_from_slice(dy);
                }
                flow.give_vec(0, dx, &before)
            }
        }))
    }
}
