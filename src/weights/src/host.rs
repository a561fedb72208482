//! Elements of tensors on the host.

use candle_core::{DType, Device, Storage, Tensor};

use crate::{Result, WeightError};

/// Copies a tensor from any device and float type to the host as contiguous `f32`; a clone if it is that already.
pub(crate) fn fetch(tensor: &Tensor) -> Result<Tensor> {
    // A view is made contiguous first, because a copy from a device would take the whole tensor behind the view.
    Ok(tensor.contiguous()?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?)
}

/// Calls `read` with the elements of a contiguous `f32` tensor of the CPU, in row-major order.
pub(crate) fn with_floats<T>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((start, end))) if tensor.dtype() == DType::F32 => {
            Ok(read(&storage.as_slice::<f32>()?[start..end]))
        }
        _ => Err(WeightError::NotOnHost),
    }
}
