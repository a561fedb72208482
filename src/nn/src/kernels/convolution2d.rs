//! Two-dimensional convolution over images, channels innermost.
//!
//! The windows of a run of pixels are gathered into a buffer, which one product multiplies by the weights. A gathered element is read
//! once per output channel, so gathering costs little, and one kernel serves every size, stride and padding.
//!
//! Weights are arranged for that first, except where there are fewer pixels than output channels: then windows and gradients are arranged
//! like the weights instead, which are the larger part.

use super::gemm::{Matrix, multiply, product};
use super::shared::Shared;
use crate::Precision;
use crate::stored::Weight;
use rayon::prelude::*;

/// Number of elements of the buffer of windows, unless fewer rows than [`FEWEST_ROWS`] fit.
const BUFFER: usize = 1 << 20;
/// Smallest number of pixels per product: each product packs the weights anew.
const FEWEST_ROWS: usize = 384;
/// Output channels whose weights one task moves: a line of the cache.
const LINE: usize = 16;
/// Elements of windows that one task gathers.
const TASK: usize = 1 << 15;

/// The shape of a two-dimensional convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry2d {
    /// Number of images.
    pub items: usize,
    /// Height and width of each image.
    pub size: [usize; 2],
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output.
    pub outputs: usize,
    /// Taps down and across.
    pub kernel: [usize; 2],
    /// Distance between windows along both axes.
    pub stride: usize,
    /// Zeros above and below, and left and right of each image.
    pub padding: [[usize; 2]; 2],
    /// The number format of input, weights and gradient.
    pub precision: Precision,
}

/// The pixels that the taps of a convolution read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Windows {
    /// For each output pixel, the input pixels of its window.
    OfOutputs,
    /// For each input pixel, the output pixels whose windows contain it.
    OfInputs,
}

impl Geometry2d {
    /// Height and width of the output; `None` if an axis is shorter than the kernel.
    pub fn output_size(&self) -> Option<[usize; 2]> {
        let along = |axis: usize| {
            let padded = self.size[axis] + self.padding[axis][0] + self.padding[axis][1];
            Some(padded.checked_sub(self.kernel[axis])? / self.stride + 1)
        };
        Some([along(0)?, along(1)?])
    }

    /// Number of taps.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Height and width of the images that windows are formed for, and of those that they read.
    pub fn sizes(&self, windows: Windows) -> [[usize; 2]; 2] {
        let output = self.output_size().unwrap_or_default();
        match windows {
            Windows::OfOutputs => [output, self.size],
            Windows::OfInputs => [self.size, output],
        }
    }

    /// The position along an axis that the tap of a window at `position` reads.
    fn source(&self, windows: Windows, axis: usize, position: usize, tap: usize, length: usize) -> Option<usize> {
        let before = self.padding[axis][0];
        let source = match windows {
            Windows::OfOutputs => (position * self.stride + tap).checked_sub(before)?,
            Windows::OfInputs => {
                let at = (position + before).checked_sub(tap)?;
                at.is_multiple_of(self.stride).then_some(at / self.stride)?
            }
        };
        (source < length).then_some(source)
    }

    /// Calls `read` with the number of each tap of the window of a pixel, and the pixel that the tap reads, if any.
    pub fn window(&self, windows: Windows, pixel: usize, mut read: impl FnMut(usize, Option<usize>)) {
        let [[height, width], [source_height, source_width]] = self.sizes(windows);
        let (item, row, column) = (pixel / (height * width), pixel / width % height, pixel % width);
        for down in 0..self.kernel[0] {
            let source_row = self.source(windows, 0, row, down, source_height);
            for across in 0..self.kernel[1] {
                let source_column = self.source(windows, 1, column, across, source_width);
                let source = source_row.zip(source_column);
                let source = source.map(|(row, column)| (item * source_height + row) * source_width + column);
                read(down * self.kernel[1] + across, source);
            }
        }
    }

    /// Number of pixels of all output images.
    fn output_pixels(&self) -> usize {
        self.items * self.output_size().unwrap_or_default().iter().product::<usize>()
    }

    /// Returns whether arranging the weights would cost more than arranging windows.
    fn has_few_pixels(&self) -> bool {
        self.output_pixels() < self.outputs
    }

    /// Number of pixels per product, for windows of this many elements.
    fn rows_per_product(window: usize) -> usize {
        (BUFFER / window.max(1)).max(FEWEST_ROWS)
    }
}

/// Gathers the windows of the pixels from `first` on, `[pixel, tap, channel]`, from `x` `[pixel, channel]`.
fn gather(out: &mut [f32], x: &[f32], channels: usize, geometry: &Geometry2d, windows: Windows, first: usize) {
    let window = geometry.taps() * channels;
    let rows = (TASK / window.max(1)).max(1);
    out.par_chunks_mut((rows * window).max(1)).enumerate().for_each(|(task, out)| {
        for (pixel, out) in (first + task * rows..).zip(out.chunks_exact_mut(window)) {
            geometry.window(windows, pixel, |tap, source| {
                let out = &mut out[tap * channels..(tap + 1) * channels];
                match source {
                    Some(source) => out.copy_from_slice(&x[source * channels..(source + 1) * channels]),
                    None => out.fill(0.0),
                }
            });
        }
    });
}

