//! A file of codes as the public VALL-E trainer writes it with `numpy.save`: a dictionary of `codes` and `metadata` (`vall_e/emb/process.py`).
//! Nothing in it is executed.

use std::path::Path;

use flowmill_weights::{Archive, PickleFile, PickleValue, RawTensor, WeightError};
use serde_json::{Map, Number, Value};

/// The largest array of the metadata that is read, in numbers.
const LARGEST: u64 = 4096;
/// The deepest value of the metadata.
const DEEPEST: usize = 8;

/// The codes of one utterance and their metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct Artifact {
    /// The codes in their stored shape, such as `[1, level, frame]`.
    shape: Vec<usize>,
    codes: Vec<i64>,
    /// The metadata: `text`, `phonemes`, `language`, `duration` and others.
    pub metadata: Map<String, Value>,
}

/// Codes of an utterance: `[level, frame]`, level after level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codes {
    /// The codes.
    pub values: Vec<i32>,
    /// The number of levels.
    pub levels: usize,
    /// The number of frames.
    pub frames: usize,
}

impl Artifact {
    /// Reads the bytes of a file: a dictionary, or codes alone. The problem is in words that follow the file's name.
    ///
    /// # Errors
    /// The fault of the file.
    pub fn of(bytes: &[u8], path: &Path) -> Result<Self, String> {
        if let Ok(mut archive) = Archive::from_bytes(bytes, path) {
            if archive.tensors.len() != 1 {
                return Err(no_codes("several arrays"));
            }
            let tensor = archive.load(0).map_err(|error| fault(&error))?;
            let (shape, codes) = integers(&tensor)?;
            return Ok(Self { shape, codes, metadata: Map::new() });
        }
        let mut file = PickleFile::from_bytes(bytes, path).map_err(|error| fault(&error))?;
        let dictionary = match std::mem::replace(&mut file.value, PickleValue::None) {
            PickleValue::Objects(items) => match <[PickleValue; 1]>::try_from(items) {
                Ok([only]) => only,
                Err(items) => return Err(no_codes(&format!("an array of {} objects", items.len()))),
            },
            other => other,
        };
        let Some(PickleValue::Tensor(view)) = dictionary.get("codes") else {
            let found = dictionary.get("codes").map_or_else(|| dictionary.summary(), PickleValue::summary);
            return Err(no_codes(&found));
        };
        let tensor = file.load(view).map_err(|error| fault(&error))?;
        let (shape, codes) = integers(&tensor)?;
        let metadata = match dictionary.get("metadata").map(|metadata| json(&mut file, metadata, 0)) {
            Some(Some(Value::Object(metadata))) => metadata,
            None | Some(None | Some(Value::Null)) => Map::new(),
            Some(Some(other)) => {
                return Err(format!("has a `metadata` that is {}, no dictionary", crate::fields::kind(&other)));
            }
        };
        Ok(Self { shape, codes, metadata })
    }

    /// Returns the codes of a codec with this number of levels and of codes per level.
    ///
    /// # Errors
    /// The difference, in words that follow the row's name.
    pub fn codes(&self, levels: usize, vocabulary: usize) -> Result<Codes, String> {
        let (first, second) = match *self.shape.as_slice() {
            [1, first, second] | [first, second] => (first, second),
            _ => return Err(format!("codes of shape {:?} instead of [1, level, frame]", self.shape)),
        };
        // The trainer reads a shape whose first size is smaller as [level, frame].
        let by_level = first == levels || (second != levels && first < second);
        let (found, frames) = if by_level { (first, second) } else { (second, first) };
        if found != levels {
            return Err(format!("codes of {found} levels instead of {levels}"));
        }
        if frames == 0 {
            return Err("no codes: it has no frame".to_owned());
        }
        let (level_step, frame_step) = if by_level { (frames, 1) } else { (1, levels) };
        let places =
            (0..levels).flat_map(|level| (0..frames).map(move |frame| level * level_step + frame * frame_step));
        let mut values = Vec::with_capacity(levels * frames);
        for (at, place) in places.enumerate() {
            let code = self.codes[place];
            match usize::try_from(code).ok().filter(|code| *code < vocabulary).and_then(|code| i32::try_from(code).ok())
            {
                Some(code) => values.push(code),
                None => {
                    let (level, frame) = (at / frames, at % frames);
                    return Err(format!("code {code} at level {level}, frame {frame} is not below {vocabulary}"));
                }
            }
        }
        if values.iter().all(|code| *code == 0) {
            return Err("all codes are zero, which an encoder leaves that failed".to_owned());
        }
        Ok(Codes { values, levels, frames })
    }

