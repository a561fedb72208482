//! Contents of a weight file by name; each tensor is read on demand.

use super::locate::{self, Index};
use super::source::Source;
use super::torch::{PICKLE_MAGIC, PickleFile, ZIP_MAGIC};
use super::{Parsed, RawTensor, Result, Scalar, TensorView, file_error, npy, onnx, safetensors, state_dict};
use crate::WeightError;
use crate::fault::Fault;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Factor of its own size that a file may unfold to: views can repeat elements or overlap. Several names of the same view, such
/// as of layers that share their weights, count once, because the view is read once.
const UNFOLDING: u64 = 8;
/// Factor of the file's size that may be written where every name gets elements of its own.
const COPYING: u64 = 64;
/// Number of name beginnings that a message shows.
const SHOWN: usize = 8;
/// Number of bytes that any file may unfold to.
const FREE: u64 = 16 << 20;

/// The kinds of weight file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.safetensors`
    Safetensors,
    /// A file of `torch.save`.
    Torch,
    /// One NumPy array.
    Npy,
    /// A graph with its initializers.
    Onnx,
}

impl Format {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Torch => "PyTorch",
            Self::Npy => "NumPy array",
            Self::Onnx => "ONNX graph",
        }
    }

    /// Returns the format of a file that begins with `head` and is `length` bytes long. ONNX files are recognized by their first fields
    /// only.
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
    /// The format.
    pub format: Format,
    /// The tensors by name, in order of the file.
    pub tensors: Vec<(String, TensorView)>,
    /// Scalars next to them.
    pub scalars: Vec<(String, Scalar)>,
    /// Notes: the `__metadata__` of a `.safetensors` file.
    pub metadata: BTreeMap<String, String>,
    /// Values that are neither, such as the state of an optimizer or objects: their names and descriptions.
    pub left_out: Vec<(String, String)>,
    /// The entry of a PyTorch file that contains the tensors (`module`, `model.state_dict`), if they are wrapped in one.
    pub entry: Option<String>,
    path: PathBuf,
    /// The files with the tensors: the file itself, then those that it refers to.
    sources: Vec<Source<'a>>,
}

/// Contents that a reader finds in a file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub tensors: Vec<(String, TensorView)>,
    pub scalars: Vec<(String, Scalar)>,
    pub metadata: BTreeMap<String, String>,
    pub left_out: Vec<(String, String)>,
    pub entry: Option<String>,
}

impl Contents {
    /// Moves scalars with the name of a tensor to the values left out, because they do not belong to the state dict.
    fn set_apart_namesakes(&mut self) {
        let names: HashSet<&str> = self.tensors.iter().map(|(name, _)| name.as_str()).collect();
        let (apart, scalars) =
            std::mem::take(&mut self.scalars).into_iter().partition(|(name, _)| names.contains(name.as_str()));
        self.scalars = scalars;
        let apart: Vec<(String, Scalar)> = apart;
        self.left_out.extend(apart.into_iter().map(|(name, scalar)| (name, scalar.to_string())));
    }
}

impl Archive<'static> {
    /// Opens the file at `path`, the shards of an index there, or the weights of a folder there.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or has no tensors.
    pub fn open(path: &Path) -> Result<Self> {
        let file = locate::locate(path)?;
        let opened = match locate::is_index(&file) {
            true => Self::open_shards(&file),
            false => Source::open(&file).and_then(Self::of),
        };
        opened.map_err(|fault| file_error(&file, fault))
    }

    /// Opens the shards of an index as one archive, with the tensors that the index assigns to each.
    fn open_shards(path: &Path) -> Parsed<Self> {
        let index = Index::read(path)?;
        let mut whole: Option<Self> = None;
        for name in index.names() {
            let file = locate::neighbor(path, name)?;
            let in_shard = |fault: Fault| fault.within(format_args!("shard `{}`", name.escape_debug()));
            let shard = Source::open(&file).and_then(Self::of).map_err(in_shard)?;
            let mut tensors: BTreeMap<String, TensorView> = shard.tensors.into_iter().collect();
            let archive = whole.get_or_insert_with(|| Self {
                format: shard.format,
                tensors: Vec::new(),
                scalars: Vec::new(),
                metadata: BTreeMap::new(),
                left_out: Vec::new(),
                entry: None,
                path: path.to_owned(),
                sources: Vec::new(),
            });
            let first = archive.sources.len() as u32;
            for (tensor, _) in index.weight_map.iter().filter(|(_, shard)| *shard == name) {
                let view = tensors.remove(tensor);
                let view =
                    view.ok_or_else(|| in_shard(format!("it has no tensor `{}`", tensor.escape_debug()).into()))?;
                let place = view.file().map_or(first, |(file, _)| first + file);
                archive.tensors.push((tensor.clone(), view.in_file(place)));
            }
            archive.left_out.extend(tensors.into_iter().map(|(tensor, view)| {
                (
                    tensor,
                    format!("tensor {} {:?} of `{name}` that the index does not name", view.element(), view.shape()),
                )
            }));
            archive.left_out.extend(shard.left_out);
            archive.metadata.extend(shard.metadata);
            archive.sources.extend(shard.sources);
        }
        let archive = whole.ok_or("an index of shards without tensors")?;
        archive.check()?;
        Ok(archive)
    }
}

