//! Activation functions and the steps after a product: one launch in each direction.

use super::{Kernels, Launch, expect, uninitialized};
use crate::kernels::activation::Activation;
use crate::{NnError, Result};
use candle_core::Tensor;

static KERNELS: Kernels = Kernels::new("activation", &[include_str!("elements.cuh"), include_str!("activation.cu")]);

/// Returns whether there are kernels for a tensor.
pub(crate) fn serves(tensor: &Tensor) -> bool {
    KERNELS.serve(tensor)
}

/// Returns the number of a function in the source of the kernels.
fn number(activation: Activation) -> Result<usize> {
    Ok(match activation {
        Activation::Identity => return Err(NnError::invalid("activation", "the identity has no kernel")),
        Activation::Relu => 0,
        Activation::LeakyRelu => 1,
        Activation::Silu => 2,
        Activation::Gelu => 3,
        Activation::GeluTanh => 4,
        Activation::Mish => 5,
        Activation::Tanh => 6,
        Activation::Sigmoid => 7,
    })
}

/// `f(x)`, for a tensor that [`serves`] allows.
pub(crate) fn value(activation: Activation, x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let launch = Launch::typed(&KERNELS, "value", &x)?.long(x.elem_count()).count(number(activation)?)?;
    // SAFETY: the kernel reads and writes exactly the elements of both tensors.
    unsafe {
        let y = uninitialized(x.shape(), x.dtype(), &x)?;
        launch.tensor(&x)?.tensor(&y)?.over(x.elem_count(), 1)?;
        Ok(y)
    }
}

/// `gradient * f'(x)`, for a tensor that [`serves`] allows; both have one element type.
pub(crate) fn slope(activation: Activation, gradient: &Tensor, x: &Tensor) -> Result<Tensor> {
    expect("activation", gradient, x.dims(), x.dtype())?;
    let (x, gradient) = (x.contiguous()?, gradient.contiguous()?);
    let launch = Launch::typed(&KERNELS, "slope", &x)?.long(x.elem_count()).count(number(activation)?)?;
    // SAFETY: the kernel reads and writes exactly the elements of all tensors.
    unsafe {
        let dx = uninitialized(x.shape(), x.dtype(), &x)?;
        launch.tensor(&x)?.tensor(&gradient)?.tensor(&dx)?.over(x.elem_count(), 1)?;
        Ok(dx)
    }
}

/// Adds bias `[channel]` and residual (shaped like the product) in place to a product `[.., channel]` that [`serves`] allows and that
/// has no other owner. Returns `f` of the sum, unless that is the sum itself.
pub(crate) fn finish(
    product: &Tensor,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    activation: Activation,
) -> Result<Option<Tensor>> {
    let width = product.dims().last().copied().unwrap_or(1);
    if let Some(bias) = bias {
        expect("bias", bias, &[width], product.dtype())?;
    }
    let elements = product.elem_count();
    let differs = |residual: &&Tensor| residual.elem_count() != elements || residual.dtype() != product.dtype();
    if let Some(residual) = residual.filter(differs) {
        let expected = format!("{:?} in {:?}", product.dims(), product.dtype());
        return Err(NnError::shape("residual", expected, residual.dims()));
    }
    let launch = Launch::typed(&KERNELS, "finish", product)?.long(elements).count(width)?;
    let kind = if activation == Activation::Identity { 0 } else { number(activation)? };
    // SAFETY: the kernel reads and writes exactly the elements of product, residual and result, and `width` elements of the bias.
    unsafe {
        let after = match activation {
            Activation::Identity => None,
            _ => Some(uninitialized(product.shape(), product.dtype(), product)?),
        };
        let launch = launch.count(kind)?.tensor(bias)?.tensor(residual)?.tensor(product)?.tensor(after.as_ref())?;
        launch.over(elements, 1)?;
        Ok(after)
    }
}
