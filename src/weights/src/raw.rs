//! A tensor with exactly the bytes of its file, for copying it unchanged.

use super::ElementType;
use crate::{Result, WeightError, host};
use candle_core::{Device, Tensor};

/// A tensor as stored: row-major, little-endian, in its own element type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTensor {
    element: ElementType,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl RawTensor {
    /// Creates a tensor from `data`, row-major and little-endian.
    ///
    /// # Errors
    /// When the number of bytes does not match the shape.
    pub fn new(element: ElementType, shape: Vec<usize>, data: Vec<u8>) -> Result<Self> {
        let bytes = shape.iter().try_fold(element.size(), |product, size| product.checked_mul(*size));
        if bytes != Some(data.len()) {
            return Err(WeightError::Size { bytes: data.len(), element, shape });
        }
        Ok(Self { element, shape, data })
    }

    /// Creates a tensor from the elements of an `f32` tensor.
    ///
    /// # Errors
    /// When it is not a contiguous `f32` tensor on the CPU.
    pub fn of_floats(tensor: &Tensor) -> Result<Self> {
        let data = host::with_floats(tensor, |elements| {
            let mut data = vec![0; size_of_val(elements)];
            data.chunks_exact_mut(size_of::<f32>())
                .zip(elements)
                .for_each(|(word, element)| word.copy_from_slice(&element.to_le_bytes()));
            data
        })?;
        Self::new(ElementType::F32, tensor.dims().to_vec(), data)
    }

    /// The type of its elements.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, row-major and little-endian.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Converts to an `f32` tensor; `None` for integers. Wider and narrower floats are converted.
    ///
    /// # Errors
    /// When candle rejects the shape.
    pub fn to_floats(&self) -> Option<Result<Tensor>> {
        let elements: Vec<f32> = match self.element {
            ElementType::F32 => words(&self.data).map(f32::from_le_bytes).collect(),
            ElementType::F64 => words(&self.data).map(|word| f64::from_le_bytes(word) as f32).collect(),
            ElementType::F16 => words(&self.data).map(|word| half::f16::from_le_bytes(word).to_f32()).collect(),
            ElementType::BF16 => words(&self.data).map(|word| half::bf16::from_le_bytes(word).to_f32()).collect(),
            _ => return None,
        };
        Some(Tensor::from_vec(elements, self.shape.as_slice(), &Device::Cpu).map_err(WeightError::from))
    }

    /// Converts to an `i64` tensor; `None` for floats. Booleans are 0 and 1.
    ///
    /// # Errors
    /// When candle rejects the shape.
    pub fn to_integers(&self) -> Option<Result<Tensor>> {
        let elements: Vec<i64> = match self.element {
            ElementType::I64 => words(&self.data).map(i64::from_le_bytes).collect(),
            ElementType::I32 => words(&self.data).map(|word| i64::from(i32::from_le_bytes(word))).collect(),
            ElementType::I16 => words(&self.data).map(|word| i64::from(i16::from_le_bytes(word))).collect(),
            ElementType::I8 => words(&self.data).map(|word| i64::from(i8::from_le_bytes(word))).collect(),
            ElementType::U8 => self.data.iter().map(|byte| i64::from(*byte)).collect(),
            ElementType::Bool => self.data.iter().map(|byte| i64::from(*byte != 0)).collect(),
            _ => return None,
        };
        Some(Tensor::from_vec(elements, self.shape.as_slice(), &Device::Cpu).map_err(WeightError::from))
    }
}

fn words<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    data.chunks_exact(N).map(|chunk| {
        let mut word = [0; N];
        word.copy_from_slice(chunk);
        word
    })
}
