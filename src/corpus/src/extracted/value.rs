//! The value of a file: numbers, entries by name, or a list of them, whatever the format.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use flowmill_weights::{Archive, PickleFile, PickleValue, RawTensor};
use serde_json::Value as Json;

use crate::CorpusError;

/// The deepest dictionary or list that is read.
const DEEPEST: usize = 4;

/// A value of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A list or array of integers.
    Integers(Vec<i64>),
    /// A list or array of numbers that are not all integers.
    Numbers(Vec<f64>),
    /// Text.
    Text(String),
    /// Values by name.
    Entries(BTreeMap<String, Value>),
    /// A list of values other than numbers.
    List(Vec<Value>),
    /// Any other value, as its description.
    Other(String),
    /// A value that cannot be read, as the reason.
    Unreadable(String),
}

impl Value {
    /// Returns a short description.
    pub fn summary(&self) -> String {
        match self {
            Self::Integers(values) => format!("a list of {} integers", values.len()),
            Self::Numbers(values) => format!("a list of {} numbers that are not all integers", values.len()),
            Self::Text(_) => "text".to_owned(),
            Self::Entries(entries) => format!("a dictionary of {}", entries.len()),
            Self::List(values) => format!("a list of {} values other than numbers", values.len()),
            Self::Other(description) | Self::Unreadable(description) => description.clone(),
        }
    }

    /// Returns the only value of a list that has one, as arrays of shape `[1, N]` are written.
    pub fn unwrapped(&self) -> &Self {
        match self {
            Self::List(values) => match values.as_slice() {
                [only] => only.unwrapped(),
                _ => self,
            },
            other => other,
        }
    }

    /// Returns the first entry with one of these names.
    pub fn entry(&self, names: &[&str]) -> Option<&Self> {
        let Self::Entries(entries) = self else { return None };
        names.iter().find_map(|name| entries.get(*name))
    }
}

/// Reads a file that is neither Parquet nor tar.
///
/// # Errors
/// [`CorpusError::Io`]; [`CorpusError::Structure`] if it is damaged or of no known format.
pub(super) fn read(path: &Path) -> Result<Value, CorpusError> {
    let mut head = Vec::new();
    let opened = fs::File::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
    opened.map_err(|error| CorpusError::io("read", path, error))?;
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default();
    let bad = |problem: String| CorpusError::structure(path, problem);
    let first = head.iter().find(|byte| !byte.is_ascii_whitespace());
    match extension.as_str() {
        "safetensors" => archive(path),
        _ if head.starts_with(b"\x93NUMPY") => archive(path).or_else(|error| pickle(path).map_err(|_| error)),
        _ if head.starts_with(b"PK\x03\x04") || head.first() == Some(&0x80) => pickle(path),
        "jsonl" | "ndjson" => json_lines(path, &text(path)?),
        _ if matches!(first, Some(b'{' | b'[')) => json(path, &text(path)?),
        _ if head.is_empty() => Err(bad("is empty".to_owned())),
        _ => Err(bad("is none of PyTorch, pickle, NumPy, safetensors, Parquet, JSON and JSON lines".to_owned())),
    }
}

fn text(path: &Path) -> Result<String, CorpusError> {
    fs::read_to_string(path).map_err(|error| CorpusError::io("read", path, error))
}

/// Reads one JSON document, or several documents on lines of their own.
fn json(path: &Path, text: &str) -> Result<Value, CorpusError> {
    match serde_json::from_str(text) {
        Ok(document) => Ok(of_json(document, 0)),
        Err(error) => {
            let mut lines = text.lines().filter(|line| !line.trim().is_empty());
            let first = lines.next().is_some_and(|line| serde_json::from_str::<Json>(line).is_ok());
            if first && lines.next().is_some() {
                return json_lines(path, text);
            }
            Err(CorpusError::structure(path, format!("is no JSON: {error}")))
        }
    }
}

/// Reads JSON lines. A line that is no JSON is a value that cannot be used.
fn json_lines(path: &Path, text: &str) -> Result<Value, CorpusError> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let values: Vec<Value> = lines
        .map(|(number, line)| match serde_json::from_str(line) {
            Ok(value) => of_json(value, 1),
            Err(error) => Value::Unreadable(format!("line {number} is no JSON: {error}")),
        })
        .collect();
    if values.is_empty() {
        return Err(CorpusError::structure(path, "has no lines"));
    }
    Ok(Value::List(values))
}

fn of_json(value: Json, depth: usize) -> Value {
    if depth > DEEPEST {
        return Value::Unreadable("is nested too deeply".to_owned());
    }
    match value {
        Json::String(text) => Value::Text(text),
        Json::Object(entries) => {
            Value::Entries(entries.into_iter().map(|(name, value)| (name, of_json(value, depth + 1))).collect())
        }
        Json::Array(items) => {
            if let Some(integers) = items.iter().map(Json::as_i64).collect() {
                return Value::Integers(integers);
            }
            if let Some(numbers) = items.iter().map(Json::as_f64).collect() {
                return Value::Numbers(numbers);
            }
            Value::List(items.into_iter().map(|item| of_json(item, depth + 1)).collect())
        }
        Json::Null => Value::Other("null".to_owned()),
        Json::Bool(value) => Value::Other(value.to_string()),
        Json::Number(number) => Value::Other(format!("the number {number}")),
    }
}