/// Gathers the windows of all output pixels like the weights, `[pixel, channel, tap]`.
fn gather_like_weights(x: &[f32], geometry: &Geometry2d) -> Vec<f32> {
    let (taps, channels) = (geometry.taps(), geometry.inputs);
    let mut out = vec![0.0; geometry.output_pixels() * taps * channels];
    out.par_chunks_mut((taps * channels).max(1)).enumerate().for_each(|(pixel, out)| {
        geometry.window(Windows::OfOutputs, pixel, |tap, source| {
            let Some(source) = source else { return };
            let source = &x[source * channels..(source + 1) * channels];
            out[tap..].iter_mut().step_by(taps).zip(source).for_each(|(out, x)| *out = *x);
        });
    });
    out
}

/// Adds up the gradients of windows, `[output pixel, channel, tap]`, to those of the input pixels, `[pixel, channel]`.
fn sum_windows(windows: &[f32], geometry: &Geometry2d) -> Vec<f32> {
    let (taps, channels) = (geometry.taps(), geometry.inputs);
    let [height, width] = geometry.size;
    let mut dx = vec![0.0; geometry.items * height * width * channels];
    dx.par_chunks_mut(channels.max(1)).enumerate().for_each(|(pixel, dx)| {
        geometry.window(Windows::OfInputs, pixel, |tap, source| {
            let Some(source) = source else { return };
            let window = &windows[source * channels * taps..(source + 1) * channels * taps];
            window[tap..].iter().step_by(taps).zip(&mut *dx).for_each(|(gradient, dx)| *dx += gradient);
        });
    });
    dx
}

/// Calls `work` with runs of pixels and their windows `[pixel, tap, channel]`.
fn for_windows(
    x: &[f32],
    channels: usize,
    geometry: &Geometry2d,
    windows: Windows,
    mut work: impl FnMut(std::ops::Range<usize>, &[f32]),
) {
    let [[height, width], _] = geometry.sizes(windows);
    let (pixels, window) = (geometry.items * height * width, geometry.taps() * channels);
    let rows = Geometry2d::rows_per_product(window).min(pixels);
    let mut buffer = vec![0.0; rows * window];
    for first in (0..pixels).step_by(rows.max(1)) {
        let end = pixels.min(first + rows);
        let buffer = &mut buffer[..(end - first) * window];
        gather(buffer, x, channels, geometry, windows, first);
        work(first..end, buffer);
    }
}

/// Swaps the two inner axes of weights `[output, input, tap]`: `[output, tap, input]`.
fn taps_outermost(weight: &Weight, outputs: usize, inputs: usize, taps: usize) -> Vec<f32> {
    let block = inputs * taps;
    let mut out = vec![0.0; outputs * block];
    let blocks = out.par_chunks_mut(block.max(1)).enumerate().with_min_len(4);
    blocks.for_each_init(Vec::new, |buffer, (output, out)| {
        let weight = weight.run(output * block, block, buffer);
        for (tap, out) in out.chunks_exact_mut(inputs.max(1)).enumerate() {
            out.iter_mut().enumerate().for_each(|(input, out)| *out = weight[input * taps + tap]);
        }
    });
    out
}

/// Moves the outer axis of weights `[output, input, tap]` inside: `[input, tap, output]`.
fn outputs_innermost(weight: &Weight, outputs: usize, inputs: usize, taps: usize) -> Vec<f32> {
    let block = inputs * taps;
    let mut out = vec![0.0; outputs * block];
    let shared = Shared::new(&mut out);
    (0..outputs.div_ceil(LINE)).into_par_iter().for_each_init(Vec::new, |buffer, line| {
        let first = line * LINE;
        let count = LINE.min(outputs - first);
        let weight = weight.run(first * block, count * block, buffer);
        for place in 0..block {
            // SAFETY: each task writes the outputs of its own line.
            let out = unsafe { shared.slice(place * outputs + first, count) };
            out.iter_mut().enumerate().for_each(|(output, out)| *out = weight[output * block + place]);
        }
    });
    out
}

/// Convolves the images `x`, `[pixel, input]`, by weights `[output, input, tap]`; returns `[pixel, output]`.
pub(crate) fn forward(x: &[f32], weight: &Weight, bias: Option<&[f32]>, geometry: &Geometry2d) -> Vec<f32> {
    let Geometry2d { inputs, outputs, precision, .. } = *geometry;
    let width = geometry.taps() * inputs;
    let mut out = vec![0.0; geometry.output_pixels() * outputs];
    if let Some(bias) = bias {
        out.par_chunks_exact_mut(outputs).with_min_len(64).for_each(|out| out.copy_from_slice(bias));
    }
    if geometry.has_few_pixels() {
        let windows = gather_like_weights(x, geometry);
        let windows = Matrix::row_major(&windows, geometry.output_pixels(), width).of(precision);
        multiply(&mut out, outputs, windows, weight.matrix(outputs, width, precision).transposed(), bias.is_some());
        return out;
    }
    let weight = taps_outermost(weight, outputs, inputs, geometry.taps());
    let weight = Matrix::row_major(&weight, outputs, width).of(precision).transposed();
    for_windows(x, inputs, geometry, Windows::OfOutputs, |pixels, windows| {
        let out = &mut out[pixels.start * outputs..pixels.end * outputs];
        let windows = Matrix::row_major(windows, pixels.len(), width).of(precision);
        multiply(out, outputs, windows, weight, bias.is_some());
    });
    out
}

