//! Activation functions and their slopes.

use super::functions::{erf, exp, sigmoid, tanh};
use super::vectorized::vectorized;
use crate::host::uninitialized;
use crate::kernels::elementwise::CHUNK;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// An elementwise non-linearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x.
    #[default]
    Identity,
    /// max(x, 0).
    Relu,
    /// x where positive, x / 100 elsewhere.
    LeakyRelu,
    /// x sigmoid(x), also called swish.
    Silu,
    /// x times the normal distribution function of x.
    Gelu,
    /// The approximation of GELU by a hyperbolic tangent.
    GeluTanh,
    /// x tanh(ln(1 + e^x)).
    Mish,
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e^-x).
    Sigmoid,
}

const LEAK: f32 = 0.01;
const GELU_SCALE: f32 = 0.797_884_6; // sqrt(2 / pi)
const GELU_CUBIC: f32 = 0.044_715;

trait Function: Sync {
    fn value(x: f32) -> f32;
    fn slope(x: f32) -> f32;
}

macro_rules! function {
    ($name:ident, |$x:ident| $value:expr, $slope:expr) => {
        struct $name;

        impl Function for $name {
            #[inline(always)]
            fn value($x: f32) -> f32 {
                $value
            }

            #[inline(always)]
            fn slope($x: f32) -> f32 {
                $slope
            }
        }
    };
}

function!(Relu, |x| x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 });
function!(LeakyRelu, |x| if x > 0.0 { x } else { LEAK * x }, if x > 0.0 { 1.0 } else { LEAK });
function!(Silu, |x| x * sigmoid(x), {
    let gate = sigmoid(x);
    gate * (1.0 + x * (1.0 - gate))
});
function!(Gelu, |x| x * normal_cdf(x), {
    let density = 0.398_942_3 * exp(-0.5 * x * x);
    normal_cdf(x) + x * density
});
function!(GeluTanh, |x| x * sigmoid(2.0 * gelu_argument(x)), {
    let gate = sigmoid(2.0 * gelu_argument(x));
    gate + x * gate * (1.0 - gate) * 2.0 * GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * x * x)
});
// With e = e^x and n = e (e + 2), tanh(ln(1 + e)) = n / (n + 2); beyond 20 it is 1 in single precision.
function!(Mish, |x| x * mish_gate(x), {
    let e = exp(x.min(20.0));
    let gate = mish_gate(x);
    // d gate / dx = (1 - gate^2) sigmoid(x), and 1 - gate = 2 / (n + 2).
    gate + x * (2.0 / (e * (e + 2.0) + 2.0)) * (1.0 + gate) * (e / (1.0 + e))
});
function!(Tanh, |x| tanh(x), {
    let value = tanh(x);
    1.0 - value * value
});
function!(Sigmoid, |x| sigmoid(x), {
    let value = sigmoid(x);
    value * (1.0 - value)
});

#[inline(always)]
fn normal_cdf(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

#[inline(always)]
fn gelu_argument(x: f32) -> f32 {
    GELU_SCALE * (x + GELU_CUBIC * x * x * x)
}

#[inline(always)]
fn mish_gate(x: f32) -> f32 {
    let e = exp(x.min(20.0));
    let n = e * (e + 2.0);
    n / (n + 2.0)
}

macro_rules! with_function {
    ($activation:expr, $call:ident, $($argument:expr),*) => {
        match $activation {
            Activation::Identity => {}
            Activation::Relu => $call(Relu, $($argument),*),
            Activation::LeakyRelu => $call(LeakyRelu, $($argument),*),
            Activation::Silu => $call(Silu, $($argument),*),
            Activation::Gelu => $call(Gelu, $($argument),*),
            Activation::GeluTanh => $call(GeluTanh, $($argument),*),
            Activation::Mish => $call(Mish, $($argument),*),
            Activation::Tanh => $call(Tanh, $($argument),*),
            Activation::Sigmoid => $call(Sigmoid, $($argument),*),
        }
    };
}

vectorized! {
    fn apply_with[F: Function](_function: F, x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = F::value(*x));
    }
}

vectorized! {
    fn write_with[F: Function](_function: F, out: &mut [f32], x: &[f32]) {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = F::value(*x));
    }
}

vectorized! {
    fn slope_with[F: Function](_function: F, gradient: &mut [f32], x: &[f32]) {
        gradient.iter_mut().zip(x).for_each(|(gradient, x)| *gradient *= F::slope(*x));
    }
}

impl Activation {
    /// `x[i] = f(x[i])` on one thread.
    pub fn apply(self, x: &mut [f32]) {
        with_function!(self, apply_with, x);
    }

    /// `out[i] = f(x[i])` on one thread.
    pub fn write(self, out: &mut [f32], x: &[f32]) {
        if self == Activation::Identity {
            out.copy_from_slice(x);
        }
        with_function!(self, write_with, out, x);
    }

    /// `gradient[i] *= f'(x[i])` on one thread.
    pub fn multiply_slope(self, gradient: &mut [f32], x: &[f32]) {
        with_function!(self, slope_with, gradient, x);
    }

    /// `f(x[i])`, multi-threaded.
    pub fn map(self, x: &[f32]) -> Vec<f32> {
        // SAFETY: both are cut into the same chunks, and every element of a chunk is written.
        let mut out = unsafe { uninitialized(x.len()) };
        out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| self.write(out, x));
        out
    }

    /// `gradient[i] *= f'(x[i])`, multi-threaded.
    pub fn chain(self, gradient: &mut [f32], x: &[f32]) {
        if self != Activation::Identity {
            let tasks = gradient.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
            tasks.for_each(|(gradient, x)| self.multiply_slope(gradient, x));
        }
    }
}
