//! The state that fitting accumulates and ends in: named arrays in a `.safetensors` file.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    io::Write,
    path::Path,
};

use safetensors::{Dtype, SafeTensors, View};
use serde::de::DeserializeOwned;

use crate::StateError;

/// The metadata key under which the extractor's kind and settings are kept. One key only: the file's bytes must not
/// depend on the order of a hash map.
const METADATA_KEY: &str = "flowmill.extractor";

/// Named arrays of an extractor of one kind with one set of settings: an accumulator or a fitted state.
///
/// On disk it is a `.safetensors` file whose metadata hold `{"kind": …, "settings": …}` under `flowmill.extractor`.
/// The same state always gives the same bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    kind: String,
    settings: serde_json::Value,
    arrays: BTreeMap<String, Array>,
}

/// One array with its shape, the last axis fastest.
#[derive(Debug, Clone, PartialEq)]
struct Array {
    shape: Vec<usize>,
    values: Values,
}

/// The numbers of an [`Array`].
#[derive(Debug, Clone, PartialEq)]
enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    U64(Vec<u64>),
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Identity {
    kind: String,
    settings: serde_json::Value,
}

impl State {
    /// A state without arrays.
    pub fn new(kind: impl Into<String>, settings: serde_json::Value) -> Self {
        Self { kind: kind.into(), settings, arrays: BTreeMap::new() }
    }

    /// The kind of extractor that it belongs to.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The extractor's settings.
    pub fn settings(&self) -> &serde_json::Value {
        &self.settings
    }

    /// The settings of an extractor of this kind.
    ///
    /// # Errors
    /// [`StateError::Foreign`] when the state is of another kind, or its settings are others.
    pub fn settings_as<T: DeserializeOwned>(&self, kind: &str) -> Result<T, StateError> {
        self.expect_kind(kind)?;
        let foreign =
            |error: serde_json::Error| StateError::Foreign { wanted: kind.to_owned(), found: error.to_string() };
        serde_json::from_value(self.settings.clone()).map_err(foreign)
    }

    /// Fails unless the state belongs to this kind of extractor.
    ///
    /// # Errors
    /// [`StateError::Foreign`].
    pub fn expect_kind(&self, kind: &str) -> Result<(), StateError> {
        if self.kind == kind {
            return Ok(());
        }
        Err(StateError::Foreign { wanted: kind.to_owned(), found: self.kind.clone() })
    }

    /// Adds the arrays of another state, their names behind `name` and a dot.
    pub fn set_part(&mut self, name: &str, part: State) {
        self.arrays.extend(part.arrays.into_iter().map(|(array, values)| (format!("{name}.{array}"), values)));
    }

    /// The arrays that were added by [`set_part`](Self::set_part), as a state of the given kind and settings.
    pub fn part(&self, name: &str, kind: &str, settings: serde_json::Value) -> Self {
        let prefix = format!("{name}.");
        let arrays = self
            .arrays
            .iter()
            .filter_map(|(array, values)| Some((array.strip_prefix(&prefix)?.to_owned(), values.clone())));
        Self { kind: kind.to_owned(), settings, arrays: arrays.collect() }
    }

    /// Sets an array of 32-bit numbers.
    pub fn set_f32(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        self.set(name, shape, Values::F32(values));
    }

    /// Sets an array of 64-bit numbers.
    pub fn set_f64(&mut self, name: &str, shape: &[usize], values: Vec<f64>) {
        self.set(name, shape, Values::F64(values));
    }

    /// Sets an array of integers.
    pub fn set_u64(&mut self, name: &str, shape: &[usize], values: Vec<u64>) {
        self.set(name, shape, Values::U64(values));
    }

    fn set(&mut self, name: &str, shape: &[usize], values: Values) {
        self.arrays.insert(name.to_owned(), Array { shape: shape.to_vec(), values });
    }

    /// An array of 32-bit numbers of this shape; `None` for an axis of any length.
    ///
    /// # Errors
    /// [`StateError::Missing`].
    pub fn f32(&self, name: &str, shape: &[Option<usize>]) -> Result<&[f32], StateError> {
        match self.array(name, shape) {
            Some(Values::F32(values)) => Ok(values),
            _ => Err(self.missing(name, "f32", shape)),
        }
    }

    /// An array of 64-bit numbers of this shape; `None` for an axis of any length.
    ///
    /// # Errors
    /// [`StateError::Missing`].
    pub fn f64(&self, name: &str, shape: &[Option<usize>]) -> Result<&[f64], StateError> {
        match self.array(name, shape) {
            Some(Values::F64(values)) => Ok(values),
            _ => Err(self.missing(name, "f64", shape)),
        }
    }

    /// An array of integers of this shape; `None` for an axis of any length.
    ///
    /// # Errors
    /// [`StateError::Missing`].
    pub fn u64(&self, name: &str, shape: &[Option<usize>]) -> Result<&[u64], StateError> {
        match self.array(name, shape) {
            Some(Values::U64(values)) => Ok(values),
            _ => Err(self.missing(name, "u64", shape)),
        }
    }