/// Reads a file of arrays. An array alone is a value, several are entries.
fn archive(path: &Path) -> Result<Value, CorpusError> {
    let bad = |error: flowmill_weights::WeightError| CorpusError::structure(path, error.about(path));
    let mut archive = Archive::open(path).map_err(bad)?;
    let is_single = archive.format.name() == "npy" || path.extension().is_some_and(|extension| extension == "npy");
    let names: Vec<String> = archive.tensors.iter().map(|(name, _)| name.clone()).collect();
    let mut entries = BTreeMap::new();
    for (index, name) in names.into_iter().enumerate() {
        let value = match archive.load(index) {
            Ok(tensor) => of_tensor(&tensor),
            Err(error) => Value::Unreadable(error.about(path)),
        };
        entries.insert(name, value);
    }
    match entries.len() {
        1 if is_single => Ok(entries.into_values().next().unwrap_or(Value::Integers(Vec::new()))),
        _ => Ok(Value::Entries(entries)),
    }
}

/// Returns the elements of a tensor in row order, of which at most one axis may have several.
fn of_tensor(tensor: &RawTensor) -> Value {
    if tensor.shape().iter().filter(|size| **size != 1).count() > 1 {
        return Value::Other(format!("an array of shape {:?}", tensor.shape()));
    }
    let elements = || -> Option<Value> {
        if let Some(integers) = tensor.to_integers() {
            return Some(Value::Integers(integers.ok()?.flatten_all().ok()?.to_vec1().ok()?));
        }
        let numbers: Vec<f32> = tensor.to_floats()?.ok()?.flatten_all().ok()?.to_vec1().ok()?;
        Some(Value::Numbers(numbers.into_iter().map(f64::from).collect()))
    };
    elements().unwrap_or_else(|| Value::Other(format!("an array of {}", tensor.element().name())))
}

/// Reads what `torch.save`, `pickle.dump` or `numpy.save` wrote.
fn pickle(path: &Path) -> Result<Value, CorpusError> {
    let bad = |error: flowmill_weights::WeightError| CorpusError::structure(path, error.about(path));
    let mut file = PickleFile::open(path).map_err(bad)?;
    let value = std::mem::replace(&mut file.value, PickleValue::None);
    Ok(of_pickle(&mut file, &value, path, 0))
}

fn of_pickle(file: &mut PickleFile<'_>, value: &PickleValue, path: &Path, depth: usize) -> Value {
    if depth > DEEPEST {
        return Value::Unreadable("is nested too deeply".to_owned());
    }
    if let Some(integers) = value.to_ints() {
        return Value::Integers(integers);
    }
    if let Some(numbers) = value.to_floats() {
        return Value::Numbers(numbers);
    }
    match value {
        PickleValue::Text(text) => Value::Text(text.to_string()),
        PickleValue::Tensor(view) => match file.load(view) {
            Ok(tensor) => of_tensor(&tensor),
            Err(error) => Value::Unreadable(error.about(path)),
        },
        PickleValue::List(items) | PickleValue::Tuple(items) | PickleValue::Objects(items) => {
            let values = items.iter().map(|item| of_pickle(file, item, path, depth + 1)).collect();
            Value::List(values).unwrapped().clone()
        }
        PickleValue::Dict(items) => {
            let mut entries = BTreeMap::new();
            for (key, value) in items {
                let name = match key {
                    PickleValue::Text(text) => text.to_string(),
                    PickleValue::Int(number) => number.to_string(),
                    other => other.summary(),
                };
                entries.insert(name, of_pickle(file, value, path, depth + 1));
            }
            Value::Entries(entries)
        }
        other => Value::Other(other.summary()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_told_apart_by_their_numbers() {
        let value = |text: &str| of_json(serde_json::from_str(text).unwrap(), 0);
        assert_eq!(value("[1, 2]"), Value::Integers(vec![1, 2]));
        assert_eq!(value("[1, 2.5]"), Value::Numbers(vec![1.0, 2.5]));
        assert_eq!(value("[[1, 2]]").unwrapped(), &Value::Integers(vec![1, 2]));
        assert!(matches!(value("[\"a\", 1]"), Value::List(items) if items.len() == 2));
        assert_eq!(value("{\"a\": [1]}").entry(&["b", "a"]), Some(&Value::Integers(vec![1])));
        let deep = "[".repeat(20) + &"]".repeat(20);
        let json = serde_json::from_str(&deep).unwrap();
        assert!(format!("{:?}", of_json(json, 0)).contains("too deeply"));
    }
}
