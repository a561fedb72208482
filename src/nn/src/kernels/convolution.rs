//! One-dimensional convolution over the rows of each item of a batch, channels innermost.
//!
//! With channels innermost, the window of an output row is one contiguous run of a padded copy of the input, so the whole
//! convolution is a matrix product on a view whose rows overlap: nothing is unfolded.

use super::gemm::{Matrix, Target, Tiles, multiply_into, multiply_on_one_thread};
use super::reduce::{sum_rows_serial, sum_vectors};
use super::shared::Shared;
use crate::Precision;
use crate::ragged::Ragged;
use rayon::prelude::*;
use std::ops::Range;

/// The shape of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output.
    pub outputs: usize,
    /// Number of taps.
    pub kernel: usize,
    /// Distance between windows.
    pub stride: usize,
    /// Distance between taps.
    pub dilation: usize,
    /// Zeros before and after each item.
    pub padding: [usize; 2],
    /// The number format of input, weights and gradient.
    pub precision: Precision,
}

impl Geometry {
    /// Rows of the output for an item of `length` rows.
    pub fn output_length(&self, length: usize) -> usize {
        let padded = length + self.padding[0] + self.padding[1];
        let reach = self.dilation * (self.kernel - 1) + 1;
        if padded < reach { 0 } else { (padded - reach) / self.stride + 1 }
    }

    /// Number of taps that form one contiguous run of the padded input: all of them, or one if they are dilated.
    fn group(&self) -> usize {
        if self.dilation == 1 { self.kernel } else { 1 }
    }
}

/// Largest number of output rows per task.
const TILE_ROWS: usize = 384;

/// Weights `[output, input, tap]` as `[output, tap, input]`.
pub fn taps_outermost(weight: &[f32], geometry: &Geometry) -> Vec<f32> {
    reorder(weight, geometry.inputs, geometry.kernel)
}

/// Swaps the two inner axes of a `[_, rows, columns]` tensor.
fn reorder(source: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; source.len()];
    let block = (rows * columns).max(1);
    out.par_chunks_mut(block).zip(source.par_chunks(block)).with_min_len(16).for_each(|(out, source)| {
        for (column, out) in out.chunks_exact_mut(rows.max(1)).enumerate() {
            for (row, out) in out.iter_mut().enumerate() {
                *out = source[row * columns + column];
            }
        }
    });
    out
}

/// Rows that take part in a convolution.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Input rows of each item that count; the rest of the item is zero.
    pub valid: Ragged,
    /// All input rows of each item.
    pub whole: Ragged,
    /// The output rows of each item.
    pub output: Ragged,
}

/// The valid rows of each item with zeros around them, one item after the other; and the start of each item (in rows).
pub(crate) struct Padded {
    pub(crate) data: Vec<f32>,
    pub(crate) starts: Vec<usize>,
}

/// Pads each item. `lengths` are the lengths of the items without padding, zeros at their end included.
pub(crate) fn pad(x: &[f32], width: usize, valid: &Ragged, lengths: &[usize], padding: [usize; 2]) -> Padded {
    let mut starts = Vec::with_capacity(lengths.len());
    let mut rows = 0;
    for length in lengths {
        starts.push(rows);
        rows += padding[0] + length + padding[1];
    }
    let mut data = vec![0.0; rows * width];
    let buffer = Shared::new(&mut data);
    valid.ranges().par_iter().zip(lengths.par_iter().zip(&starts)).for_each(|(item, (length, start))| {
        let rows = padding[0] + length + padding[1];
        // SAFETY: items do not overlap.
        let out = unsafe { buffer.slice(start * width, rows * width) };
        let (before, rest) = out.split_at_mut(padding[0] * width);
        let (middle, after) = rest.split_at_mut(item.len() * width);
        before.fill(0.0);
        middle.copy_from_slice(&x[item.start * width..item.end * width]);
        after.fill(0.0);
    });
    Padded { data, starts }
}

