//! Weight files: `.safetensors`, PyTorch's `.pt`/`.pth`/`.bin`, `.npy`, and the initializers of ONNX graphs.
//!
//! The format of a file is detected from its content. [`read`] returns tensors ready for a model; [`Archive`] lists a file's contents and
//! reads each tensor as stored, bit for bit, and maps files into memory instead of reading them; [`PickleFile`] reads all values of a `.pt`; [`OnnxFile`] the nodes of an ONNX file;
//! [`OnnxBuilder`] writes such files.
//! Weights may be in several files: an index with shards, or an ONNX file with tensors in other files. [`files`] lists them.
//!
//! Nothing in a file is executed, and lengths in a file are checked against its size before anything is allocated.

mod archive;
mod element;
mod error;
mod fault;
mod host;
mod locate;
mod mapped;
mod naming;
mod npy;
mod onnx;
mod pickle;
pub mod protobuf;
mod raw;
mod safetensors;
mod scalar;
mod source;
mod state_dict;
mod torch;
mod view;
mod write;

pub use archive::{Archive, Format};
pub use element::ElementType;
pub use error::WeightError;
pub use fault::FaultKind;
pub use locate::{files, is_index, locate};
pub use mapped::MappedTensor;
pub use naming::{Naming, NamingError};
pub use onnx::{OnnxAttribute, OnnxAxis, OnnxBuilder, OnnxFile, OnnxGraph, OnnxNode, OnnxSetting, OnnxValue};
pub use pickle::PickleValue;
pub use raw::RawTensor;
pub use scalar::Scalar;
pub use torch::PickleFile;
pub use view::TensorView;
pub use write::{Target, to_bytes, write, write_archive, write_npy, write_torch};

use candle_core::Tensor;
use fault::Fault;
use std::collections::BTreeMap;
use std::path::Path;

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, WeightError>;

/// The result of the readers: an error is without the file's name, which the caller adds.
type Parsed<T> = std::result::Result<T, Fault>;

/// Tensors of a file by name, and its other contents.
#[derive(Debug, Clone, Default)]
pub struct WeightFile {
    /// `f32` tensors (wider and narrower floats are converted), in order of their names.
    pub tensors: BTreeMap<String, Tensor>,
    /// Integer and boolean tensors, as `i64`.
    pub integers: BTreeMap<String, Tensor>,
    /// Scalars next to the tensors, such as `epoch` and `step`.
    pub scalars: BTreeMap<String, Scalar>,
    /// Notes: the `__metadata__` of a `.safetensors` file.
    pub metadata: BTreeMap<String, String>,
    /// The entry of a PyTorch file that contains the tensors (`module`, `model.state_dict`), if they are wrapped in one.
    pub entry: Option<String>,
}

fn file_error(path: &Path, fault: impl Into<Fault>) -> WeightError {
    let Fault { kind, message } = fault.into();
    WeightError::File { path: path.display().to_string(), kind, message }
}

/// Reads a weight file of any kind.
///
/// # Errors
/// When it cannot be read, is damaged, or contains a number that is not finite (the message names the tensor).
pub fn read(path: &Path) -> Result<WeightFile> {
    Archive::open(path)?.weights()
}

/// Like [`read`], from memory; `path` is used in messages.
///
/// # Errors
/// Those of [`read`].
pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<WeightFile> {
    Archive::from_bytes(bytes, path)?.weights()
}

impl Archive<'_> {
    /// Reads all tensors.
    ///
    /// # Errors
    /// When the file cannot be read, or contains a number that is not finite (the message names the tensor).
    pub fn weights(mut self) -> Result<WeightFile> {
        let mut file = WeightFile {
            scalars: self.scalars.iter().cloned().collect(),
            metadata: self.metadata.clone(),
            entry: self.entry.clone(),
            ..WeightFile::default()
        };
        for (index, first) in self.first_of_view().into_iter().enumerate() {
            let name = self.tensors[index].0.clone();
            if first != index {
                // One view with several names is read once; the clones share its memory.
                let same = &self.tensors[first].0;
                if let Some(floats) = file.tensors.get(same).cloned() {
                    file.tensors.insert(name, floats);
                } else if let Some(integers) = file.integers.get(same).cloned() {
                    file.integers.insert(name, integers);
                }
                continue;
            }
            let raw = self.load(index)?;
            if let Some(floats) = raw.to_floats() {
                let floats = floats?;
                refuse_non_finite(&floats, &name).map_err(|fault| self.error(fault))?;
                file.tensors.insert(name, floats);
            } else if let Some(integers) = raw.to_integers() {
                file.integers.insert(name, integers?);
            }
        }
        Ok(file)
    }
}

fn refuse_non_finite(tensor: &Tensor, name: &str) -> Parsed<()> {
    let first = |elements: &[f32]| {
        let index = elements.iter().position(|element| !element.is_finite())?;
        Some((index, elements[index]))
    };
    match host::with_floats(tensor, first).map_err(|error| error.to_string())? {
        Some((index, element)) => {
            Err(Fault::new(FaultKind::NotFinite, format!("tensor `{name}` holds {element} at element {index}")))
        }
        None => Ok(()),
    }
}
