//! A tensor in a file: its start, strides and byte order. Elements are read on demand.

use super::source::Source;
use super::{ElementType, Parsed, RawTensor};
use crate::fault::Fault;
use std::sync::Arc;

/// Largest number of dimensions.
const MOST_DIMENSIONS: usize = 64;

/// A tensor of a weight file that has not been read yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorView {
    element: ElementType,
    shape: Vec<usize>,
    strides: Vec<u64>,
    count: u64,
    place: Place,
    big_endian: bool,
}

/// Position of the elements.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    /// Starting at byte `start`, in one of the files that are read together.
    File { file: u32, start: u64 },
    /// In memory, because they were already read from the file.
    Memory(Arc<[u8]>),
}

impl TensorView {
    /// A row-major tensor starting at byte `start` of the file, within `room` bytes.
    pub(crate) fn contiguous(element: ElementType, shape: Vec<usize>, start: u64, room: u64) -> Parsed<Self> {
        let strides = row_major(&shape)?;
        Self::strided(element, shape, strides, start, room)
    }

    /// A tensor whose element `i, j, …` is `strides · (i, j, …)` elements after byte `start`, all within `room` bytes.
    pub(crate) fn strided(
        element: ElementType,
        shape: Vec<usize>,
        strides: Vec<u64>,
        start: u64,
        room: u64,
    ) -> Parsed<Self> {
        if shape.len() > MOST_DIMENSIONS || shape.len() != strides.len() {
            return Err(format!("{} dimensions and {} strides", shape.len(), strides.len()).into());
        }
        let count = count(&shape)?;
        let strides = plain_strides(&shape, strides)?;
        let view = Self { element, shape, strides, count, place: Place::File { file: 0, start }, big_endian: false };
        let needed = view.extent().and_then(|extent| extent.checked_mul(element.size() as u64));
        match needed {
            Some(needed) if needed <= room => Ok(view),
            _ => Err(format!(
                "{element} of shape {:?} with strides {:?} reaches beyond its {room} bytes",
                view.shape, view.strides
            )
            .into()),
        }
    }

    /// A tensor whose elements, exactly those of its shape, are already in memory.
    pub(crate) fn in_memory(
        element: ElementType,
        shape: Vec<usize>,
        strides: Vec<u64>,
        data: Arc<[u8]>,
    ) -> Parsed<Self> {
        let view = Self::strided(element, shape, strides, 0, data.len() as u64)?;
        if view.byte_count() != data.len() as u64 {
            return Err(format!("{} bytes for {element} of shape {:?}", data.len(), view.shape).into());
        }
        Ok(Self { place: Place::Memory(data), ..view })
    }

    /// Returns the same tensor in another of the files that are read together.
    pub(crate) fn in_file(mut self, number: u32) -> Self {
        if let Place::File { file, .. } = &mut self.place {
            *file = number;
        }
        self
    }

    /// Returns the position of its bytes: the number of the file and the first byte; `None` if they are in memory.
    pub(crate) fn file(&self) -> Option<(u32, u64)> {
        match self.place {
            Place::File { file, start } => Some((file, start)),
            Place::Memory(_) => None,
        }
    }

