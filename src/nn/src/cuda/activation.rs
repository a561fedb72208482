//! Activation functions by a kernel of our own: one launch in each direction.

use super::{Kernels, Read, device_of, memory, tensor};
use crate::kernels::activation::Activation;
use crate::{NnError, Result};
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{DType, Error, Tensor};
use half::bf16;

static KERNELS: Kernels =
    Kernels::new("activation", concat!(include_str!("elements.cuh"), include_str!("activation.cu")));

/// Threads of a block.
const BLOCK: usize = 256;
/// The most blocks of a launch; their threads take several elements each where there are more.
const MOST_BLOCKS: usize = 1 << 20;

/// Whether there are kernels for a tensor's device and element type.
pub(crate) fn serves(tensor: &Tensor) -> bool {
    KERNELS.serve(tensor) && tensor.elem_count() > 0
}

/// The number of a function in the source of the kernels.
fn number(activation: Activation) -> Result<i32> {
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
    match x.dtype() {
        DType::BF16 => launch::<bf16>("value_bf16", activation, &[x]),
        _ => launch::<f32>("value_f32", activation, &[x]),
    }
}

/// `gradient * f'(x)`, for a tensor that [`serves`] allows; both of one type.
pub(crate) fn slope(activation: Activation, gradient: &Tensor, x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::BF16 => launch::<bf16>("slope_bf16", activation, &[x, gradient]),
        _ => launch::<f32>("slope_f32", activation, &[x, gradient]),
    }
}

fn launch<T: CudaDType + DeviceRepr>(kernel: &str, activation: Activation, inputs: &[&Tensor]) -> Result<Tensor> {
    let shape = inputs[0].shape();
    if inputs.iter().any(|input| input.shape() != shape) {
        return Err(Error::msg("an activation's gradient has another shape than its input").into());
    }
    let device = device_of(inputs[0])?;
    let (function, number) = (KERNELS.function(&device, kernel)?, number(activation)?);
    let contiguous = inputs.iter().map(|input| input.contiguous()).collect::<candle_core::Result<Vec<_>>>()?;
    let mut output = memory::<T>(&device, shape.elem_count())?;
    {
        let reads = contiguous.iter().map(|input| Read::new(input).map(Some)).collect::<Result<Vec<_>>>()?;
        let views = Read::views::<T>(&reads)?;
        let (stream, count) = (device.cuda_stream(), shape.elem_count() as u64);
        let mut launch = stream.launch_builder(&function);
        launch.arg(&count).arg(&number);
        for view in &views {
            super::pointer(&mut launch, view);
        }
        launch.arg(&mut output);
        let blocks = shape.elem_count().div_ceil(BLOCK).min(MOST_BLOCKS) as u32;
        // SAFETY: the arguments are those of the kernel, which reads and writes as many elements as all tensors have.
        unsafe {
            launch.launch(LaunchConfig {
                grid_dim: (blocks, 1, 1),
                block_dim: (BLOCK as u32, 1, 1),
                shared_mem_bytes: 0,
            })
        }
        .w()?;
    }
    Ok(tensor(&device, output, shape.clone()))
}
