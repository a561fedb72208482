//! What a weight file has, by name; each tensor is read when asked for.

use super::source::Source;
use super::torch::{PICKLE_MAGIC, PickleFile, ZIP_MAGIC};
use super::{Parsed, RawTensor, Result, Scalar, TensorView, file_error, npy, onnx, safetensors, state_dict, stripped};
use crate::NnError;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// How much more than its own size a file may unfold to: views that repeat elements or overlap. Names of one and the same view, such
/// as of layers that share their weights, count once: it is read once.
const UNFOLDING: u64 = 8;
/// How much larger than the file what is written may be where every name gets elements of its own.
const COPYING: u64 = 64;
/// What any file may unfold to.
const FREE: u64 = 16 << 20;

/// The kinds of weight file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.safetensors`
    Safetensors,
    /// What `torch.save` writes.
    Torch,
    /// One NumPy array.
    Npy,
    /// A graph with its initialisers.
    Onnx,
}

impl Format {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Torch => "PyTorch",
            Self::Npy => "NumPy array",
            Self::Onnx => "ONNX graph",
        }
    }

    /// The format of a file that begins with `head` and is `length` bytes long. ONNX files have nothing to be recognised by
    /// but their first fields.
    pub fn of(head: &[u8], length: u64) -> Option<Self> {
        if head.starts_with(npy::MAGIC) {
            return Some(Self::Npy);
        }
        if safetensors::begins(head, length) {
            return Some(Self::Safetensors);
        }
        if head.starts_with(ZIP_MAGIC) || matches!(head, [PICKLE_MAGIC, 2..=5, ..]) {
            return Some(Self::Torch);
        }
        onnx::begins(head).then_some(Self::Onnx)
    }
}

/// An open weight file.
pub struct Archive<'a> {
    /// What it is.
    pub format: Format,
    /// Its tensors by name, in order of the file.
    pub tensors: Vec<(String, TensorView)>,
    /// Scalars beside them.
    pub scalars: Vec<(String, Scalar)>,
    /// Notes: the `__metadata__` of a `.safetensors` file.
    pub metadata: BTreeMap<String, String>,
    /// Values that are neither, such as the state of an optimiser: their names and what they are.
    pub left_out: Vec<(String, String)>,
    /// The entry of a PyTorch file that the tensors are from (`module`, `model.state_dict`), where they are wrapped in one.
    pub entry: Option<String>,
    source: Source<'a>,
}

/// What a reader finds in a file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub tensors: Vec<(String, TensorView)>,
    pub scalars: Vec<(String, Scalar)>,
    pub metadata: BTreeMap<String, String>,
    pub left_out: Vec<(String, String)>,
    pub entry: Option<String>,
}

impl Archive<'static> {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or has no tensors.
    pub fn open(path: &Path) -> Result<Self> {
        Source::open(path).and_then(Self::of).map_err(|message| file_error(path, message))
    }
}

impl<'a> Archive<'a> {
    /// As [`open`](Archive::open), from memory; `path` is for messages.
    ///
    /// # Errors
    /// As [`open`](Archive::open).
    pub fn from_bytes(bytes: &'a [u8], path: &Path) -> Result<Self> {
        Self::of(Source::of_bytes(bytes, path)).map_err(|message| file_error(path, message))
    }

    fn of(mut source: Source<'a>) -> Parsed<Self> {
        let head = source.bytes_at(0, source.length().min(256))?;
        source.seek(0)?;
        let format = Format::of(&head, source.length()).ok_or_else(|| unknown(&head, source.length()))?;
        let (contents, source) = match format {
            Format::Safetensors => (safetensors::read(&mut source)?, source),
            Format::Npy => (npy::read(&mut source)?, source),
            Format::Onnx => (onnx::read(&mut source)?, source),
            Format::Torch => {
                let file = PickleFile::of(source)?;
                (state_dict::find(file.value)?, file.source)
            }
        };
        let Contents { tensors, scalars, metadata, left_out, entry } = contents;
        let archive = Self { format, tensors, scalars, metadata, left_out, entry, source };
        archive.check()?;
        Ok(archive)
    }