    /// Returns whether its elements are already in memory.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.place, Place::Memory(_))
    }

    /// Returns the tensor with elements whose first byte is the most significant.
    pub(crate) fn big_endian(mut self) -> Self {
        self.big_endian = true;
        self
    }

    /// The type of its elements.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the number of its elements.
    pub fn element_count(&self) -> u64 {
        self.count
    }

    /// Returns its size in bytes when read.
    pub fn byte_count(&self) -> u64 {
        self.count.saturating_mul(self.element.size() as u64)
    }

    /// Reads its elements from the files that are read together.
    pub(crate) fn read(&self, sources: &mut [Source<'_>]) -> Parsed<RawTensor> {
        let extent = self.extent().unwrap_or(u64::MAX);
        let mut data = match &self.place {
            Place::Memory(data) => data.to_vec(),
            Place::File { file, start } => {
                let source = sources.get_mut(*file as usize).ok_or("it is in a file that is not open")?;
                source.bytes_at(*start, extent.saturating_mul(self.element.size() as u64))?
            }
        };
        if row_major(&self.shape)? != self.strides {
            data = self.gather(&data)?;
        }
        if self.big_endian {
            data.chunks_exact_mut(self.element.size()).for_each(<[u8]>::reverse);
        }
        if self.element == ElementType::Bool
            && let Some(byte) = data.iter().find(|byte| **byte > 1)
        {
            return Err(format!("a boolean that is {byte}").into());
        }
        RawTensor::new(self.element, self.shape.clone(), data).map_err(|error| error.to_string().into())
    }

    /// Returns the number of elements from the first to the last, both included.
    fn extent(&self) -> Option<u64> {
        if self.count == 0 {
            return Some(0);
        }
        let steps = self.shape.iter().zip(&self.strides);
        steps
            .map(|(size, stride)| (*size as u64 - 1).checked_mul(*stride))
            .try_fold(1u64, |sum, step| sum.checked_add(step?))
    }

    /// Copies strided elements into row-major order.
    fn gather(&self, data: &[u8]) -> Parsed<Vec<u8>> {
        let size = self.element.size();
        let mut gathered = Vec::new();
        let room = usize::try_from(self.byte_count()).map_err(|_| Fault::too_large("it does not fit into memory"))?;
        gathered
            .try_reserve_exact(room)
            .map_err(|_| Fault::too_large(format!("{room} bytes do not fit into memory")))?;
        let mut index = vec![0usize; self.shape.len()];
        let mut place = 0u64;
        for _ in 0..self.count {
            // `extent` limits every position to the length of `data`.
            let at = place as usize * size;
            gathered.extend_from_slice(&data[at..at + size]);
            for axis in (0..self.shape.len()).rev() {
                index[axis] += 1;
                place = place.wrapping_add(self.strides[axis]);
                if index[axis] < self.shape[axis] {
                    break;
                }
                place = place.wrapping_sub(self.strides[axis].wrapping_mul(index[axis] as u64));
                index[axis] = 0;
            }
        }
        Ok(gathered)
    }
}

/// Returns the strides of a row-major tensor, also of one without elements.
pub(crate) fn row_major(shape: &[usize]) -> Parsed<Vec<u64>> {
    let mut strides = vec![1u64; shape.len()];
    for axis in (1..shape.len()).rev() {
        let stride = strides[axis].checked_mul(shape[axis].max(1) as u64);
        strides[axis - 1] = stride.ok_or_else(|| format!("a shape of {shape:?}"))?;
    }
    Ok(strides)
}

/// Returns the strides of a tensor whose first index runs fastest.
pub(crate) fn column_major(shape: &[usize]) -> Parsed<Vec<u64>> {
    let reversed: Vec<usize> = shape.iter().rev().copied().collect();
    Ok(row_major(&reversed)?.into_iter().rev().collect())
}

/// Replaces strides that no element depends on (of axes of size 1, of tensors without elements) by those of row-major order.
fn plain_strides(shape: &[usize], mut strides: Vec<u64>) -> Parsed<Vec<u64>> {
    let row_major = row_major(shape)?;
    let empty = shape.contains(&0);
    for (axis, stride) in strides.iter_mut().enumerate() {
        if empty || shape[axis] == 1 {
            *stride = row_major[axis];
        }
    }
    Ok(strides)
}

/// Returns the number of elements; fails if the dimensions multiply beyond 2^63, even if one of them is 0.
fn count(shape: &[usize]) -> Parsed<u64> {
    let product = shape.iter().try_fold(1u64, |product, size| product.checked_mul((*size).max(1) as u64));
    match product {
        Some(product) if product <= i64::MAX as u64 => Ok(if shape.contains(&0) { 0 } else { product }),
        _ => Err(format!("a shape of {shape:?}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn views_are_gathered_and_may_not_reach_beyond_their_storage() {
        let bytes: Vec<u8> = (0..12).collect();
        let mut source = [Source::of_bytes(&bytes, Path::new("x"))];
        let view = TensorView::strided(ElementType::U8, vec![4, 3], vec![1, 4], 0, 12).unwrap();
        assert_eq!(view.read(&mut source).unwrap().data(), [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
        let view = TensorView::strided(ElementType::I16, vec![2], vec![2], 2, 6).unwrap().big_endian();
        assert_eq!(view.read(&mut source).unwrap().data(), [3, 2, 7, 6]);
        assert!(TensorView::strided(ElementType::U8, vec![4, 3], vec![1, 4], 0, 11).is_err());
        assert!(TensorView::strided(ElementType::U8, vec![2, usize::MAX], vec![u64::MAX, 1], 0, 12).is_err());
        assert!(TensorView::contiguous(ElementType::U8, vec![0, usize::MAX, 2], 0, 12).is_err());
        assert!(TensorView::strided(ElementType::Bool, vec![2], vec![1], 2, 2).unwrap().read(&mut source).is_err());
    }
}
