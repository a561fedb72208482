//! Tensors that stay in their file: its pages are mapped into memory and read when elements are used.

use super::{Archive, ElementType, Format, Result, file_error};
use crate::fault::Fault;
use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

/// Numbers converted at a time.
const RUN: usize = 1024;

/// A tensor of floats in a mapped file, row-major.
///
/// The system loads pages when they are read and may drop them again, so such weights take no memory of their own and may be larger than
/// it. The file must not change while it is mapped: if it becomes shorter, reading beyond its new end kills the process.
#[derive(Clone)]
pub struct MappedTensor {
    file: Arc<Mmap>,
    /// The bytes of the elements, within the file.
    bytes: Range<usize>,
    element: ElementType,
    shape: Vec<usize>,
}

impl fmt::Debug for MappedTensor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MappedTensor({} {:?})", self.element, self.shape)
    }
}

impl MappedTensor {
    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the same elements in another shape; `None` if it has another number of elements.
    pub fn with_shape(&self, shape: Vec<usize>) -> Option<Self> {
        let count = shape.iter().try_fold(1usize, |count, axis| count.checked_mul(*axis))?;
        (count == self.count()).then(|| Self { shape, ..self.clone() })
    }

    /// The type of the elements in the file.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.bytes.len() / self.element.size()
    }

    /// The elements as stored, in little-endian order.
    pub fn bytes(&self) -> &[u8] {
        &self.file[self.bytes.clone()]
    }

    /// Converts the elements from `first` on to single precision.
    ///
    /// # Panics
    /// When there are fewer elements than `out` has room for: a bug in the caller.
    pub fn copy_to(&self, first: usize, out: &mut [f32]) {
        let size = self.element.size();
        let bytes = &self.bytes()[first * size..(first + out.len()) * size];
        match self.element {
            ElementType::F32 => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = f32::from_le_bytes(*bytes);
                }
            }
            ElementType::BF16 => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
                }
            }
            ElementType::F16 => {
                let mut halves = [f16::ZERO; RUN];
                for (out, bytes) in out.chunks_mut(RUN).zip(bytes.chunks(2 * RUN)) {
                    let halves = &mut halves[..out.len()];
                    for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
                        *half = f16::from_le_bytes(*bytes);
                    }
                    halves.convert_to_f32_slice(out);
                }
            }
            // `Archive::map` admits the types above and this one.
            _ => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = f64::from_le_bytes(*bytes) as f32;
                }
            }
        }
    }
}

impl Archive<'_> {
    /// Maps the files into memory and returns the tensors of floats by name. Nothing is read, and elements are not checked for numbers
    /// that are not finite. Integers are left out.
    ///
    /// # Errors
    /// When the archive is not a `.safetensors` file or shards of this format, is in memory, or a file cannot be mapped.
    pub fn map(&self) -> Result<BTreeMap<String, MappedTensor>> {
        if self.format != Format::Safetensors {
            let message = "only .safetensors files can be used without copies; convert it with `flowmill convert`";
            return Err(self.error(Fault::unsupported(message)));
        }
        let files = self.source_files().map(|(path, length, on_disk)| {
            let in_file = |fault: Fault| file_error(path, fault);
            if !on_disk {
                return Err(in_file(Fault::unsupported("it is in memory, not in a file")));
            }
            let file = File::open(path).map_err(|error| in_file(error.into()))?;
            // SAFETY: the file is opened for reading only and the map is never written. That nobody truncates the file meanwhile is
            // documented as the caller's responsibility, as for every program that maps weights.
            let map = unsafe { Mmap::map(&file) }.map_err(|error| in_file(error.into()))?;
            if map.len() as u64 != length {
                return Err(in_file(format!("its length changed from {length} bytes to {}", map.len()).into()));
            }
            Ok(Arc::new(map))
        });
        let files = files.collect::<Result<Vec<_>>>()?;
        let mut tensors = BTreeMap::new();
        for (name, view) in self.tensors.iter().filter(|(_, view)| view.element().is_float()) {
            // Tensors of a .safetensors file are row-major and little-endian.
            let place = view.file().and_then(|(file, start)| {
                let start = usize::try_from(start).ok()?;
                let end = start.checked_add(usize::try_from(view.byte_count()).ok()?)?;
                Some((files.get(file as usize)?, start..end))
            });
            let inside = place.filter(|(file, bytes)| bytes.end <= file.len());
            let (file, bytes) = inside
                .ok_or_else(|| self.error(format!("tensor `{}` is not whole in its file", name.escape_debug())))?;
            let (element, shape) = (view.element(), view.shape().to_vec());
            tensors.insert(name.clone(), MappedTensor { file: file.clone(), bytes, element, shape });
        }
        Ok(tensors)
    }
}
