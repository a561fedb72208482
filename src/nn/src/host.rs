//! Contiguous `f32` slices of candle's CPU storage, which let kernels read and write tensors without copies; copies from devices.

use crate::{NnError, Result, Value};
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Storage, StorageRef, Tensor};
use std::cell::RefCell;
use std::ops::{Deref, Range};

/// A read lock on the elements of a contiguous `f32` CPU tensor, in row-major order.
pub struct HostSlice<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
}

impl Deref for HostSlice<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(elements)) => &elements[self.range.clone()],
            // `slice` rejects every other storage before a `HostSlice` exists.
            _ => &[],
        }
    }
}

fn unsupported(operation: &'static str, tensor: &Tensor) -> NnError {
    let device = match tensor.device() {
        Device::Cpu => "the CPU (strided)".to_owned(),
        other => format!("{:?}", other.location()),
    };
    NnError::Unsupported { operation, dtype: tensor.dtype(), device }
}

/// The elements of a contiguous `f32` CPU tensor.
///
/// # Errors
/// [`NnError::Unsupported`] for another element type, device, or a strided view.
pub fn slice<'a>(operation: &'static str, tensor: &'a Tensor) -> Result<HostSlice<'a>> {
    let (storage, layout) = tensor.storage_and_layout();
    let range = layout.contiguous_offsets();
    match (&*storage, range) {
        (Storage::Cpu(CpuStorage::F32(_)), Some((start, end))) => Ok(HostSlice { storage, range: start..end }),
        _ => Err(unsupported(operation, tensor)),
    }
}

/// Returns the tensor with `f32` elements in row-major order; a clone if it has them already.
///
/// # Errors
/// When candle cannot convert it.
pub fn contiguous(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.to_dtype(DType::F32)?.contiguous()?)
}

/// Copies the tensor to the host, with `f32` elements in row-major order, from any device and float type. A clone if it is that already.
///
/// # Errors
/// When candle cannot copy or convert it.
pub fn fetch(tensor: &Tensor) -> Result<Tensor> {
    // A view is made contiguous first, because a copy from a device would take the whole tensor behind the view.
    contiguous(&tensor.contiguous()?.to_device(&Device::Cpu)?)
}

/// The elements of a tensor of any device and float type, in row-major order.
///
/// # Errors
/// When candle cannot copy or convert it.
pub fn read(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(slice("reading", &fetch(tensor)?)?.to_vec())
}

/// Reads the only element of each scalar, such as the parts of a loss, in one copy from a device.
///
/// # Errors
/// When one of them has more than one element.
pub fn scalars(values: &[&Value]) -> Result<Vec<f32>> {
    if values.iter().all(|value| value.tensor().device().is_cpu()) {
        return values.iter().map(|value| value.scalar()).collect();
    }
    let scalar = |value: &&Value| Ok(value.tensor().reshape(())?.to_dtype(DType::F32)?);
    let scalars = values.iter().map(scalar).collect::<Result<Vec<_>>>()?;
    read(&Tensor::stack(&scalars, 0)?)
}

/// Wraps elements as a CPU tensor without copying them.
///
/// # Errors
/// When the number of elements does not match the shape.
pub fn tensor(elements: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_vec(elements, shape, &Device::Cpu)?)
}

/// Allocates `count` elements that a kernel is about to write. The memory is not zeroed: in a kernel that does little, zeroing costs as
/// much as the kernel itself. Only kernels that write every element by construction use it; all others start from zeros.
///
/// # Safety
/// Every element must be written before anything reads it, and before the vector leaves the calling function.
pub(crate) unsafe fn uninitialized(count: usize) -> Vec<f32> {
    let mut elements = Vec::<f32>::with_capacity(count);
    if cfg!(debug_assertions) {
        // Debug builds fill it with NaN, so that reading an unwritten element is noticed.
        elements.resize(count, f32::NAN);
        return elements;
    }
    // SAFETY: the capacity was just reserved, and f32 has no drop; the caller writes each element before reading it.
    #[allow(clippy::uninit_vec)]
    unsafe {
        elements.set_len(count);
    }
    elements
}

struct Modify<F>(RefCell<Option<F>>);

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Modify<F> {
    fn name(&self) -> &'static str {
        "modify"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(elements) = storage else {
            candle_core::bail!("modify: not an f32 tensor");
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("modify: not a contiguous tensor");
        };
        if let Some(change) = self.0.borrow_mut().take() {
            change(&mut elements[start..end]);
        }
        Ok(())
    }
}

/// Changes the elements of a contiguous `f32` CPU tensor in place. Every clone and view of the tensor sees the change, so
/// the caller must be its only logical owner (an optimizer for its parameters and moments, the tape for its gradients).
///
/// # Errors
/// For another element type, device, or a strided view.
pub fn modify(tensor: &Tensor, change: impl FnOnce(&mut [f32])) -> Result<()> {
    tensor.inplace_op1(&Modify(RefCell::new(Some(change))))?;
    Ok(())
}
