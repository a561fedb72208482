//! Normalization by the root mean square (RMSNorm; Zhang and Sennrich, arXiv 1910.07467).

use crate::device::wide;
use crate::gradients::{Flow, Gradient};
use crate::kernels::rms_norm;
use crate::ops::operation::{Operation, apply};
use crate::ops::row_map::{matrix, sum_rows};
use crate::tape::record;
use crate::{NnError, Result, Value, host};
use candle_core::{DType, Tensor};
use std::rc::Rc;

impl Value {
    /// Divides each row by the root of its mean square plus `epsilon`, then multiplies each channel by its gain, `[channel]`.
    ///
    /// # Errors
    /// When the shapes do not fit or there is no element.
    pub fn rms_norm(&self, gain: &Value, epsilon: f32) -> Result<Value> {
        if gain.dims() != [self.width()] || self.dims().is_empty() {
            return Err(NnError::shape("RMS norm", format!("a gain of [{}]", self.width()), gain.dims()));
        }
        if self.tensor().elem_count() == 0 {
            return Err(NnError::shape("RMS norm", "at least one element", self.dims()));
        }
        apply(RmsNorm { epsilon }, &[self, gain])
    }
}

/// The normalization; inputs are rows and gain.
struct RmsNorm {
    epsilon: f32,
}

/// Saved state of the composition.
struct Saved {
    /// Element type and shape of the input.
    dtype: DType,
    shape: Vec<usize>,
    /// The rows divided by their roots, in single precision or wider.
    normal: Tensor,
    /// The reciprocal root of each row.
    scale: Tensor,
    gain: Tensor,
}

impl Operation for RmsNorm {
    type Saved = Saved;

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Saved)> {
        let (dtype, shape) = (inputs[0].dtype(), inputs[0].dims().to_vec());
        let (x, gain) = (wide(&matrix(&inputs[0])?)?, wide(&inputs[1])?);
        let scale = (x.sqr()?.mean_keepdim(1)? + f64::from(self.epsilon))?.sqrt()?.recip()?;
        let normal = x.broadcast_mul(&scale)?;
        let output = normal.broadcast_mul(&gain)?.to_dtype(dtype)?.reshape(shape.as_slice())?;
        Ok((output, Saved { dtype, shape, normal, scale, gain }))
    }

    fn backward(self, saved: Saved, gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let Saved { dtype, shape, normal, scale, gain } = saved;
        let dy = wide(&matrix(gradient)?)?;
        let of_gain = needs[1].then(|| sum_rows(&(&dy * &normal)?)).transpose()?;
        let of_input = || -> Result<Tensor> {
            let inner = dy.broadcast_mul(&gain)?;
            let along = normal.broadcast_mul(&(&inner * &normal)?.mean_keepdim(1)?)?;
            Ok((inner - along)?.broadcast_mul(&scale)?.to_dtype(dtype)?.reshape(shape.as_slice())?)
        };
        Ok(vec![needs[0].then(of_input).transpose()?, of_gain])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let norm = Rc::new(Fused {
            input: inputs[0].tensor().clone(),
            gain: inputs[1].tensor().clone(),
            epsilon: self.epsilon,
        });
        let (output, scales) = norm.forward()?;
        let recorded = record(output, inputs, || {
            let norm = norm.clone();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let x = host::slice("RMS norm", &norm.input)?;
                let gain = host::slice("RMS norm", &norm.gain)?;
                let mut gain_sum = Vec::new();
                let gradient = gradient.map(|gradient| gain_sum = rms_norm::backward(gradient, &x, &gain, &scales))?;
                flow.give(0, gradient)?;
                flow.give_vec(1, gain_sum, norm.gain.dims())
            }
        });
        Ok(recorded.recomputed_by(move || Ok(norm.forward()?.0)))
    }
}

/// The inputs of the fused kernel, from which the output is recomputed.
struct Fused {
    input: Tensor,
    gain: Tensor,
    epsilon: f32,
}

impl Fused {
    fn forward(&self) -> Result<(Tensor, Vec<f32>)> {
        let (x, gain) = (host::slice("RMS norm", &self.input)?, host::slice("RMS norm", &self.gain)?);
        let (out, scales) = rms_norm::forward(&x, &gain, self.epsilon);
        Ok((host::tensor(out, self.input.dims())?, scales))
    }
}
