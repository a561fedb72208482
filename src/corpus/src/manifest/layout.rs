//! Layouts of the rows in a manifest, and recognition of other tools' files that are not manifests.

use serde_json::{Map, Value};

use crate::encoding;
use crate::fields::{self, Object};

/// The arrangement of rows in a file.
pub(super) enum Layout {
    /// One row per line, good or bad.
    Lines,
    /// The elements of one JSON array.
    Elements(Vec<Value>),
    /// The objects of one JSON object, by their keys.
    ById(Vec<(String, Value)>),
    /// One row over several lines.
    Row(Value),
    /// One JSON object in which no rows are found. The advice follows the file's name.
    Unknown(String),
}

impl Layout {
    /// Determines the layout from a file's bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let bytes = encoding::without_mark(bytes);
        let bytes = bytes.trim_ascii();
        match bytes.first() {
            Some(b'[') => match fields::parse(bytes) {
                Ok(Value::Array(elements)) => Self::Elements(elements),
                _ => Self::Lines,
            },
            Some(b'{') if !is_of_lines(bytes) => Self::of_object(fields::parse(bytes)),
            _ => Self::Lines,
        }
    }

    /// Determines the layout of a file that is one JSON object.
    fn of_object(object: Result<Value, String>) -> Self {
        let object = match object {
            Ok(Value::Object(object)) => object,
            Ok(_) => return Self::Lines,
            Err(problem) => {
                return Self::Unknown(format!(
                    "begins with a JSON object over several lines, and {problem}; write one object per line"
                ));
            }
        };
        if is_row(&object) {
            return Self::Row(Value::Object(object));
        }
        if !object.is_empty() && object.values().all(Value::is_object) {
            // Tools put the rows below one key, such as `utts`.
            return match object.len() {
                1 => Self::of_only(object),
                _ => Self::ById(object.into_iter().collect()),
            };
        }
        Self::Unknown(unknown(&Value::Object(object)))
    }

    /// Determines the layout of an object that contains one object.
    fn of_only(object: Map<String, Value>) -> Self {
        let nested = |value: &Value| value.as_object().is_some_and(|inner| inner.values().all(Value::is_object));
        match object.values().next() {
            Some(inner) if nested(inner) && inner.as_object().is_some_and(|inner| !inner.is_empty()) => {
                Self::Unknown(unknown(&Value::Object(object)))
            }
            _ => Self::ById(object.into_iter().collect()),
        }
    }
}

/// Returns whether a file that begins with `{` has an object per line: its first line is one, or its second begins
/// one too.
fn is_of_lines(bytes: &[u8]) -> bool {
    let mut lines =
        bytes.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    match lines.next() {
        None => !matches!(fields::parse(first), Ok(Value::Object(object)) if holds_rows(&object)),
        Some(second) => second.starts_with(b"{") || fields::parse(first).is_ok(),
    }
}

/// Returns whether an object is not a row itself but contains rows: by their ids, or in a list of objects that are
/// not the parts of a row.
fn holds_rows(object: &Map<String, Value>) -> bool {
    let list =
        |value: &Value| value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(Value::is_object));
    let by_id = !object.is_empty() && object.values().all(Value::is_object);
    let holds = by_id || (object.values().any(list) && !object.contains_key("supervisions"));
    holds && !is_row(object)
}

/// Returns whether an object names a recording, a video or pictures.
fn is_row(object: &Map<String, Value>) -> bool {
    Object::of(Value::Object(object.clone()))
        .is_ok_and(|row| row.audio().is_some() || row.has("video") || row.has("images"))
}

/// Returns advice for an object of an unknown layout.
fn unknown(object: &Value) -> String {
    let keys = object.as_object().into_iter().flatten().take(5).map(|(key, _)| format!("`{key}`"));
    let keys = keys.collect::<Vec<_>>().join(", ");
    format!(
        "is one JSON object (of {keys}), not one per line, and its rows are nested deeper; write one line per utterance: \
         {{\"audio_filepath\": …, \"offset\": …, \"duration\": …, \"text\": …}}"
    )
}
