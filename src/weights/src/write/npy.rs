//! Writing NumPy's `.npy`, version 1.

use crate::npy::MAGIC;
use crate::{RawTensor, Result, file_error, host, refuse_non_finite};
use candle_core::Tensor;
use std::path::Path;

/// Alignment of the elements, as in NumPy.
const ALIGNMENT: usize = 64;
/// Bytes before the text of the header: the magic, the version and the length.
const PREFIX: usize = MAGIC.len() + 4;

/// Writes one `f32` tensor from any device as a NumPy array, which `numpy.load` reads.
///
/// # Errors
/// When the tensor is not finite, before anything is written, or the file cannot be written.
pub fn write_npy(path: &Path, tensor: &Tensor) -> Result<()> {
    let tensor = host::fetch(tensor)?;
    refuse_non_finite(&tensor, "array").map_err(|fault| file_error(path, fault))?;
    let raw = RawTensor::of_floats(&tensor)?;
    let mut bytes = header(raw.shape());
    bytes.extend_from_slice(raw.data());
    std::fs::write(path, bytes).map_err(|error| file_error(path, error))
}

/// Returns everything before the elements.
fn header(shape: &[usize]) -> Vec<u8> {
    // A tuple of one element needs the comma.
    let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", sizes.trim_end());
    let length = (PREFIX + text.len() + 1).next_multiple_of(ALIGNMENT) - PREFIX;
    text.extend(std::iter::repeat_n(' ', length - text.len() - 1));
    text.push('\n');
    // A tensor has few axes, so this fits.
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes();
    [MAGIC, &[1, 0], &length, text.as_bytes()].concat()
}
