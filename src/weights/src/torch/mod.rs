//! Files of `torch.save`: a zip archive since PyTorch 1.6, a sequence of pickles before.

mod directory;
mod legacy;
mod zip;

use super::pickle::PickleValue;
use super::source::Source;
use super::{Parsed, RawTensor, Result, TensorView, file_error, npy};
use crate::fault::Fault;
use std::path::Path;

/// First bytes of a zip archive.
pub(crate) const ZIP_MAGIC: &[u8] = b"PK\x03\x04";
/// First byte of a pickle of protocol 2 or later.
pub(crate) const PICKLE_MAGIC: u8 = 0x80;

/// The values of a file of `torch.save`, `pickle.dump`, or `numpy.save` with Python objects. Tensors are read on demand.
pub struct PickleFile<'a> {
    /// The saved value.
    pub value: PickleValue,
    pub(crate) source: Source<'a>,
}

impl PickleFile<'static> {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        Source::open(path).and_then(Self::of).map_err(|fault| file_error(path, fault))
    }
}

impl<'a> PickleFile<'a> {
    /// Like [`open`](PickleFile::open), from memory; `path` is used in messages.
    ///
    /// # Errors
    /// Those of [`open`](PickleFile::open).
    pub fn from_bytes(bytes: &'a [u8], path: &Path) -> Result<Self> {
        Self::of(Source::of_bytes(bytes, path)).map_err(|fault| file_error(path, fault))
    }

    pub(crate) fn of(mut source: Source<'a>) -> Parsed<Self> {
        let head = source.bytes_at(0, source.length().min(4))?;
        source.seek(0)?;
        let value = match head[..] {
            [PICKLE_MAGIC, ..] => legacy::read(&mut source)?,
            _ if head.starts_with(ZIP_MAGIC) => zip::read(&mut source)?,
            _ if npy::MAGIC.starts_with(&head) && !head.is_empty() => {
                npy::objects(&mut source)?;
                legacy::read(&mut source)?
            }
            _ => {
                return Err(Fault::not_weights("neither a zip archive nor a pickle, so nothing that torch.save wrote"));
            }
        };
        Ok(Self { value, source })
    }

    /// Reads one of its tensors.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load(&mut self, tensor: &TensorView) -> Result<RawTensor> {
        let loaded = tensor.read(std::slice::from_mut(&mut self.source));
        loaded.map_err(|fault| file_error(self.source.path(), fault))
    }
}