impl<'a> Archive<'a> {
    /// Like [`open`](Archive::open), from memory; `path` is used in messages.
    ///
    /// # Errors
    /// Those of [`open`](Archive::open).
    pub fn from_bytes(bytes: &'a [u8], path: &Path) -> Result<Self> {
        Self::of(Source::of_bytes(bytes, path)).map_err(|fault| file_error(path, fault))
    }

    fn of(mut source: Source<'a>) -> Parsed<Self> {
        let head = source.bytes_at(0, source.length().min(256))?;
        source.seek(0)?;
        let format = Format::of(&head, source.length()).ok_or_else(|| unknown(&head, source.length()))?;
        let (mut contents, source) = match format {
            Format::Safetensors => (safetensors::read(&mut source)?, source),
            Format::Npy => (npy::read(&mut source)?, source),
            Format::Onnx => (onnx::read(&mut source)?, source),
            Format::Torch => {
                let file = PickleFile::of(source)?;
                (state_dict::find(file.value)?, file.source)
            }
        };
        contents.set_apart_namesakes();
        let Contents { tensors, scalars, metadata, left_out, entry } = contents;
        let path = source.path().to_owned();
        let sources = source.with_named_files()?;
        let archive = Self { format, tensors, scalars, metadata, left_out, entry, path, sources };
        archive.check()?;
        Ok(archive)
    }

    /// Checks that names are unique and that the tensors are not larger than the file can reasonably hold.
    fn check(&self) -> Parsed<()> {
        let mut names = HashSet::new();
        let named = self.tensors.iter().map(|(name, _)| name).chain(self.scalars.iter().map(|(name, _)| name));
        if let Some(twice) = named.into_iter().find(|name| !names.insert(name.as_str())) {
            return Err(format!("the name `{}` is there twice", twice.escape_debug()).into());
        }
        let distinct: HashSet<&TensorView> = self.tensors.iter().map(|(_, tensor)| tensor).collect();
        let bytes = total(distinct.into_iter());
        if bytes > self.allowed(UNFOLDING) {
            return Err(Fault::too_large(format!(
                "its tensors unfold to {bytes} bytes, the file has {}: they are views that repeat elements or overlap; save \
                 copies of them, `{{name: tensor.clone()}}`",
                self.length()
            )));
        }
        Ok(())
    }

    /// Returns the number of bytes that this file may unfold to at `times` its size.
    fn allowed(&self, times: u64) -> u64 {
        self.length().saturating_mul(times).saturating_add(FREE)
    }

    /// Returns the size of its files in bytes.
    fn length(&self) -> u64 {
        self.sources.iter().fold(0, |sum, source| sum.saturating_add(source.length()))
    }

    /// Returns the path and the length of each of its files, and whether it is on disk.
    pub(super) fn source_files(&self) -> impl Iterator<Item = (&Path, u64, bool)> {
        self.sources.iter().map(|source| (source.path(), source.length(), source.is_on_disk()))
    }

    /// Returns the path of the opened file: the given path, or for a folder the file in it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fails if writing elements for every name would take too many bytes, because a few bytes have many names.
    pub(super) fn check_copies(&self) -> Parsed<()> {
        let bytes = total(self.tensors.iter().map(|(_, tensor)| tensor));
        if bytes > self.allowed(COPYING) {
            let length = self.length();
            return Err(Fault::too_large(format!(
                "its names share their elements: written for each of them they take {bytes} bytes, the file has {length}; \
                 convert to .pt, which keeps them shared, or save each of them once"
            )));
        }
        Ok(())
    }

