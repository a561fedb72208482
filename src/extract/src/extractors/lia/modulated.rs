//! Convolutions whose input channels are scaled by a style, and whose outputs are brought back to unit power ("demodulation", StyleGAN2).

use flowmill_nn::inference::{Convolution2d, Epilogue, Filters, Rows, leaky_row, scale_row};
use flowmill_nn::kernels::reduce::sum_of_pairs;

use super::Checkpoint;
use super::blur::{Doubling, Maps, separated};
use super::encoder::{GAIN, SLOPE, equalized};
use crate::UnusableWeights;

/// The number added to the power of an output.
const EPSILON: f32 = 1e-8;

/// The linear function from a style to a factor per input channel.
pub(super) struct Modulation {
    /// `[channel][number]`.
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Modulation {
    fn new(checkpoint: &Checkpoint, name: &str) -> Result<Self, UnusableWeights> {
        let weight = equalized(checkpoint, &format!("{name}.modulation.weight"), 1.0)?;
        Ok(Self { weight, bias: checkpoint.elements(&format!("{name}.modulation.bias"))? })
    }

    /// The factor of each input channel.
    pub(super) fn factors(&self, style: &[f32]) -> Vec<f32> {
        let rows = self.weight.chunks_exact(style.len().max(1)).zip(&self.bias);
        rows.map(|(row, bias)| bias + sum_of_pairs(row, style, |a, b| a * b)).collect()
    }
}

/// A convolution of 3 x 3 with its rectifier.
pub(super) struct StyledConvolution {
    modulation: Modulation,
    /// The sum of squares of each kernel, `[output][input]`.
    squares: Vec<f32>,
    bias: Vec<f32>,
    method: Method,
    inputs: usize,
}

/// The way in which the picture's size changes.
enum Method {
    /// It stays.
    Same(Convolution2d),
    /// It doubles: the filters of a transposed convolution by the parity of its lines and columns.
    Double { even_even: Filters, even_odd: Filters, odd_even: Filters, odd_odd: Filters },
}

impl StyledConvolution {
    /// Takes `NAME.conv.*` and `NAME.activate.bias`.
    pub(super) fn new(
        checkpoint: &Checkpoint,
        name: &str,
        [inputs, outputs]: [usize; 2],
        doubles: bool,
    ) -> Result<Self, UnusableWeights> {
        let weight = equalized(checkpoint, &format!("{name}.conv.weight"), 1.0)?;
        let (kernels, _) = weight.as_chunks::<9>();
        let squares = kernels.iter().map(|kernel| kernel.iter().map(|x| x * x).sum()).collect();
        let none = vec![0.0; outputs];
        let method = match doubles {
            false => Method::Same(Convolution2d::new(&weight, &none, inputs, 3, 1)),
            true => {
                // The taps of each filter by their place in the kernel.
                let part = |taps: &[usize]| {
                    let weights: Vec<f32> =
                        kernels.iter().flat_map(|kernel| taps.iter().map(|tap| kernel[*tap])).collect();
                    Filters::new(&weights, &none, inputs * taps.len())
                };
                Method::Double {
                    even_even: part(&[8, 6, 2, 0]),
                    even_odd: part(&[7, 1]),
                    odd_even: part(&[5, 3]),
                    odd_odd: part(&[4]),
                }
            }
        };
        let modulation = Modulation::new(checkpoint, &format!("{name}.conv"))?;
        let bias = checkpoint.elements(&format!("{name}.activate.bias"))?;
        Ok(Self { modulation, squares, bias, method, inputs })
    }

