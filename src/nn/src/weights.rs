//! Weight files: `.safetensors`, written and read with a report of what fits.

use crate::{NnError, ParameterId, Parameters, Result, host};
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

/// What a weight file had for a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Names that were loaded.
    pub matched: Vec<String>,
    /// Names that the model has and the file lacks.
    pub missing: Vec<String>,
    /// Names that the file has and the model lacks.
    pub extra: Vec<String>,
    /// Names whose shapes differ: name, shape in the model, shape in the file.
    pub mismatched: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl LoadReport {
    /// Whether file and model have the same names and shapes.
    pub fn is_exact(&self) -> bool {
        self.missing.is_empty() && self.extra.is_empty() && self.mismatched.is_empty()
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} tensors matched", self.matched.len())?;
        for (what, names) in [("missing", &self.missing), ("extra", &self.extra)] {
            if let [first, ..] = names.as_slice() {
                write!(formatter, "; {} {what} (`{first}`", names.len())?;
                write!(formatter, "{})", if names.len() > 1 { " and others" } else { "" })?;
            }
        }
        if let [(name, model, file), ..] = self.mismatched.as_slice() {
            let count = self.mismatched.len();
            write!(formatter, "; {count} of another shape (`{name}`: model {model:?}, file {file:?})")?;
        }
        Ok(())
    }
}

/// Tensors of a file by name, and its metadata.
#[derive(Debug, Clone, Default)]
pub struct WeightFile {
    /// `f32` tensors (wider and narrower floats are converted), in order of their names.
    pub tensors: BTreeMap<String, Tensor>,
    /// Integer tensors.
    pub integers: BTreeMap<String, Tensor>,
    /// The `__metadata__` of the file.
    pub metadata: BTreeMap<String, String>,
}

fn file_error(path: &Path, message: impl fmt::Display) -> NnError {
    NnError::WeightFile { path: path.display().to_string(), message: message.to_string() }
}

/// Reads a `.safetensors` file.
///
/// # Errors
/// When it cannot be read, is damaged, or holds a number that is not finite (the tensor is named).
pub fn read(path: &Path) -> Result<WeightFile> {
    let bytes = std::fs::read(path).map_err(|error| file_error(path, error))?;
    from_bytes(&bytes, path)
}

/// As [`read`], from memory; `path` is for messages.
///
/// # Errors
/// As [`read`].
pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<WeightFile> {
    let damaged = |error| file_error(path, format!("not a whole safetensors file: {error}"));
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let mut read = WeightFile { metadata, ..WeightFile::default() };
    for (name, view) in file.iter() {
        match tensor(&view) {
            Some(Ok(tensor)) if tensor.dtype() == DType::F32 => {
                refuse_non_finite(&tensor, name).map_err(|message| file_error(path, message))?;
                read.tensors.insert(name.to_owned(), tensor);
            }
            Some(Ok(tensor)) => {
                read.integers.insert(name.to_owned(), tensor);
            }
            Some(Err(error)) => return Err(file_error(path, format!("tensor `{name}`: {error}"))),
            None => {
                let message =
                    format!("tensor `{name}` has elements of type {:?}, which is not supported", view.dtype());
                return Err(file_error(path, message));
            }
        }
    }
    Ok(read)
}

/// A tensor with `f32` or `i64` elements; `None` for other types.
fn tensor(view: &TensorView) -> Option<Result<Tensor>> {
    let (data, shape) = (view.data(), view.shape());
    let floats = |elements: Vec<f32>| host::tensor(elements, shape);
    let integers = |elements: Vec<i64>| Ok(Tensor::from_vec(elements, shape, &Device::Cpu)?);
    Some(match view.dtype() {
        Dtype::F32 => floats(words(data).map(f32::from_le_bytes).collect()),
        Dtype::F64 => floats(words(data).map(|word| f64::from_le_bytes(word) as f32).collect()),
        Dtype::F16 => floats(words(data).map(|word| half::f16::from_le_bytes(word).to_f32()).collect()),
        Dtype::BF16 => floats(words(data).map(|word| half::bf16::from_le_bytes(word).to_f32()).collect()),
        Dtype::I64 => integers(words(data).map(i64::from_le_bytes).collect()),
        Dtype::I32 => integers(words(data).map(|word| i64::from(i32::from_le_bytes(word))).collect()),
        Dtype::U8 | Dtype::BOOL => integers(data.iter().map(|byte| i64::from(*byte)).collect()),
        _ => return None,
    })
}

