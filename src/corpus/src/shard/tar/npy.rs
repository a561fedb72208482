//! Arrays of numbers as NumPy's `.npy`, version 1.0, in row-major order.

use half::f16;

use crate::{Array, ArrayData};

const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
/// The position at which the header's text begins.
const TEXT: usize = MAGIC.len() + 2;
/// The unit of alignment of the content.
const ALIGNMENT: usize = 64;
/// The largest number of axes of an array in a shard.
const MAX_AXES: usize = 16;

/// Encodes an array as a file; `None` for strings, or for more axes than [`MAX_AXES`].
pub(super) fn encode(array: &Array) -> Option<Vec<u8>> {
    fn bytes<T: Copy, const N: usize>(values: &[T], to_bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(|&value| to_bytes(value)).collect()
    }
    let (kind, content): (&str, Vec<u8>) = match array.data() {
        ArrayData::F16(values) => ("<f2", bytes(values, f16::to_le_bytes)),
        ArrayData::F32(values) => ("<f4", bytes(values, f32::to_le_bytes)),
        ArrayData::F64(values) => ("<f8", bytes(values, f64::to_le_bytes)),
        ArrayData::I32(values) => ("<i4", bytes(values, i32::to_le_bytes)),
        ArrayData::I64(values) => ("<i8", bytes(values, i64::to_le_bytes)),
        ArrayData::U8(values) => ("|u1", values.clone()),
        ArrayData::Text(_) | ArrayData::Bytes(_) => return None,
    };
    if array.shape().len() > MAX_AXES {
        return None;
    }
    let sizes: Vec<String> = array.shape().iter().map(usize::to_string).collect();
    // Python's tuples: `()`, `(3,)`, `(3, 4)`.
    let comma = if sizes.len() == 1 { "," } else { "" };
    let sizes = sizes.join(", ");
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({sizes}{comma}), }}");
    let length = (TEXT + text.len() + 1).next_multiple_of(ALIGNMENT) - TEXT;
    text.extend(std::iter::repeat_n(' ', length - text.len() - 1));
    text.push('\n');
    // Sixteen numbers of at most twenty digits each: far less than 65,536 bytes.
    let length = (length as u16).to_le_bytes();
    Some([MAGIC, &length, text.as_bytes(), &content].concat())
}

/// Decodes a file that [`encode`] made.
pub(super) fn decode(bytes: &[u8]) -> Result<Array, String> {
    fn numbers<T, const N: usize>(content: &[u8], of_bytes: impl Fn([u8; N]) -> T) -> Vec<T> {
        // An incomplete number at the end makes too few of them for the shape, or is reported below.
        content.as_chunks::<N>().0.iter().map(|&bytes| of_bytes(bytes)).collect()
    }
    let parsed = header(bytes).and_then(|(text, content)| Some((shape(text)?, kind(text)?, content)));
    let Some((shape, kind, content)) = parsed else {
        return Err("is not a NumPy array of numbers in row-major order".into());
    };
    let (data, width) = match kind {
        "<f2" => (ArrayData::F16(numbers(content, f16::from_le_bytes)), 2),
        "<f4" => (ArrayData::F32(numbers(content, f32::from_le_bytes)), 4),
        "<f8" => (ArrayData::F64(numbers(content, f64::from_le_bytes)), 8),
        "<i4" => (ArrayData::I32(numbers(content, i32::from_le_bytes)), 4),
        "<i8" => (ArrayData::I64(numbers(content, i64::from_le_bytes)), 8),
        "|u1" => (ArrayData::U8(content.to_vec()), 1),
        other => return Err(format!("is a NumPy array of the type {other}")),
    };
    if content.len() % width != 0 {
        return Err(format!("ends within a value, after {} bytes", content.len()));
    }
    Array::from_data(shape, data).map_err(|error| error.to_string())
}

/// The header's text and the content.
fn header(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (text, content) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let text = std::str::from_utf8(text).ok()?;
    text.contains("'fortran_order': False").then_some((text, content))
}

/// The type of `'descr': '<f4'`.
fn kind(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("'descr': '")?;
    rest.split_once('\'').map(|(kind, _)| kind)
}

/// The numbers of `'shape': (200, 80)`.
fn shape(text: &str) -> Option<Vec<usize>> {
    let (_, shape) = text.split_once("'shape': (")?;
    let sizes = shape.split_once(')')?.0.trim_end_matches(',');
    if sizes.is_empty() {
        return Some(Vec::new());
    }
    let sizes: Option<Vec<usize>> = sizes.split(", ").map(|size| size.parse().ok()).collect();
    sizes.filter(|sizes| sizes.len() <= MAX_AXES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_come_back_and_damage_is_an_error() {
        let arrays = [
            Array::new(vec![4, 3], (0..12).map(|value| f16::from_f32(value as f32 / 4.0)).collect()).unwrap(),
            Array::new(vec![2, 2, 3], (0..12).map(|value| value as f32 / 4.0).collect()).unwrap(),
            Array::vector(vec![0.1f64, f64::NEG_INFINITY]),
            Array::vector(vec![-1i32]),
            Array::new(vec![2, 2], vec![i64::MIN, -1, 0, i64::MAX]).unwrap(),
            Array::vector(vec![7u8, 255]),
            Array::scalar(0.25f64),
        ];
        for array in arrays {
            let bytes = encode(&array).unwrap();
            assert_eq!(decode(&bytes).unwrap(), array);
            for cut in 0..bytes.len() {
                assert!(decode(&bytes[..cut]).is_err(), "{cut}");
            }
        }
        assert!(encode(&Array::text("a")).is_none());
    }
}
