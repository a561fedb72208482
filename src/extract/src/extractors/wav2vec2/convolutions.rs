//! The feature extractor: seven convolutions from samples to rows, and their interpolation to a number of frames.
//!
//! On a CPU, rows are computed in blocks whose intermediate results stay in the second-level cache: those of the first layer are as long as 100
//! times the result. A row does not depend on its block.

use candle_core::{Device, Tensor};
use flowmill_nn::inference::Convolution1d;
use flowmill_nn::ops::{Convolution, Normalization};
use flowmill_nn::{Activation, NnError, Ragged, Value, device, host};
use rayon::prelude::*;

use super::dimensions::{CONVOLUTIONS, Dimensions, STRIDES};
use super::{Checkpoint, Form};
use crate::UnusableWeights;

const EPSILON: f32 = 1e-5;

/// Rows of the result per block.
const BLOCK: usize = 32;

/// Rows of the first layer per block of its statistics.
const STATISTICS_BLOCK: usize = 512;

/// The convolutions, in their order.
pub(super) struct Convolutions {
    dimensions: Dimensions,
    layers: Vec<(Convolution1d, Norm)>,
}

/// The normalization between a convolution and its activation.
enum Norm {
    None,
    /// Over time, each channel on its own: gain and bias.
    Time(Tensor, Tensor),
    /// Over the channels of a row.
    Channels(Tensor, Tensor),
}

impl Convolutions {
    pub(super) fn new(checkpoint: &Checkpoint, device: &Device) -> Result<Self, UnusableWeights> {
        let dimensions = checkpoint.dimensions();
        let layer = |layer: usize| -> Result<_, UnusableWeights> {
            let name = |part: &str| format!("feature_extractor.conv_layers.{layer}.{part}");
            let tensor = |part: &str| {
                Ok::<_, UnusableWeights>(checkpoint.tensor(&name(part))?.to_device(device).map_err(NnError::from)?)
            };
            let weight = tensor("conv.weight")?;
            let bias = match dimensions.has_bias {
                true => tensor("conv.bias")?,
                false => host::tensor(vec![0.0; dimensions.channels[layer]], &[dimensions.channels[layer]])?
                    .to_device(device)
                    .map_err(NnError::from)?,
            };
            let settings = Convolution { stride: STRIDES[layer], ..Convolution::default() };
            let norm = match (dimensions.form, layer) {
                (Form::Stable, _) => Norm::Channels(tensor("layer_norm.weight")?, tensor("layer_norm.bias")?),
                (Form::Base, 0) => Norm::Time(tensor("layer_norm.weight")?, tensor("layer_norm.bias")?),
                (Form::Base, _) => Norm::None,
            };
            Ok((Convolution1d::new(&weight, &bias, settings)?, norm))
        };
        Ok(Self { layers: (0..CONVOLUTIONS).map(layer).collect::<Result<_, _>>()?, dimensions: *dimensions })
    }

    /// Returns the rows `[row, channel]` of normalized samples.
    ///
    /// # Errors
    /// When there are too few samples for a row.
    pub(super) fn forward(&self, samples: &[f32]) -> Result<Value, NnError> {
        let rows = self.dimensions.rows(samples.len());
        let scaling = match &self.layers[0].1 {
            Norm::Time(gain, bias) if device::is_fused(gain) => Some(self.scaling_over_time(samples, gain, bias)?),
            Norm::Time(gain, _) | Norm::Channels(gain, _) if !device::is_fused(gain) => {
                return self.layers(samples, None);
            }
            _ => None,
        };
        if rows <= BLOCK {
            return self.layers(samples, scaling.as_ref());
        }
        let (step, field) = (STRIDES.iter().product::<usize>(), self.dimensions.shortest());
        let blocks = (0..rows.div_ceil(BLOCK)).into_par_iter().map(|block| {
            let (start, end) = (block * BLOCK, rows.min((block + 1) * BLOCK));
            let rows = self.layers(&samples[start * step..(end - 1) * step + field], scaling.as_ref())?;
            Ok(host::slice("convolutions", rows.tensor())?.to_vec())
        });
        let blocks: Vec<Vec<f32>> = blocks.collect::<Result<_, NnError>>()?;
        Value::from_vec(blocks.concat(), &[rows, self.dimensions.channels[CONVOLUTIONS - 1]])
    }

    /// Returns the rows of samples. A normalization over time takes its scaling from outside, or from these rows.
    fn layers(&self, samples: &[f32], scaling: Option<&Scaling>) -> Result<Value, NnError> {
        let mut state = Value::from_vec(samples.to_vec(), &[samples.len(), 1])?;
        for (convolution, norm) in &self.layers {
            let items = Ragged::packed(&[state.rows()]);
            let activation = if matches!(norm, Norm::None) { Activation::Gelu } else { Activation::Identity };
            state = convolution.forward(&state, &items, activation)?;
            state = match norm {
                Norm::None => state,
                Norm::Time(gain, bias) => match scaling {
                    Some(scaling) => scaling.apply(&state)?,
                    None => over_time(&state, gain, bias)?,
                },
                Norm::Channels(gain, bias) => {
                    let [gain, bias] = [gain, bias].map(|tensor| Value::plain(tensor.clone()));
                    let settings = Normalization { epsilon: EPSILON, activation: Activation::Gelu };
                    state.layer_norm(Some(&gain?), Some(&bias?), settings)?
                }
            };
        }
        Ok(state)
    }

