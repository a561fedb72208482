//! Elementwise non-linearities.

use crate::device::wide;
use crate::gradients::{Flow, Gradient};
use crate::kernels::activation::Activation;
use crate::ops::operation::{Operation, apply};
use crate::tape::record;
use crate::{Result, Value, host};
use candle_core::Tensor;

/// Slope of the leaky rectifier below zero.
const LEAK: f64 = 0.01;
/// `sqrt(2 / pi)`, in GELU's approximation by a hyperbolic tangent.
const GELU_SCALE: f64 = 0.797_884_560_802_865_4;
const GELU_CUBIC: f64 = 0.044_715;
/// Above this limit Mish is the identity in single precision; below it nothing overflows.
const MISH_LIMIT: f64 = 20.0;

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    // The hyperbolic tangent overflows nowhere.
    Ok(((x * 0.5)?.tanh()? * 0.5)?.affine(1.0, 0.5)?)
}

fn normal_cdf(x: &Tensor) -> Result<Tensor> {
    Ok((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()?.affine(0.5, 0.5)?)
}

fn gelu_argument(x: &Tensor) -> Result<Tensor> {
    Ok((x.sqr()?.affine(GELU_CUBIC, 1.0)? * x)?.affine(GELU_SCALE, 0.0)?)
}

/// Returns `tanh(ln(1 + e^x))`, which is n / (n + 2) with e = e^x and n = e (e + 2), together with `2 / (n + 2)` and the sigmoid of x.
fn mish_gate(x: &Tensor) -> Result<[Tensor; 3]> {
    let e = x.minimum(MISH_LIMIT)?.exp()?;
    let n = (&e * e.affine(1.0, 2.0)?)?;
    let rest = n.affine(0.5, 1.0)?.recip()?;
    let sigmoid = (&e / e.affine(1.0, 1.0)?)?;
    Ok([rest.affine(-1.0, 1.0)?, rest, sigmoid])
}

impl Activation {
    /// `f(x)`, composed, or by a CUDA kernel if there is one.
    pub(crate) fn composed(self, x: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if self != Self::Identity && crate::cuda::activation::serves(x) {
            return crate::cuda::activation::value(self, x);
        }
        let dtype = x.dtype();
        let x = &wide(x)?;
        let y = match self {
            Self::Identity => x.clone(),
            Self::Relu => x.relu()?,
            Self::LeakyRelu => x.maximum(&(x * LEAK)?)?,
            Self::Silu => (x * sigmoid(x)?)?,
            Self::Gelu => (x * normal_cdf(x)?)?,
            Self::GeluTanh => (x * sigmoid(&(gelu_argument(x)? * 2.0)?)?)?,
            Self::Mish => {
                let [gate, ..] = mish_gate(x)?;
                (x * gate)?
            }
            Self::Tanh => x.tanh()?,
            Self::Sigmoid => sigmoid(x)?,
        };
        Ok(y.to_dtype(dtype)?)
    }

    /// `gradient * f'(x)`, composed, or by a CUDA kernel if there is one.
    pub(crate) fn composed_slope(self, gradient: &Tensor, x: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if self != Self::Identity && gradient.dtype() == x.dtype() && crate::cuda::activation::serves(x) {
            return crate::cuda::activation::slope(self, gradient, x);
        }
        let (dtype, x) = (x.dtype(), &wide(x)?);
        let slope = match self {
            Self::Identity => return Ok(gradient.clone()),
            Self::Relu => x.gt(0.0)?.to_dtype(x.dtype())?,
            Self::LeakyRelu => x.gt(0.0)?.to_dtype(x.dtype())?.affine(1.0 - LEAK, LEAK)?,
            Self::Silu => {
                let gate = sigmoid(x)?;
                (&gate * (x * gate.affine(-1.0, 1.0)?)?.affine(1.0, 1.0)?)?
            }
            Self::Gelu => {
                let density = (x.sqr()? * -0.5)?.exp()?.affine(1.0 / std::f64::consts::TAU.sqrt(), 0.0)?;
                (normal_cdf(x)? + (x * density)?)?
            }
            Self::GeluTanh => {
                let gate = sigmoid(&(gelu_argument(x)? * 2.0)?)?;
                let inner = x.sqr()?.affine(3.0 * GELU_CUBIC, 1.0)?.affine(2.0 * GELU_SCALE, 0.0)?;
                let rest = (&gate * gate.affine(-1.0, 1.0)?)?;
                (gate + ((x * rest)? * inner)?)?
            }
            // d gate / dx = (1 - gate^2) sigmoid(x), and 1 - gate is the rest.
            Self::Mish => {
                let [gate, rest, sigmoid] = mish_gate(x)?;
                let slope = ((rest * gate.affine(1.0, 1.0)?)? * sigmoid)?;
                (gate + (x * slope)?)?
            }
            Self::Tanh => x.tanh()?.sqr()?.affine(-1.0, 1.0)?,
            Self::Sigmoid => {
                let value = sigmoid(x)?;
                (&value * value.affine(-1.0, 1.0)?)?
            }
        };
        Ok((wide(gradient)? * slope)?.to_dtype(dtype)?)
    }
}

struct Activate(Activation);

impl Operation for Activate {
    type Saved = Tensor;

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Tensor)> {
        Ok((self.0.composed(&inputs[0])?, inputs[0].clone()))
    }

    fn backward(self, input: Tensor, gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(self.0.composed_slope(gradient, &input)?)])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let (input, activation) = (inputs[0], self.0);
        let output = host::tensor(activation.map(&host::slice("activation", input.tensor())?), input.dims())?;
        Ok(record(output, inputs, || {
            let input = input.tensor().clone();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let input = host::slice("activation", &input)?;
                flow.give(0, gradient.map(|gradient| activation.chain(gradient, &input))?)
            }
        }))
    }
}

impl Value {
    /// `f(self)`, element by element.
    ///
    /// # Errors
    /// When candle cannot compute it.
    pub fn activate(&self, activation: Activation) -> Result<Value> {
        match activation {
            Activation::Identity => Ok(self.clone()),
            _ => apply(Activate(activation), &[self]),
        }
    }
}
