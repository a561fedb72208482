//! Layer normalization by kernels of our own: one launch forward, one backward for the input and two for weight and bias.

use super::{Kernels, Read, count, device_of, memory, pointer, tensor, warp_per_row};
use crate::Result;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaDevice, DType, Tensor};
use half::bf16;

static KERNELS: Kernels =
    Kernels::new("layer norm", concat!(include_str!("elements.cuh"), include_str!("layer_norm.cu")));

/// Rows that one block sums for the gradients of weight and bias, at least.
const SHARE: usize = 128;
/// The most blocks that share the rows of 32 columns.
const MOST_SHARES: usize = 64;

/// What the forward pass gives.
pub(crate) struct Forward {
    /// The output in the type of the input.
    pub(crate) output: Tensor,
    /// `(x - mean) / deviation` in single precision.
    pub(crate) normal: Tensor,
    /// `1 / deviation` of each row, in single precision.
    pub(crate) scale: Tensor,
}

/// Whether there are kernels for a tensor's device and element type.
pub(crate) fn serves(tensor: &Tensor) -> bool {
    KERNELS.serve(tensor)
}

/// Normalizes the rows of `x` `[row, channel]`, which [`serves`] allows; weight and bias are of its type.
pub(crate) fn forward(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, epsilon: f32) -> Result<Forward> {
    let device = device_of(x)?;
    match x.dtype() {
        DType::BF16 => forward_of::<bf16>(&device, "forward_bf16", [Some(x), weight, bias], epsilon),
        _ => forward_of::<f32>(&device, "forward_f32", [Some(x), weight, bias], epsilon),
    }
}

fn forward_of<T: CudaDType + DeviceRepr>(
    device: &CudaDevice,
    kernel: &str,
    inputs: [Option<&Tensor>; 3],
    epsilon: f32,
) -> Result<Forward> {
    let (rows, width) = inputs[0].map_or(Ok((0, 0)), Tensor::dims2)?;
    let function = KERNELS.function(device, kernel)?;
    let mut output = memory::<T>(device, rows * width)?;
    let (mut normal, mut scale) = (memory::<f32>(device, rows * width)?, memory::<f32>(device, rows)?);
    {
        let reads = Read::all(inputs)?;
        let views = Read::views::<T>(&reads)?;
        let (row_count, width) = (count(rows)?, count(width)?);
        let stream = device.cuda_stream();
        let mut launch = stream.launch_builder(&function);
        launch.arg(&row_count).arg(&width).arg(&epsilon);
        for view in &views {
            pointer(&mut launch, view);
        }
        launch.arg(&mut output).arg(&mut normal).arg(&mut scale);
        // SAFETY: the arguments are those of the kernel, and all pointers are to memory of the sizes that it reads and writes.
        unsafe { launch.launch(warp_per_row(row_count)) }.w()?;
    }
    Ok(Forward {
        output: tensor(device, output, (rows, width)),
        normal: tensor(device, normal, (rows, width)),
        scale: tensor(device, scale, (rows, 1)),
    })
}

/// The gradient of the input from `dy` `[row, channel]` and what [`forward`] gave; `weight` in the type of `dy`.
pub(crate) fn input_gradient(dy: &Tensor, normal: &Tensor, scale: &Tensor, weight: Option<&Tensor>) -> Result<Tensor> {
    let device = device_of(dy)?;
    match dy.dtype() {
        DType::BF16 => input_gradient_of::<bf16>(&device, "input_gradient_bf16", [Some(dy), weight], [normal, scale]),
        _ => input_gradient_of::<f32>(&device, "input_gradient_f32", [Some(dy), weight], [normal, scale]),
    }
}

fn input_gradient_of<T: CudaDType + DeviceRepr>(
    device: &CudaDevice,
    kernel: &str,
    inputs: [Option<&Tensor>; 2],
    statistics: [&Tensor; 2],
) -> Result<Tensor> {
    let (rows, width) = statistics[0].dims2()?;
    let function = KERNELS.function(device, kernel)?;
    let mut output = memory::<T>(device, rows * width)?;
    {
        let (reads, statistics) = (Read::all(inputs)?, Read::all(statistics.map(Some))?);
        let (views, statistics) = (Read::views::<T>(&reads)?, Read::views::<f32>(&statistics)?);
        let (row_count, width) = (count(rows)?, count(width)?);
        let stream = device.cuda_stream();
        let mut launch = stream.launch_builder(&function);
        launch.arg(&row_count).arg(&width);
        pointer(&mut launch, &views[0]);
        pointer(&mut launch, &statistics[0]);
        pointer(&mut launch, &statistics[1]);
        pointer(&mut launch, &views[1]);
        launch.arg(&mut output);
        // SAFETY: as in the forward pass.
        unsafe { launch.launch(warp_per_row(row_count)) }.w()?;
    }
    Ok(tensor(device, output, (rows, width)))
}

/// The gradients of weight and bias in single precision, from `dy` `[row, channel]` and what [`forward`] gave.
pub(crate) fn parameter_gradients(dy: &Tensor, normal: &Tensor) -> Result<[Tensor; 2]> {
    let device = device_of(dy)?;
    let sums = match dy.dtype() {
        DType::BF16 => parameter_gradients_of::<bf16>(&device, "parameter_gradients_bf16", dy, normal)?,
        _ => parameter_gradients_of::<f32>(&device, "parameter_gradients_f32", dy, normal)?,
    };
    Ok([sums.get(0)?, sums.get(1)?])
}

fn parameter_gradients_of<T: CudaDType + DeviceRepr>(
    device: &CudaDevice,
    kernel: &str,
    dy: &Tensor,
    normal: &Tensor,
) -> Result<Tensor> {
    let (rows, width) = normal.dims2()?;
    let shares = rows.div_ceil(SHARE).clamp(1, MOST_SHARES);
    let [by_share, total] = [kernel, "sum_shares"].map(|kernel| KERNELS.function(device, kernel));
    let (by_share, total) = (by_share?, total?);
    let stream = device.cuda_stream();
    let (mut partial, mut sums) = (memory::<f32>(device, shares * 2 * width)?, memory::<f32>(device, 2 * width)?);
    let (row_count, columns, shares, size) = (count(rows)?, count(width)?, count(shares)?, count(2 * width)?);
    {
        let reads = Read::all([Some(dy), Some(normal)])?;
        let (dy, normal) = (Read::views::<T>(&reads[..1])?, Read::views::<f32>(&reads[1..])?);
        let mut launch = stream.launch_builder(&by_share);
        launch.arg(&row_count).arg(&columns);
        pointer(&mut launch, &dy[0]);
        pointer(&mut launch, &normal[0]);
        launch.arg(&mut partial);
        let grid_dim = (columns.div_ceil(32), shares, 1);
        // SAFETY: as in the forward pass; `partial` has two rows for each share.
        unsafe { launch.launch(LaunchConfig { grid_dim, block_dim: (32, 8, 1), shared_mem_bytes: 0 }) }.w()?;
    }
    let mut launch = stream.launch_builder(&total);
    launch.arg(&shares).arg(&size).arg(&partial).arg(&mut sums);
    let grid_dim = (size.div_ceil(256), 1, 1);
    // SAFETY: as above.
    unsafe { launch.launch(LaunchConfig { grid_dim, block_dim: (256, 1, 1), shared_mem_bytes: 0 }) }.w()?;
    Ok(tensor(device, sums, (2, width)))
}
