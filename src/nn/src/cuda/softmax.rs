//! The softmax of attention scores by kernels of our own: one launch in each direction, with mask and relative positions.

use super::{Kernels, Read, count, device_of, memory, pointer, tensor, warp_per_row};
use crate::{NnError, Result};
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, PushKernelArg};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaDevice, DType, Tensor};
use half::bf16;

static KERNELS: Kernels =
    Kernels::new("attention's softmax", concat!(include_str!("elements.cuh"), include_str!("softmax.cu")));

/// Whether there are kernels for a tensor's device and element type.
pub(crate) fn serves(scores: &Tensor) -> bool {
    KERNELS.serve(scores) && scores.elem_count() > 0
}

/// The weights in single precision of scores `[item x head, query, key]`, which [`serves`] allows. Distances are
/// `[item x head, query, 2 time - 1]` in the type of the scores, the mask `[item, 1, query, key]` in single precision.
pub(crate) fn forward(
    scores: &Tensor,
    distances: Option<&Tensor>,
    mask: &Tensor,
    scale: f32,
    heads: usize,
) -> Result<Tensor> {
    let device = device_of(scores)?;
    match scores.dtype() {
        DType::BF16 => forward_of::<bf16>(&device, "forward_bf16", [Some(scores), distances], mask, scale, heads),
        _ => forward_of::<f32>(&device, "forward_f32", [Some(scores), distances], mask, scale, heads),
    }
}

fn forward_of<T: CudaDType + DeviceRepr>(
    device: &CudaDevice,
    kernel: &str,
    inputs: [Option<&Tensor>; 2],
    mask: &Tensor,
    scale: f32,
    heads: usize,
) -> Result<Tensor> {
    let (items, _, time, keys) = mask.dims4()?;
    let shape = (items * heads, time, keys);
    for (input, width) in inputs.into_iter().flatten().zip([time, 2 * time - 1]) {
        if keys != time || input.dims() != [items * heads, time, width] {
            return Err(NnError::shape("softmax", format!("[{}, {time}, {width}]", items * heads), input.dims()));
        }
    }
    let function = KERNELS.function(device, kernel)?;
    let mut weights = memory::<f32>(device, items * heads * time * time)?;
    {
        let (reads, mask) = (Read::all(inputs)?, Read::all([Some(mask)])?);
        let (views, mask) = (Read::views::<T>(&reads)?, Read::views::<f32>(&mask)?);
        let (rows, time, heads) = (count(items * heads * time)?, count(time)?, count(heads)?);
        let stream = device.cuda_stream();
        let mut launch = stream.launch_builder(&function);
        launch.arg(&rows).arg(&time).arg(&heads).arg(&scale);
        for view in &views {
            pointer(&mut launch, view);
        }
        pointer(&mut launch, &mask[0]);
        launch.arg(&mut weights);
        // SAFETY: the arguments are those of the kernel, and all tensors have the shapes that it reads and writes.
        unsafe { launch.launch(warp_per_row(rows)) }.w()?;
    }
    Ok(tensor(device, weights, shape))
}

/// The gradient of the scores in the type `dtype`, from that of the weights and the weights, both in single precision; and that of the
/// distances where there are some.
pub(crate) fn backward(
    gradient: &Tensor,
    weights: &Tensor,
    scale: f32,
    relative: bool,
    dtype: DType,
) -> Result<(Tensor, Option<Tensor>)> {
    let device = device_of(weights)?;
    match dtype {
        DType::BF16 => backward_of::<bf16>(&device, "backward_bf16", gradient, weights, scale, relative),
        _ => backward_of::<f32>(&device, "backward_f32", gradient, weights, scale, relative),
    }
}

fn backward_of<T: CudaDType + DeviceRepr>(
    device: &CudaDevice,
    kernel: &str,
    gradient: &Tensor,
    weights: &Tensor,
    scale: f32,
    relative: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let (batch, time, keys) = weights.dims3()?;
    if keys != time || gradient.dims() != weights.dims() {
        return Err(NnError::shape("softmax", format!("[{batch}, {time}, {time}]"), gradient.dims()));
    }
    let function = KERNELS.function(device, kernel)?;
    let mut slopes = memory::<T>(device, batch * time * time)?;
    let distances = 2 * time - 1;
    let mut of_distances = relative.then(|| memory::<T>(device, batch * time * distances)).transpose()?;
    {
        let reads = Read::all([Some(weights), Some(gradient)])?;
        let views = Read::views::<f32>(&reads)?;
        let (rows, time) = (count(batch * time)?, count(time)?);
        let stream = device.cuda_stream();
        let mut launch = stream.launch_builder(&function);
        launch.arg(&rows).arg(&time).arg(&scale);
        for view in &views {
            pointer(&mut launch, view);
        }
        launch.arg(&mut slopes);
        match &mut of_distances {
            Some(memory) => launch.arg(memory),
            None => launch.arg(super::NULL),
        };
        // SAFETY: as in the forward pass.
        unsafe { launch.launch(warp_per_row(rows)) }.w()?;
    }
    let of_distances = of_distances.map(|memory| tensor(device, memory, (batch, time, distances)));
    Ok((tensor(device, slopes, (batch, time, time)), of_distances))
}