/// Tasks: (item, first output row, one past the last). Items are cut into tiles of equal size.
fn tiles(lengths: impl Iterator<Item = usize>) -> Vec<(usize, usize, usize)> {
    let of_item = |(item, length): (usize, usize)| {
        let height = length.div_ceil(length.div_ceil(TILE_ROWS).max(1)).max(1);
        (0..length).step_by(height).map(move |row| (item, row, length.min(row + height)))
    };
    lengths.enumerate().flat_map(of_item).collect()
}

/// The windows of some output rows under one group of taps: a view of the padded input.
fn windows<'a>(padded: &'a Padded, geometry: &Geometry, item: usize, rows: Range<usize>, tap: usize) -> Matrix<'a> {
    let first = padded.starts[item] + rows.start * geometry.stride + tap * geometry.dilation;
    let shape = [rows.len(), geometry.group() * geometry.inputs];
    let data = if rows.is_empty() { &[][..] } else { &padded.data[first * geometry.inputs..] };
    Matrix::strided(data, shape, [geometry.stride * geometry.inputs, 1]).of(geometry.precision)
}

/// The weights `[output, tap, input]` of one group of taps as an `[output, tap x input]` matrix.
fn tap_weights<'a>(weight: &'a [f32], geometry: &Geometry, tap: usize) -> Matrix<'a> {
    let width = geometry.kernel * geometry.inputs;
    let data = &weight[tap * geometry.inputs..];
    Matrix::strided(data, [geometry.outputs, geometry.group() * geometry.inputs], [width, 1]).of(geometry.precision)
}

/// Convolves each item of `x`, `[row, input]`; returns `[row, output]`, zero on rows of no item. `weight` is
/// `[output, tap, input]`.
pub fn forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, geometry: &Geometry, layout: &Layout) -> Vec<f32> {
    let padded = pad(x, geometry.inputs, &layout.valid, &layout.whole.lengths(), geometry.padding);
    slide(&padded, weight, bias, geometry, &layout.output)
}

/// The windows of a padded input times the weights.
fn slide(padded: &Padded, weight: &[f32], bias: Option<&[f32]>, geometry: &Geometry, to: &Ragged) -> Vec<f32> {
    let width = geometry.outputs;
    let mut out = vec![0.0; to.total() * width];
    let buffer = Shared::new(&mut out);
    tiles(to.lengths().into_iter()).into_par_iter().for_each(|(item, row, end)| {
        let offset = (to.ranges()[item].start + row) * width;
        if let Some(bias) = bias {
            // SAFETY: tiles do not overlap.
            let out = unsafe { buffer.slice(offset, (end - row) * width) };
            out.chunks_exact_mut(width).for_each(|out| out.copy_from_slice(bias));
        }
        let target = Target { buffer, offset, row_stride: width };
        for tap in (0..geometry.kernel).step_by(geometry.group()) {
            let a = windows(padded, geometry, item, row..end, tap);
            let b = tap_weights(weight, geometry, tap).transposed();
            // SAFETY: tiles do not overlap.
            unsafe { multiply_into(target, a, b, bias.is_some() || tap > 0) };
        }
    });
    out
}

/// The gradient of the input: zero on invalid rows.
pub fn backward_input(gradient: &[f32], weight: &[f32], geometry: &Geometry, layout: &Layout) -> Vec<f32> {
    let reach = geometry.kernel - 1;
    if geometry.stride == 1 && geometry.dilation == 1 && geometry.padding.iter().all(|padding| *padding <= reach) {
        return correlate(gradient, weight, geometry, layout);
    }
    let mut dx = vec![0.0; layout.valid.total() * geometry.inputs];
    let buffer = Shared::new(&mut dx);
    (0..layout.whole.len()).into_par_iter().for_each(|item| {
        let (valid, result) = (&layout.valid.ranges()[item], &layout.output.ranges()[item]);
        let rows = layout.whole.ranges()[item].len() + geometry.padding[0] + geometry.padding[1];
        let mut padded = vec![0.0; rows * geometry.inputs];
        let dy = &gradient[result.start * geometry.outputs..result.end * geometry.outputs];
        let dy = Matrix::row_major(dy, result.len(), geometry.outputs).of(geometry.precision);
        for tap in 0..geometry.kernel {
            let strides = [geometry.kernel * geometry.inputs, 1];
            let shape = [geometry.outputs, geometry.inputs];
            let weight = Matrix::strided(&weight[tap * geometry.inputs..], shape, strides).of(geometry.precision);
            let offset = tap * geometry.dilation * geometry.inputs;
            let row_stride = geometry.stride * geometry.inputs;
            multiply_on_one_thread(&mut padded[offset.min(rows * geometry.inputs)..], row_stride, dy, weight, true);
        }
        // SAFETY: items do not overlap.
        let dx = unsafe { buffer.slice(valid.start * geometry.inputs, valid.len() * geometry.inputs) };
        dx.copy_from_slice(&padded[geometry.padding[0] * geometry.inputs..][..dx.len()]);
    });
    dx
}

