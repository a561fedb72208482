//! Frozen weights that stay in their file, as tensors.

use crate::host::HostSlice;
use crate::kernels::file_matrix::FileMatrix;
use crate::kernels::gemm::{Factor, Matrix};
use crate::{NnError, Precision, Result, Value, host};
use candle_core::{DType, Device, Tensor};
use flowmill_weights::{ElementType, MappedTensor};
use rayon::prelude::*;
use std::sync::OnceLock;

/// Elements converted per task.
const TASK: usize = 1 << 16;

/// A weight in its file, in the number format of a computation. Products read it block by block ([`Weight`]); other operations have a copy
/// of all elements.
#[derive(Debug)]
pub(crate) struct Stored {
    weight: MappedTensor,
    precision: Precision,
    copy: OnceLock<Tensor>,
}

impl Stored {
    pub(crate) fn new(weight: MappedTensor, precision: Precision) -> Self {
        Self { weight, precision, copy: OnceLock::new() }
    }

    /// All elements, in memory as long as this lives.
    pub(crate) fn copy(&self) -> &Tensor {
        // A mapped tensor has exactly the elements of its shape.
        self.copy.get_or_init(|| read(&self.weight, self.precision).expect("a file has the elements of its shape"))
    }

    /// The same elements in another shape; `None` if it has another number of elements.
    pub(crate) fn with_shape(&self, shape: &[usize]) -> Option<Self> {
        Some(Self::new(self.weight.with_shape(shape.to_vec())?, self.precision))
    }

    /// A tensor of its shape that has one element in memory.
    pub(crate) fn shape_only(&self) -> Result<Tensor> {
        shape_only(self.weight.shape())
    }
}

/// Returns a tensor of a shape that has one element in memory.
pub(crate) fn shape_only(shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::zeros((), DType::F32, &Device::Cpu)?.broadcast_as(shape)?)
}

/// The elements of a weight as a kernel reads them.
pub(crate) enum Weight<'a> {
    Tensor(HostSlice<'a>),
    Slice(&'a [f32]),
    File(&'a Stored),
}

impl<'a> Weight<'a> {
    /// The elements of a value.
    ///
    /// # Errors
    /// When they are neither in a file nor contiguous `f32` numbers on the CPU.
    pub(crate) fn of(operation: &'static str, value: &'a Value) -> Result<Self> {
        match value.stored() {
            Some(stored) => Ok(Self::File(stored)),
            None => Ok(Self::Tensor(host::slice(operation, value.tensor())?)),
        }
    }

    /// The elements as a row-major matrix.
    pub(crate) fn matrix(&self, rows: usize, columns: usize, precision: Precision) -> Factor<'_> {
        let elements: &[f32] = match self {
            Self::Tensor(elements) => elements,
            Self::Slice(elements) => elements,
            Self::File(stored) => {
                return Factor::File(FileMatrix::new(&stored.weight, rows, columns, stored.precision));
            }
        };
        Factor::Memory(Matrix::row_major(elements, rows, columns).of(precision))
    }

    /// Some of the elements in order, from `first` on; `buffer` holds them if they are converted.
    pub(crate) fn run<'b>(&'b self, first: usize, count: usize, buffer: &'b mut Vec<f32>) -> &'b [f32] {
        match self {
            Self::Tensor(elements) => &elements[first..first + count],
            Self::Slice(elements) => &elements[first..first + count],
            Self::File(stored) => {
                buffer.resize(count, 0.0);
                stored.weight.copy_to(first, buffer);
                stored.precision.round_here(buffer);
                buffer
            }
        }
    }
}

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