    /// Returns the normalization of each channel of the first layer over all rows.
    fn scaling_over_time(&self, samples: &[f32], gain: &Tensor, bias: &Tensor) -> Result<Scaling, NnError> {
        let (kernel, stride) = (self.dimensions.kernels[0], STRIDES[0]);
        let rows = samples.len().checked_sub(kernel).map_or(0, |rest| rest / stride + 1);
        let blocks = (0..rows.div_ceil(STATISTICS_BLOCK)).into_par_iter().map(|block| {
            let (start, end) = (block * STATISTICS_BLOCK, rows.min((block + 1) * STATISTICS_BLOCK));
            let samples = &samples[start * stride..(end - 1) * stride + kernel];
            let samples = Value::from_vec(samples.to_vec(), &[samples.len(), 1])?;
            let items = Ragged::packed(&[samples.rows()]);
            let rows = self.layers[0].0.forward(&samples, &items, Activation::Identity)?;
            Ok(Moments::of(&host::slice("norm", rows.tensor())?, end - start))
        });
        let blocks: Vec<Moments> = blocks.collect::<Result<_, NnError>>()?;
        let moments = blocks.into_iter().reduce(Moments::join).unwrap_or_default();
        let (gain, bias) = (host::slice("norm", gain)?, host::slice("norm", bias)?);
        let scales: Vec<f64> = moments
            .squares
            .iter()
            .zip(&*gain)
            .map(|(sum, gain)| f64::from(*gain) / (sum / moments.count + f64::from(EPSILON)).sqrt())
            .collect();
        let shift = |((bias, mean), scale): ((&f32, &f64), &f64)| (f64::from(*bias) - mean * scale) as f32;
        let shifts = bias.iter().zip(&moments.means).zip(&scales).map(shift).collect();
        Ok(Scaling { scales: scales.iter().map(|scale| *scale as f32).collect(), shifts })
    }
}

/// Factor and addend of each channel, which are followed by GELU.
struct Scaling {
    scales: Vec<f32>,
    shifts: Vec<f32>,
}

impl Scaling {
    fn apply(&self, state: &Value) -> Result<Value, NnError> {
        let mut out = host::slice("norm", state.tensor())?.to_vec();
        for row in out.chunks_exact_mut(self.scales.len().max(1)) {
            for ((x, scale), shift) in row.iter_mut().zip(&self.scales).zip(&self.shifts) {
                *x = *x * scale + shift;
            }
        }
        Activation::Gelu.apply(&mut out);
        Value::from_vec(out, state.dims())
    }
}

/// Mean and sum of the squared distances from it, per channel. Those of a block are sums in single precision, the others in double precision.
#[derive(Default)]
struct Moments {
    count: f64,
    means: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    /// The moments of `count` rows.
    fn of(rows: &[f32], count: usize) -> Self {
        let width = rows.len() / count.max(1);
        let mut sums = vec![0f32; width];
        for row in rows.chunks_exact(width.max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        let means: Vec<f32> = sums.iter().map(|sum| sum / count as f32).collect();
        let mut squares = vec![0f32; width];
        for row in rows.chunks_exact(width.max(1)) {
            for ((square, x), mean) in squares.iter_mut().zip(row).zip(&means) {
                *square += (x - mean) * (x - mean);
            }
        }
        let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect();
        Self { count: count as f64, means: wide(means), squares: wide(squares) }
    }

    /// The moments of the rows of both (Chan, Golub and LeVeque 1983).
    fn join(self, other: Self) -> Self {
        let count = self.count + other.count;
        let (share, weight) = (other.count / count, self.count * other.count / count);
        let distances: Vec<f64> = other.means.iter().zip(&self.means).map(|(b, a)| b - a).collect();
        let means = self.means.iter().zip(&distances).map(|(mean, distance)| mean + distance * share).collect();
        let sums = self.squares.iter().zip(&other.squares).map(|(a, b)| a + b);
        let squares = sums.zip(&distances).map(|(sum, distance)| sum + distance * distance * weight).collect();
        Self { count, means, squares }
    }
}

/// Normalizes each channel of `[row, channel]` over all rows, then applies gain, bias and GELU, by operations of the device.
fn over_time(state: &Value, gain: &Tensor, bias: &Tensor) -> Result<Value, NnError> {
    let x = state.tensor();
    let mean = x.mean_keepdim(0)?;
    let centered = x.broadcast_sub(&mean)?;
    let deviation = (centered.sqr()?.mean_keepdim(0)? + f64::from(EPSILON))?.sqrt()?;
    let normal = centered.broadcast_div(&deviation)?.broadcast_mul(gain)?.broadcast_add(bias)?;
    Value::plain(normal)?.activate(Activation::Gelu)
}

/// Interpolates rows `[row, channel]` linearly to a number of frames; the first and the last row stay where they are (`align_corners`).
///
/// # Errors
/// When there is no row, or a device cannot compute it.
pub(super) fn interpolate(rows: &Value, frames: usize) -> Result<Value, NnError> {
    let &[count, width] = rows.dims() else {
        return Err(NnError::shape("interpolation", "[row, channel]", rows.dims()));
    };
    if count == 0 {
        return Err(NnError::invalid("interpolation", "there is no row"));
    }
    let step = if frames > 1 { (count - 1) as f32 / (frames - 1) as f32 } else { 0.0 };
    let x = host::read(rows.tensor())?;
    let mut out = Vec::with_capacity(frames * width);
    for frame in 0..frames {
        let place = step * frame as f32;
        let before = (place as usize).min(count - 1);
        let after = (before + 1).min(count - 1);
        let share = (place - before as f32).clamp(0.0, 1.0);
        let pair = x[before * width..(before + 1) * width].iter().zip(&x[after * width..(after + 1) * width]);
        out.extend(pair.map(|(a, b)| (1.0 - share) * a + share * b));
    }
    Value::from_vec(out, &[frames, width])?.on(rows.tensor().device())
}