    /// Returns the length of the recording in seconds: as stated, or that of its samples.
    pub fn seconds(&self) -> Option<f64> {
        seconds(&self.metadata)
    }
}

/// Returns the length of a recording that metadata give.
pub(super) fn seconds(metadata: &Map<String, Value>) -> Option<f64> {
    let number = |name: &str| metadata.get(name).and_then(Value::as_f64);
    let seconds = number("duration").or_else(|| Some(number("original_length")? / number("sample_rate")?));
    seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
}

/// Returns phonemes without the marks of words in other languages, which the trainer removes too: `(en)ˈʌpdeɪt(de)`.
pub(super) fn without_switches(phonemes: &str) -> String {
    let mut kept = String::with_capacity(phonemes.len());
    let mut rest = phonemes;
    while let Some((before, after)) = rest.split_once('(') {
        kept.push_str(before);
        let mark =
            after.get(..3).filter(|mark| mark.ends_with(')') && mark[..2].bytes().all(|b| b.is_ascii_lowercase()));
        if mark.is_none() {
            kept.push('(');
        }
        rest = if mark.is_some() { &after[3..] } else { after };
    }
    kept.push_str(rest);
    kept
}

fn fault(error: &WeightError) -> String {
    match error {
        WeightError::File { message, .. } => format!("cannot be read: {message}"),
        other => format!("cannot be read: {other}"),
    }
}

fn no_codes(found: &str) -> String {
    format!("holds {found}, no dictionary with an array `codes`")
}

/// Returns the shape and the elements of an array of integers.
fn integers(tensor: &RawTensor) -> Result<(Vec<usize>, Vec<i64>), String> {
    let elements =
        tensor.to_integers().ok_or_else(|| format!("has codes of type {}, no integers", tensor.element()))?;
    let elements = elements.map_err(|error| fault(&error))?;
    let values = elements.flatten_all().and_then(|elements| elements.to_vec1::<i64>());
    Ok((tensor.shape().to_vec(), values.map_err(|error| error.to_string())?))
}

/// Returns a value as JSON; `None` for what JSON does not have.
fn json(file: &mut PickleFile<'_>, value: &PickleValue, depth: usize) -> Option<Value> {
    if depth > DEEPEST {
        return None;
    }
    let float = |value: f64| Number::from_f64(value).map_or(Value::Null, Value::Number);
    Some(match value {
        PickleValue::None => Value::Null,
        PickleValue::Bool(value) => Value::Bool(*value),
        PickleValue::Int(value) => Value::from(*value),
        PickleValue::Float(value) => float(*value),
        PickleValue::Text(text) => Value::from(&**text),
        PickleValue::Ints(items) => Value::from(items.clone()),
        PickleValue::Floats(items) => items.iter().copied().map(float).collect(),
        PickleValue::List(items) | PickleValue::Tuple(items) => {
            items.iter().filter_map(|item| json(file, item, depth + 1)).collect()
        }
        PickleValue::Dict(items) => {
            let mut object = Map::new();
            for (key, value) in items {
                if let (Some(key), Some(value)) = (key.as_text(), json(file, value, depth + 1)) {
                    object.insert(key.to_owned(), value);
                }
            }
            Value::Object(object)
        }
        PickleValue::Tensor(view) if view.element_count() <= LARGEST => {
            let tensor = file.load(view).ok()?;
            match tensor.to_floats() {
                Some(floats) => {
                    let floats = floats.ok()?.flatten_all().ok()?.to_vec1::<f32>().ok()?;
                    floats.into_iter().map(|value| float(value.into())).collect()
                }
                None => Value::from(integers(&tensor).ok()?.1),
            }
        }
        _ => return None,
    })
}