fn words<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    data.chunks_exact(N).map(|chunk| {
        let mut word = [0; N];
        word.copy_from_slice(chunk);
        word
    })
}

fn refuse_non_finite(tensor: &Tensor, name: &str) -> std::result::Result<(), String> {
    let elements = host::slice("weights", tensor).map_err(|error| error.to_string())?;
    match elements.iter().position(|element| !element.is_finite()) {
        Some(index) => Err(format!("tensor `{name}` holds {} at element {index}", elements[index])),
        None => Ok(()),
    }
}

/// Writes tensors under their names, in order, with metadata. The same input gives the same bytes.
///
/// # Errors
/// When a tensor is not finite or the file cannot be written.
pub fn write(path: &Path, tensors: &[(String, Tensor)], metadata: &BTreeMap<String, String>) -> Result<()> {
    let bytes = to_bytes(tensors, metadata, path)?;
    std::fs::write(path, bytes).map_err(|error| file_error(path, error))
}

/// As [`write`](fn@write), into memory; `path` is for messages.
///
/// # Errors
/// As [`write`](fn@write).
pub fn to_bytes(tensors: &[(String, Tensor)], metadata: &BTreeMap<String, String>, path: &Path) -> Result<Vec<u8>> {
    let mut data = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        refuse_non_finite(tensor, name).map_err(|message| file_error(path, message))?;
        let elements = host::slice("weights", tensor)?;
        data.push(elements.iter().flat_map(|element| element.to_le_bytes()).collect::<Vec<u8>>());
    }
    let views = tensors.iter().zip(&data).map(|((name, tensor), data)| {
        let view = TensorView::new(Dtype::F32, tensor.dims().to_vec(), data);
        view.map(|view| (name.as_str(), view)).map_err(|error| file_error(path, error))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    let header = ordered_header(&views, metadata);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    data.iter().for_each(|data| bytes.extend(data));
    Ok(bytes)
}

/// The JSON header with tensors in the given order and metadata in the order of its keys, padded to 8 bytes. (The crate's own
/// writer keeps metadata in a hash map, so its bytes vary from run to run.)
fn ordered_header(views: &[(&str, TensorView)], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), serde_json::json!(metadata));
    }
    let mut start = 0;
    for (name, view) in views {
        let end = start + view.data().len();
        let entry = serde_json::json!({"dtype": "F32", "shape": view.shape(), "data_offsets": [start, end]});
        header.insert((*name).to_owned(), entry);
        start = end;
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

impl Parameters {
    /// All parameters and buffers by name, in order of registration.
    pub fn named_tensors(&self) -> Vec<(String, Tensor)> {
        self.ids().map(|id| (self.name(id).to_owned(), self.tensor(id).clone())).collect()
    }

    /// Writes all parameters as `.safetensors`.
    ///
    /// # Errors
    /// When one is not finite or the file cannot be written.
    pub fn save(&self, path: &Path, metadata: &BTreeMap<String, String>) -> Result<()> {
        write(path, &self.named_tensors(), metadata)
    }

    /// Takes over the tensors of the same name and shape, and says what fits. The parameters are changed only by what matched; the
    /// caller decides whether a report that is not [exact](LoadReport::is_exact) is an error.
    ///
    /// # Errors
    /// When a tensor cannot be taken over.
    pub fn load(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<LoadReport> {
        let mut report = LoadReport::default();
        let known: HashMap<&str, ParameterId> =
            tensors.keys().filter_map(|name| self.find(name).map(|id| (name.as_str(), id))).collect();
        report.extra = tensors.keys().filter(|name| !known.contains_key(name.as_str())).cloned().collect();
        for id in self.ids() {
            let name = self.name(id).to_owned();
            let shape = self.tensor(id).dims().to_vec();
            match tensors.get(&name) {
                None => report.missing.push(name),
                Some(tensor) if tensor.dims() != shape => {
                    report.mismatched.push((name, shape, tensor.dims().to_vec()));
                }
                Some(tensor) => {
                    self.set(id, tensor.clone())?;
                    report.matched.push(name);
                }
            }
        }
        Ok(report)
    }

    /// As [`load`](Self::load) from a file; anything but an exact fit is an error that says what differs.
    ///
    /// # Errors
    /// When the file cannot be read or does not fit.
    pub fn load_exact(&mut self, path: &Path) -> Result<LoadReport> {
        let report = self.load(&read(path)?.tensors)?;
        if report.is_exact() {
            return Ok(report);
        }
        Err(file_error(path, format!("these weights are not for this model: {report}")))
    }
}