    /// Every name once, and no more bytes than such a file can honestly hold.
    fn check(&self) -> Parsed<()> {
        let mut names = HashSet::new();
        let named = self.tensors.iter().map(|(name, _)| name).chain(self.scalars.iter().map(|(name, _)| name));
        if let Some(twice) = named.into_iter().find(|name| !names.insert(name.as_str())) {
            return Err(format!("the name `{}` is there twice", twice.escape_debug()));
        }
        let distinct: HashSet<&TensorView> = self.tensors.iter().map(|(_, tensor)| tensor).collect();
        let bytes = total(distinct.into_iter());
        if bytes > self.allowed(UNFOLDING) {
            return Err(format!(
                "its tensors unfold to {bytes} bytes, the file has {}: they are views that repeat elements or overlap; save \
                 copies of them, `{{name: tensor.clone()}}`",
                self.source.length()
            ));
        }
        Ok(())
    }

    /// How many bytes are too many for this file, which may unfold to `times` its size.
    fn allowed(&self, times: u64) -> u64 {
        self.source.length().saturating_mul(times).saturating_add(FREE)
    }

    /// Refuses to write elements for every name where a few bytes have too many names.
    pub(super) fn check_copies(&self) -> Parsed<()> {
        let bytes = total(self.tensors.iter().map(|(_, tensor)| tensor));
        if bytes > self.allowed(COPYING) {
            let length = self.source.length();
            return Err(format!(
                "its names share their elements: written for each of them they take {bytes} bytes, the file has {length}; \
                 convert to .pt, which keeps them shared, or save each of them once"
            ));
        }
        Ok(())
    }

    /// For each tensor the first that is the same view of the file, often itself.
    pub(super) fn first_of_view(&self) -> Vec<usize> {
        let mut first = HashMap::new();
        self.tensors.iter().enumerate().map(|(index, (_, tensor))| *first.entry(tensor).or_insert(index)).collect()
    }

    /// Reads the tensor at `index`, with the bytes it has in the file.
    ///
    /// # Errors
    /// When there is none, or the file cannot be read.
    pub fn load(&mut self, index: usize) -> Result<RawTensor> {
        let (name, tensor) =
            self.tensors.get(index).ok_or_else(|| NnError::invalid("index", "there is no such tensor"))?;
        let loaded = tensor.read(&mut self.source).map_err(|message| format!("tensor `{name}`: {message}"));
        loaded.map_err(|message| self.error(message))
    }

    /// Removes `prefix` (such as `module.`) from every name of a tensor.
    ///
    /// # Errors
    /// When a name does not begin with it.
    pub fn strip_prefix(&mut self, prefix: &str) -> Result<()> {
        let mut short = Vec::with_capacity(self.tensors.len());
        for (name, tensor) in &self.tensors {
            let name = stripped(name, prefix).map_err(|error| self.error(error))?;
            short.push((name.to_owned(), tensor.clone()));
        }
        self.tensors = short;
        self.check().map_err(|message| self.error(message))
    }

    /// An error about this file.
    pub(super) fn error(&self, message: impl std::fmt::Display) -> NnError {
        file_error(self.source.path(), message)
    }
}

/// How many bytes tensors take.
fn total<'t>(tensors: impl Iterator<Item = &'t TensorView>) -> u64 {
    tensors.fold(0, |sum, tensor| sum.saturating_add(tensor.byte_count()))
}

/// Says what a file is that is none of the known ones, where that can be told.
fn unknown(head: &[u8], length: u64) -> String {
    if length == 0 {
        return "it is empty".to_owned();
    }
    let text = String::from_utf8_lossy(head);
    let reason = if text.starts_with("version https://git-lfs") {
        "a git-lfs pointer, not the file itself; fetch it with `git lfs pull`"
    } else if text.trim_start().to_ascii_lowercase().starts_with("<!doctype") || text.starts_with("<html") {
        "a web page, not weights; the download went wrong"
    } else if head.get(257..262) == Some(b"ustar") {
        "a tar archive; PyTorch before 0.1.10 wrote such files: load it with PyTorch and save it again"
    } else if safetensors::resembles(head) {
        return "not a whole safetensors file: it ends before its header does".to_owned();
    } else {
        "no weights that are known: neither safetensors nor PyTorch nor .npy nor ONNX"
    };
    format!("it is {reason}")
}