    /// Iterates over all arrays of 32-bit numbers: name, shape, numbers.
    pub fn f32_arrays(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        self.arrays.iter().filter_map(|(name, array)| match &array.values {
            Values::F32(values) => Some((name.as_str(), array.shape.as_slice(), values.as_slice())),
            _ => None,
        })
    }

    fn array(&self, name: &str, shape: &[Option<usize>]) -> Option<&Values> {
        let array = self.arrays.get(name)?;
        let fits = array.shape.len() == shape.len()
            && array.shape.iter().zip(shape).all(|(has, wanted)| wanted.is_none_or(|wanted| wanted == *has));
        fits.then_some(&array.values)
    }

    fn missing(&self, name: &str, dtype: &str, shape: &[Option<usize>]) -> StateError {
        let axes: Vec<String> =
            shape.iter().map(|axis| axis.map_or("any".to_owned(), |axis| axis.to_string())).collect();
        StateError::Missing {
            kind: self.kind.clone(),
            array: name.to_owned(),
            wanted: format!("{dtype} [{}]", axes.join(", ")),
        }
    }

    /// Writes the state to a file.
    ///
    /// # Errors
    /// [`StateError::Io`]; [`StateError::Format`] when an array does not fill its shape.
    pub fn save(&self, path: &Path) -> Result<(), StateError> {
        let format = |reason: String| StateError::Format { path: path.to_owned(), reason };
        let io = |source| StateError::Io { path: path.to_owned(), source };
        let identity = Identity { kind: self.kind.clone(), settings: self.settings.clone() };
        let identity = serde_json::to_string(&identity).map_err(|error| format(error.to_string()))?;
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), identity)]);
        for (name, array) in &self.arrays {
            if array.shape.iter().product::<usize>() != array.values.len() {
                return Err(format(format!("the array {name} does not fill its shape {:?}", array.shape)));
            }
        }
        let bytes = safetensors::serialize(&self.arrays, Some(metadata)).map_err(|error| format(error.to_string()))?;
        let mut file = std::fs::File::create(path).map_err(io)?;
        file.write_all(&bytes).map_err(io)
    }

    /// Reads a state from a file.
    ///
    /// # Errors
    /// [`StateError::Io`], [`StateError::Format`].
    pub fn load(path: &Path) -> Result<Self, StateError> {
        let bytes = std::fs::read(path).map_err(|source| StateError::Io { path: path.to_owned(), source })?;
        Self::from_bytes(&bytes).map_err(|reason| StateError::Format { path: path.to_owned(), reason })
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
        let identity = metadata.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
        let identity = identity.ok_or_else(|| format!("it has no metadata {METADATA_KEY:?}"))?;
        let identity: Identity = serde_json::from_str(identity).map_err(|error| error.to_string())?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let mut state = Self::new(identity.kind, identity.settings);
        for (name, view) in tensors.iter() {
            let values = Values::from_bytes(view.dtype(), view.data())
                .ok_or_else(|| format!("the array {name} is of the type {:?}", view.dtype()))?;
            state.set(name, view.shape(), values);
        }
        Ok(state)
    }
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::U64(values) => values.len(),
        }
    }

    fn from_bytes(dtype: Dtype, bytes: &[u8]) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32(words(bytes).map(f32::from_le_bytes).collect())),
            Dtype::F64 => Some(Self::F64(words(bytes).map(f64::from_le_bytes).collect())),
            Dtype::U64 => Some(Self::U64(words(bytes).map(u64::from_le_bytes).collect())),
            _ => None,
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::U64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

impl View for &Array {
    fn dtype(&self) -> Dtype {
        match self.values {
            Values::F32(_) => Dtype::F32,
            Values::F64(_) => Dtype::F64,
            Values::U64(_) => Dtype::U64,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.values.to_bytes())
    }

    fn data_len(&self) -> usize {
        self.values.len() * if matches!(self.values, Values::F32(_)) { 4 } else { 8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let mut state = State::new("kmeans", serde_json::json!({"k": 2}));
        state.set_f32("centres", &[2, 3], vec![1.0, -2.5, 3.0, 0.0, 5.0, f32::MIN_POSITIVE]);
        state.set_f64("sum", &[1], vec![0.1]);
        state.set_u64("keys", &[2], vec![u64::MAX, 7]);
        state
    }

    #[test]
    fn a_file_gives_back_the_state_and_always_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        state().save(&first).unwrap();
        state().save(&second).unwrap();
        assert_eq!(State::load(&first).unwrap(), state());
        assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
    }

    #[test]
    fn arrays_of_another_shape_or_type_are_refused_by_name() {
        let state = state();
        assert_eq!(state.f32("centres", &[None, Some(3)]).unwrap().len(), 6);
        for error in
            [state.f32("centres", &[None, Some(4)]).unwrap_err(), state.f64("centres", &[None, None]).unwrap_err()]
        {
            assert!(error.to_string().contains("centres"), "{error}");
        }
        assert!(state.expect_kind("statistics").is_err());
    }

    #[test]
    fn a_file_that_is_cut_short_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        state().save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 4, 20, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(matches!(State::load(&path), Err(StateError::Format { .. })), "{length} bytes");
        }
    }
}