/// The input gradient of a convolution with stride 1: a convolution of the gradient with the taps reversed.
fn correlate(gradient: &[f32], weight: &[f32], geometry: &Geometry, layout: &Layout) -> Vec<f32> {
    let Geometry { inputs, outputs, kernel, padding, .. } = *geometry;
    let padding = padding.map(|padding| kernel - 1 - padding);
    let reversed = Geometry { inputs: outputs, outputs: inputs, padding, ..*geometry };
    // [output, tap, input] -> [input, reversed tap, output]
    let mut flipped = vec![0.0; weight.len()];
    let blocks = flipped.par_chunks_mut((kernel * outputs).max(1)).enumerate().with_min_len(16);
    blocks.for_each(|(input, flipped)| {
        for (tap, flipped) in flipped.chunks_exact_mut(outputs).enumerate() {
            for (output, flipped) in flipped.iter_mut().enumerate() {
                *flipped = weight[(output * kernel + kernel - 1 - tap) * inputs + input];
            }
        }
    });
    let padded = pad(gradient, outputs, &layout.output, &layout.output.lengths(), padding);
    slide(&padded, &flipped, None, &reversed, &layout.valid)
}

/// The gradient of the weights, `[output, input, tap]`.
pub fn backward_weight(x: &[f32], gradient: &[f32], geometry: &Geometry, layout: &Layout) -> Vec<f32> {
    let padded = pad(x, geometry.inputs, &layout.valid, &layout.whole.lengths(), geometry.padding);
    let width = geometry.kernel * geometry.inputs;
    let mut dw = vec![0.0; geometry.outputs * width];
    let buffer = Shared::new(&mut dw);
    let group = geometry.group() * geometry.inputs;
    let cut = Tiles::new(geometry.outputs, layout.output.valid(), group);
    let (height, span) = (cut.height, cut.width);
    let tasks: Vec<_> = (0..geometry.kernel)
        .step_by(geometry.group())
        .flat_map(|tap| (0..geometry.outputs).step_by(height).map(move |output| (tap, output)))
        .flat_map(|(tap, output)| (0..group).step_by(span).map(move |column| (tap, output, column)))
        .collect();
    tasks.into_par_iter().for_each(|(tap, output, column)| {
        let (end, stop) = (geometry.outputs.min(output + height), group.min(column + span));
        let target = Target { buffer, offset: output * width + tap * geometry.inputs + column, row_stride: width };
        for (item, rows) in layout.output.ranges().iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let dy = &gradient[rows.start * geometry.outputs..rows.end * geometry.outputs];
            let dy = Matrix::row_major(dy, rows.len(), geometry.outputs).of(geometry.precision);
            let view = windows(&padded, geometry, item, 0..rows.len(), tap).column_range(column, stop);
            // SAFETY: tasks write different outputs or columns.
            unsafe { multiply_into(target, dy.column_range(output, end).transposed(), view, true) };
        }
    });
    reorder(&dw, geometry.kernel, geometry.inputs)
}

/// The gradient of the bias: the sum over the rows of all items.
pub fn backward_bias(gradient: &[f32], outputs: usize, to: &Ragged) -> Vec<f32> {
    let sum = |rows: &Range<usize>| sum_rows_serial(&gradient[rows.start * outputs..rows.end * outputs], outputs);
    let sums: Vec<Vec<f32>> = to.ranges().par_iter().map(sum).collect();
    sum_vectors(&sums, outputs)
}
