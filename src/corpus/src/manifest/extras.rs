//! Parts of a manifest's row beyond an utterance: videos and pictures, references to other rows, and columns that the recipe names.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::fields::{Object, kind};
use crate::paths::joined;
use crate::utterances::Extra;
use crate::values::{self, BadPath};
use crate::{Array, ArrayData, ColumnSpec, DType, MediaRef, ReadOptions, Role};

/// The most axes of a column.
const MAX_AXES: usize = 8;

/// Reads the extras of one row, as far as `options` requests them; `prefix` comes before relative paths. The problem
/// follows the place's name.
pub(crate) fn read(object: &Object, prefix: &str, options: &ReadOptions<'_>) -> Result<Option<Extra>, String> {
    let mut extra = Extra::default();
    for &role in options.media.iter().filter(|role| **role != Role::Audio) {
        let paths = object.get(role.name()).map(|value| paths(role, value)).transpose()?.unwrap_or_default();
        for path in &paths {
            values::path(path).map_err(|BadPath { detail, .. }| format!("has a bad path in `{role}`: {detail}"))?;
            if path.ends_with('|') {
                return Err(format!("has a command in `{role}`; a manifest names files"));
            }
        }
        if !paths.is_empty() {
            extra.media.insert(role, paths.iter().map(|path| MediaRef(joined(prefix, path))).collect());
        }
    }
    for name in options.references {
        let ids = object.get(name).map(|value| references(name, value)).transpose()?;
        extra.references.extend(ids.map(|ids| (name.clone(), ids)));
    }
    extra.columns = columns(object, options)?;
    Ok((extra != Extra::default()).then_some(extra))
}

/// Reads the columns of one row that `options` request. The problem follows the place's name.
pub(crate) fn columns(object: &Object, options: &ReadOptions<'_>) -> Result<BTreeMap<String, Array>, String> {
    let mut columns = BTreeMap::new();
    for column in options.columns {
        match object.get(&column.name) {
            Some(value) => drop(columns.insert(column.name.clone(), array(column, value)?)),
            None if column.required => {
                return Err(format!("has no column `{}`, which prep.columns names", column.name));
            }
            None => {}
        }
    }
    Ok(columns)
}

/// Returns the paths of a medium: one, or a list for pictures. Each may be an object with a `path`.
fn paths(role: Role, value: &Value) -> Result<Vec<String>, String> {
    let path = |value: &Value| {
        let path = if let Value::Object(object) = value { object.get("path").unwrap_or(value) } else { value };
        match path.as_str().map(str::trim) {
            Some(path) if !path.is_empty() => Ok(path.to_owned()),
            _ => Err(format!("has a `{role}` with {} where a path should be", kind(value))),
        }
    };
    match value {
        Value::Array(values) if role == Role::Images => values.iter().map(path).collect(),
        one => Ok(vec![path(one)?]),
    }
}