/// The gradient of the input, `[pixel, input]`.
pub(crate) fn backward_input(gradient: &[f32], weight: &Weight, geometry: &Geometry2d) -> Vec<f32> {
    let Geometry2d { inputs, outputs, precision, .. } = *geometry;
    let (taps, width) = (geometry.taps(), geometry.taps() * outputs);
    if geometry.has_few_pixels() {
        let gradient = Matrix::row_major(gradient, geometry.output_pixels(), outputs).of(precision);
        return sum_windows(&product(gradient, weight.matrix(outputs, inputs * taps, precision)), geometry);
    }
    let flipped = outputs_innermost(weight, outputs, inputs, taps);
    let weight = Matrix::row_major(&flipped, inputs, width).of(precision).transposed();
    let [height, columns] = geometry.size;
    let mut dx = vec![0.0; geometry.items * height * columns * inputs];
    for_windows(gradient, outputs, geometry, Windows::OfInputs, |pixels, windows| {
        let windows = Matrix::row_major(windows, pixels.len(), width).of(precision);
        multiply(&mut dx[pixels.start * inputs..pixels.end * inputs], inputs, windows, weight, false);
    });
    dx
}

/// The gradient of the weights, `[output, input, tap]`.
pub fn backward_weight(x: &[f32], gradient: &[f32], geometry: &Geometry2d) -> Vec<f32> {
    let Geometry2d { inputs, outputs, precision, .. } = *geometry;
    let width = geometry.taps() * inputs;
    let mut dw = vec![0.0; outputs * width];
    for_windows(x, inputs, geometry, Windows::OfOutputs, |pixels, windows| {
        let windows = Matrix::row_major(windows, pixels.len(), width).of(precision);
        let dy = &gradient[pixels.start * outputs..pixels.end * outputs];
        let dy = Matrix::row_major(dy, pixels.len(), outputs).of(precision);
        multiply(&mut dw, width, dy.transposed(), windows, pixels.start > 0);
    });
    // [output, tap, input] -> [output, input, tap]
    taps_outermost(&Weight::Slice(&dw), outputs, geometry.taps(), inputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::RngKey;

    /// Both arrangements give the sums of the definition: the number of output channels alone decides between them.
    #[test]
    fn few_and_many_pixels_give_the_sums_of_the_definition() {
        let key = RngKey::new(7);
        for (outputs, stride, padding) in
            [(2, 1, [[1, 1]; 2]), (150, 1, [[1, 1]; 2]), (2, 2, [[0, 1]; 2]), (150, 2, [[1, 0]; 2])]
        {
            let (items, size, inputs, kernel) = (2, [5, 6], 3, [3, 3]);
            let precision = Precision::Fp32;
            let geometry = Geometry2d { items, size, inputs, outputs, kernel, stride, padding, precision };
            assert_eq!(geometry.has_few_pixels(), outputs == 150);
            let (pixels, taps) = (geometry.output_pixels(), geometry.taps());
            let x = key.purpose("x").normals(items * size[0] * size[1] * inputs);
            let (weight, bias) = (key.purpose("w").normals(outputs * inputs * taps), key.purpose("b").normals(outputs));
            let gradient = key.purpose("dy").normals(pixels * outputs);
            let mut expected: Vec<f64> = bias.iter().map(|x| f64::from(*x)).collect::<Vec<_>>().repeat(pixels);
            let mut slopes = vec![0.0; x.len()];
            for pixel in 0..pixels {
                geometry.window(Windows::OfOutputs, pixel, |tap, source| {
                    let Some(source) = source else { return };
                    for (output, input) in (0..outputs).flat_map(|output| (0..inputs).map(move |input| (output, input)))
                    {
                        let weight = f64::from(weight[(output * inputs + input) * taps + tap]);
                        expected[pixel * outputs + output] += f64::from(x[source * inputs + input]) * weight;
                        slopes[source * inputs + input] += f64::from(gradient[pixel * outputs + output]) * weight;
                    }
                });
            }
            let weight = Weight::Slice(&weight);
            let found = forward(&x, &weight, Some(&bias), &geometry);
            let found_slopes = backward_input(&gradient, &weight, &geometry);
            for (found, expected) in [(&found, &expected), (&found_slopes, &slopes)] {
                assert_eq!(found.len(), expected.len());
                let largest = found.iter().zip(expected).map(|(found, expected)| (f64::from(*found) - expected).abs());
                assert!(largest.fold(0.0, f64::max) < 1e-4, "{outputs} {stride}");
            }
        }
    }
}
