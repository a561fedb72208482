//! The feature extractor: seven convolutions from samples to rows, and their interpolation to a number of frames.

use candle_core::{Device, Tensor};
use flowmill_nn::inference::Convolution1d;
use flowmill_nn::ops::{Convolution, Normalization};
use flowmill_nn::{Activation, NnError, Ragged, Value, device, host};
use rayon::prelude::*;

use super::dimensions::{CONVOLUTIONS, STRIDES};
use super::{Checkpoint, Form};
use crate::UnusableWeights;

const EPSILON: f32 = 1e-5;

/// Rows of a task of the normalization over time.
const ROWS_PER_TASK: usize = 512;

/// The convolutions, in their order.
pub(super) struct Convolutions {
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
        Ok(Self { layers: (0..CONVOLUTIONS).map(layer).collect::<Result<_, _>>()? })
    }

    /// Returns the rows `[row, channel]` of normalized samples.
    ///
    /// # Errors
    /// When there are too few samples for a row.
    pub(super) fn forward(&self, samples: &[f32]) -> Result<Value, NnError> {
        let mut state = Value::from_vec(samples.to_vec(), &[samples.len(), 1])?;
        for (convolution, norm) in &self.layers {
            let items = Ragged::packed(&[state.rows()]);
            let activation = if matches!(norm, Norm::None) { Activation::Gelu } else { Activation::Identity };
            state = convolution.forward(&state, &items, activation)?;
            state = match norm {
                Norm::None => state,
                Norm::Time(gain, bias) => over_time(state, gain, bias)?,
                Norm::Channels(gain, bias) => {
                    let [gain, bias] = [gain, bias].map(|tensor| Value::plain(tensor.clone()));
                    let settings = Normalization { epsilon: EPSILON, activation: Activation::Gelu };
                    state.layer_norm(Some(&gain?), Some(&bias?), settings)?
                }
            };
        }
        Ok(state)
    }
}

/// Normalizes each channel of `[row, channel]` over all rows, then applies gain, bias and GELU.
fn over_time(state: Value, gain: &Tensor, bias: &Tensor) -> Result<Value, NnError> {
    let width = state.width();
    if !device::is_fused(state.tensor()) {
        let x = state.tensor();
        let mean = x.mean_keepdim(0)?;
        let centered = x.broadcast_sub(&mean)?;
        let deviation = (centered.sqr()?.mean_keepdim(0)? + f64::from(EPSILON))?.sqrt()?;
        let normal = centered.broadcast_div(&deviation)?.broadcast_mul(gain)?.broadcast_add(bias)?;
        return Value::plain(normal)?.activate(Activation::Gelu);
    }
    let (gain, bias) = (host::slice("norm", gain)?, host::slice("norm", bias)?);
    let x = host::slice("norm", state.tensor())?;
    let count = state.rows().max(1) as f64;
    // Sums of each task in single precision, all of them in double precision.
    let sums = |of: &(dyn Fn(f32, usize) -> f32 + Sync)| -> Vec<f64> {
        let tasks = x.par_chunks(ROWS_PER_TASK * width).map(|rows| {
            let mut sums = vec![0f32; width];
            for row in rows.chunks_exact(width) {
                for (channel, (sum, x)) in sums.iter_mut().zip(row).enumerate() {
                    *sum += of(*x, channel);
                }
            }
            sums
        });
        let tasks: Vec<Vec<f32>> = tasks.collect();
        (0..width).map(|channel| tasks.iter().map(|sums| f64::from(sums[channel])).sum()).collect()
    };
    let means: Vec<f32> = sums(&|x, _| x).into_iter().map(|sum| (sum / count) as f32).collect();
    let squares = sums(&|x, channel| (x - means[channel]) * (x - means[channel]));
    let scales: Vec<f32> = squares
        .iter()
        .zip(&*gain)
        .map(|(sum, gain)| (f64::from(*gain) / (sum / count + f64::from(EPSILON)).sqrt()) as f32)
        .collect();
    let shifts: Vec<f32> =
        bias.iter().zip(&means).zip(&scales).map(|((bias, mean), scale)| bias - mean * scale).collect();
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(ROWS_PER_TASK * width).zip(x.par_chunks(ROWS_PER_TASK * width)).for_each(|(out, x)| {
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            for ((out, x), (scale, shift)) in out.iter_mut().zip(x).zip(scales.iter().zip(&shifts)) {
                *out = x * scale + shift;
            }
        }
        Activation::Gelu.apply(out);
    });
    Value::from_vec(out, state.dims())
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