    /// Returns for each tensor the first one that is the same view of the file, often itself.
    pub(super) fn first_of_view(&self) -> Vec<usize> {
        let mut first = HashMap::new();
        self.tensors.iter().enumerate().map(|(index, (_, tensor))| *first.entry(tensor).or_insert(index)).collect()
    }

    /// Reads the tensor at `index`, with its bytes as stored in the file.
    ///
    /// # Errors
    /// When there is none, or the file cannot be read.
    pub fn load(&mut self, index: usize) -> Result<RawTensor> {
        let count = self.tensors.len();
        let (name, tensor) = self.tensors.get(index).ok_or(WeightError::NoTensor { index, count })?;
        let loaded = tensor.read(&mut self.sources).map_err(|fault| fault.within(format_args!("tensor `{name}`")));
        loaded.map_err(|fault| self.error(fault))
    }

    /// Keeps the tensors whose names begin with `prefix` (such as `module.`), and removes it. The others are moved to those left out.
    ///
    /// # Errors
    /// When no name begins with it.
    pub fn strip_prefix(&mut self, prefix: &str) -> Result<()> {
        let short = |name: &str| name.strip_prefix(prefix).filter(|short| !short.is_empty()).map(str::to_owned);
        if !self.tensors.iter().any(|(name, _)| short(name).is_some()) {
            let first = self.tensors.first().map_or("", |(name, _)| name.as_str());
            let first = first.escape_debug().take(120).collect::<String>();
            let names = self.beginnings();
            return Err(
                self.error(format!("tensor `{first}` does not begin with `{prefix}`, nor does any other; {names}"))
            );
        }
        self.rename(|name| short(name));
        self.check().map_err(|fault| self.error(fault))
    }

    /// Renames every tensor by `name_of`; those without a new name are moved to those left out.
    pub(super) fn rename(&mut self, mut name_of: impl FnMut(&str) -> Option<String>) {
        for (name, tensor) in std::mem::take(&mut self.tensors) {
            match name_of(&name) {
                Some(name) => self.tensors.push((name, tensor)),
                None => self.left_out.push((name, format!("tensor {} {:?}", tensor.element(), tensor.shape()))),
            }
        }
    }

    /// Lists the beginnings of the names, up to their first dots.
    fn beginnings(&self) -> String {
        let first = |name: &str| name.split_once('.').map_or(name.to_owned(), |(first, _)| format!("{first}."));
        let mut beginnings: Vec<String> = Vec::new();
        for (name, _) in &self.tensors {
            let beginning = format!("`{}`", first(name).escape_debug().take(60).collect::<String>());
            if !beginnings.contains(&beginning) && beginnings.len() < SHOWN {
                beginnings.push(beginning);
            }
        }
        format!("names begin with {}", beginnings.join(", "))
    }

    /// An error about this file.
    pub(super) fn error(&self, fault: impl Into<Fault>) -> WeightError {
        file_error(&self.path, fault)
    }
}

/// Returns the size of tensors in bytes.
fn total<'t>(tensors: impl Iterator<Item = &'t TensorView>) -> u64 {
    tensors.fold(0, |sum, tensor| sum.saturating_add(tensor.byte_count()))
}

/// Says what a file is that is none of the known ones, where that can be told.
fn unknown(head: &[u8], length: u64) -> Fault {
    if length == 0 {
        return Fault::not_weights("it is empty");
    }
    let text = String::from_utf8_lossy(head);
    let reason = if text.starts_with("version https://git-lfs") {
        "a git-lfs pointer, not the file itself; fetch it with `git lfs pull`"
    } else if text.trim_start().to_ascii_lowercase().starts_with("<!doctype") || text.starts_with("<html") {
        "a web page, not weights; the download went wrong"
    } else if head.get(257..262) == Some(b"ustar") {
        "a tar archive; PyTorch before 0.1.10 wrote such files: load it with PyTorch and save it again"
    } else if safetensors::resembles(head) {
        return "not a whole safetensors file: it ends before its header does".into();
    } else {
        "not a known weight file: neither safetensors nor PyTorch nor .npy nor ONNX"
    };
    Fault::not_weights(format!("it is {reason}"))
}