/// References: an id, or a list of ids.
fn references(name: &str, value: &Value) -> Result<Vec<String>, String> {
    let id = |value: &Value| match value {
        Value::String(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        Value::Number(number) if !number.is_f64() => Ok(number.to_string()),
        other => Err(format!("has `{name}` with {} where the id of a row should be", kind(other))),
    };
    match value {
        Value::Array(values) => values.iter().map(id).collect(),
        one => Ok(vec![id(one)?]),
    }
}

/// Returns the value of a column: a number, a string, or lists of them in the column's shape.
fn array(column: &ColumnSpec, value: &Value) -> Result<Array, String> {
    let name = &column.name;
    let shape = shape(value).map_err(|problem| format!("column `{name}` {problem}"))?;
    let mut values = Vec::new();
    flatten(value, &mut values);
    let wrong =
        |value: &Value| format!("column `{name}` has {} where {} is expected: {value}", kind(value), column.dtype);
    macro_rules! numbers {
        ($variant:ident, $type:ty, $of:expr) => {
            ArrayData::$variant(
                values.iter().map(|value| $of(value).ok_or_else(|| wrong(value))).collect::<Result<Vec<$type>, _>>()?,
            )
        };
    }
    let single = |value: &Value| value.as_f64().map(|value| value as f32).filter(|value| value.is_finite());
    let data = match column.dtype {
        DType::F16 => {
            let half = |value: &Value| single(value).map(half::f16::from_f32).filter(|value| value.is_finite());
            numbers!(F16, half::f16, half)
        }
        DType::F32 => numbers!(F32, f32, single),
        DType::F64 => numbers!(F64, f64, Value::as_f64),
        DType::I32 => numbers!(I32, i32, |value: &Value| value.as_i64().and_then(|value| i32::try_from(value).ok())),
        DType::I64 => numbers!(I64, i64, Value::as_i64),
        DType::U8 => numbers!(U8, u8, |value: &Value| value.as_u64().and_then(|value| u8::try_from(value).ok())),
        DType::Text => numbers!(Text, String, |value: &Value| value.as_str().map(str::to_owned)),
        DType::Bytes => return Err(format!("column `{name}` has bytes, which JSON cannot represent")),
    };
    let array = Array::from_data(shape, data).map_err(|error| format!("column `{name}`: {error}"))?;
    column.check(&array).map_err(|error| error.to_string())?;
    Ok(array)
}

/// Returns the shape of nested lists. All lists at one depth have the same size.
fn shape(value: &Value) -> Result<Vec<usize>, String> {
    let mut shape = Vec::new();
    let mut level = vec![value];
    while let Some(Value::Array(first)) = level.first() {
        if shape.len() == MAX_AXES {
            return Err(format!("has lists more than {MAX_AXES} deep"));
        }
        let size = first.len();
        let mut next = Vec::new();
        for value in level {
            match value {
                Value::Array(values) if values.len() == size => next.extend(values),
                _ => return Err("has lists of different lengths".to_owned()),
            }
        }
        shape.push(size);
        level = next;
    }
    if level.iter().any(|value| value.is_array()) { Err("mixes lists and values".to_owned()) } else { Ok(shape) }
}

/// Collects the values of nested lists, whose depth [`shape`] limited.
fn flatten<'a>(value: &'a Value, values: &mut Vec<&'a Value>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| flatten(value, values)),
        one => values.push(one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The media of rows. A column of data may be called `codes`, where these are none.
    const MEDIA: [Role; 3] = [Role::Audio, Role::Video, Role::Images];

    fn read_json(json: &str, columns: &[&str]) -> Result<Option<Extra>, String> {
        let columns: Vec<ColumnSpec> = columns
            .iter()
            .map(|column| {
                let (name, text) = column.split_once(": ").unwrap();
                ColumnSpec::parse(name, text).unwrap()
            })
            .collect();
        let references = ["history", "target", "refs"].map(str::to_owned);
        let options =
            ReadOptions { media: &MEDIA, references: &references, columns: &columns, ..ReadOptions::default() };
        read(&Object::parse(json.as_bytes()).unwrap(), "d/", &options)
    }

    #[test]
    fn media_references_and_columns_are_read() {
        let json = r#"{"video": "v.mp4", "images": ["a.png", {"path": "/b.png"}], "history": ["x", 7], "target": "y",
                       "score": 1, "codes": [[1, 2, 3], [4, 5, 6]], "note": "hi", "other": {}}"#;
        let columns = ["score: f64", "codes: i64 [level 2, frame]", "note: text", "absent: f32 (optional)"];
        let extra = read_json(json, &columns).unwrap().unwrap();
        assert_eq!(extra.media[&Role::Video], [MediaRef("d/v.mp4".into())]);
        assert_eq!(extra.media[&Role::Images], [MediaRef("d/a.png".into()), MediaRef("/b.png".into())]);
        assert_eq!(extra.references["history"], ["x", "7"]);
        assert_eq!(extra.references["target"], ["y"]);
        assert_eq!(extra.columns["score"], Array::scalar(1.0f64));
        assert_eq!(extra.columns["codes"], Array::new(vec![2, 3], vec![1i64, 2, 3, 4, 5, 6]).unwrap());
        assert_eq!(extra.columns["note"], Array::text("hi"));
        assert_eq!(extra.columns.len(), 3);
        assert_eq!(read_json(r#"{"wav": "a.wav"}"#, &[]).unwrap(), None);
        let object = Object::parse(br#"{"video": 5, "history": {}}"#).unwrap();
        assert_eq!(read(&object, "", &ReadOptions::default()), Ok(None), "only what is asked for");
    }

    #[test]
    fn what_does_not_fit_names_the_column() {
        for (json, column) in [
            (r#"{"x": "1"}"#, "x: f64"),
            (r#"{"x": 1.5}"#, "x: i64"),
            (r#"{"x": 300}"#, "x: u8"),
            (r#"{"x": 1e39}"#, "x: f32"),
            (r#"{"x": 1e6}"#, "x: f16"),
            (r#"{"x": [1, [2]]}"#, "x: i64 [a]"),
            (r#"{"x": [[1], [2, 3]]}"#, "x: i64 [a, b]"),
            (r#"{"x": [1, 2]}"#, "x: i64 [a 3]"),
            (r#"{"x": [1, 2]}"#, "x: i64"),
            (r#"{"x": [1, null]}"#, "x: f32 [a]"),
            (r#"{"y": 1}"#, "x: f32"),
        ] {
            assert!(read_json(json, &[column]).unwrap_err().contains("`x`"), "{json}");
        }
        for json in
            [r#"{"images": 5}"#, r#"{"video": ["a"]}"#, r#"{"images": ["https://x/y.png"]}"#, r#"{"refs": [1.5]}"#]
        {
            assert!(read_json(json, &[]).is_err(), "{json}");
        }
        let deep = format!("{{\"x\": {}{}}}", "[".repeat(50), "]".repeat(50));
        assert!(read_json(&deep, &["x: f32 [a]"]).is_err());
    }
}
