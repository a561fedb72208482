//! Frozen weights that stay in their file, as tensors.

use crate::{NnError, Precision, Result, host};
use candle_core::{DType, Device, Tensor};
use flowmill_weights::{ElementType, MappedTensor};
use rayon::prelude::*;

/// Elements converted per task.
const TASK: usize = 1 << 16;

/// Returns all elements in single precision, on the host, rounded to a number format.
pub(crate) fn read(weight: &MappedTensor, precision: Precision) -> Result<Tensor> {
    let mut elements = vec![0.0; weight.count()];
    elements.par_chunks_mut(TASK).enumerate().for_each(|(task, out)| weight.copy_to(task * TASK, out));
    precision.round(&mut elements);
    host::tensor(elements, weight.shape())
}

/// Returns some of the rows of `[entry, channel]`, as `[index, channel]`, rounded to a number format.
pub(crate) fn read_rows(weight: &MappedTensor, indices: &[u32], precision: Precision) -> Result<Tensor> {
    let &[entries, width] = weight.shape() else {
        return Err(NnError::shape("embedding", "[entry, channel]", weight.shape()));
    };
    if let Some(index) = indices.iter().find(|index| **index as usize >= entries) {
        return Err(NnError::Index { operation: "embedding", index: i64::from(*index), size: entries });
    }
    let mut rows = vec![0.0; indices.len() * width];
    for (out, index) in rows.chunks_exact_mut(width.max(1)).zip(indices) {
        weight.copy_to(*index as usize * width, out);
    }
    precision.round(&mut rows);
    host::tensor(rows, &[indices.len(), width])
}

/// Copies the elements to a device, 16-bit floats as such.
pub(crate) fn to_device(weight: &MappedTensor, device: &Device) -> Result<Tensor> {
    let dtype = match weight.element() {
        ElementType::BF16 => DType::BF16,
        ElementType::F16 => DType::F16,
        _ => return Ok(read(weight, Precision::Fp32)?.to_device(device)?),
    };
    Ok(Tensor::from_raw_buffer(weight.bytes(), dtype, weight.shape(), device)?)
}