    /// Convolves maps, which are scaled in place.
    pub(super) fn forward(&self, mut input: Maps, style: &[f32], scratch: &mut Vec<f32>) -> Maps {
        let factors = self.modulation.factors(style);
        let mut out = match &self.method {
            Method::Same(convolution) => {
                input.for_lines(|channel, line| scale_row(line, factors[channel]));
                let mut out = Maps { rows: Rows::default(), channels: convolution.outputs(), size: input.size };
                convolution.apply(input.plane(), None, false, &mut out.rows, scratch);
                out
            }
            Method::Double { even_even, even_odd, odd_even, odd_odd } => {
                let rows = separated(&input, &factors);
                let result = double(&rows, input.size, [even_even, even_odd, odd_even, odd_odd]);
                result.filtered(even_even.outputs(), input.size)
            }
        };
        let powers: Vec<f32> = factors.iter().map(|factor| factor * factor).collect();
        let gain = |squares: &[f32]| 1.0 / (sum_of_pairs(squares, &powers, |a, b| a * b) + EPSILON).sqrt();
        let gains: Vec<f32> = self.squares.chunks_exact(self.inputs.max(1)).map(gain).collect();
        out.for_lines(|channel, line| leaky_row(line, [gains[channel], self.bias[channel], SLOPE, GAIN]));
        out
    }
}

/// Computes a transposed convolution of stride 2, by the parity of lines and columns, of maps with lines of zeros between the channels.
fn double(input: &Rows, size: usize, [even_even, even_odd, odd_even, odd_odd]: [&Filters; 4]) -> Doubling {
    let (stride, outputs) = (input.stride(), even_even.outputs());
    let channels = input.rows() / (size + 1);
    // Offsets from the column before the line before.
    let taps = |places: &[(usize, usize)]| -> Vec<u32> {
        let offset = |channel: usize, (line, column): (usize, usize)| (channel * (size + 1) + line) * stride + column;
        let channel = |channel: usize| places.iter().map(move |place| offset(channel, *place) as u32);
        (0..channels).flat_map(channel).collect()
    };
    let corners = taps(&[(0, 0), (0, 1), (1, 0), (1, 1)]);
    let (column, line, center) = (taps(&[(0, 1), (1, 1)]), taps(&[(1, 0), (1, 1)]), taps(&[(1, 1)]));
    let mut result = Doubling::new(outputs, size);
    let odd = result.odd_columns;
    for y in 0..=size {
        let data = &input.data()[input.start(y) - 1..];
        let (start, step) = (result.even.start(y), (size + 1) * result.even.stride());
        let even = result.even.data_mut();
        even_even.apply(data, &corners, size + 1, (even, start, step), Epilogue::default());
        even_odd.apply(data, &column, size, (even, start + odd, step), Epilogue::default());
        if y < size {
            let (start, step) = (result.odd.start(y), size * result.odd.stride());
            let rows = result.odd.data_mut();
            odd_even.apply(data, &line, size + 1, (rows, start, step), Epilogue::default());
            odd_odd.apply(data, &center, size, (rows, start + odd, step), Epilogue::default());
        }
    }
    result
}

/// A convolution of one pixel to three maps, without demodulation.
pub(super) struct StyledProjection {
    modulation: Modulation,
    /// `[map][input]`.
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl StyledProjection {
    /// Takes `NAME.conv.*` and `NAME.bias`.
    pub(super) fn new(checkpoint: &Checkpoint, name: &str) -> Result<Self, UnusableWeights> {
        let weight = equalized(checkpoint, &format!("{name}.conv.weight"), 1.0)?;
        let modulation = Modulation::new(checkpoint, &format!("{name}.conv"))?;
        Ok(Self { modulation, weight, bias: checkpoint.elements(&format!("{name}.bias"))? })
    }

    /// The filters for a style.
    pub(super) fn filters(&self, style: &[f32]) -> Filters {
        let factors = self.modulation.factors(style);
        let rows = self.weight.chunks_exact(factors.len().max(1));
        let weight: Vec<f32> = rows.flat_map(|row| row.iter().zip(&factors).map(|(a, b)| a * b)).collect();
        Filters::new(&weight, &self.bias, factors.len())
    }
}
