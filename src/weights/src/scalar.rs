//! Scalars next to the tensors of a state dict: `epoch`, `step`, a version.

use serde_json::{Map, Value, json};
use std::fmt;

/// A scalar of a weight file.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(formatter, "{value}"),
            Self::Int(value) => write!(formatter, "{value}"),
            Self::Float(value) => write!(formatter, "{value:?}"),
            Self::Text(value) => write!(formatter, "{value}"),
        }
    }
}

impl Scalar {
    /// Converts to JSON; numbers that JSON does not have (infinities, NaN) become `{"float": "inf"}`.
    fn to_json(&self) -> Value {
        match self {
            Self::Bool(value) => json!(value),
            Self::Int(value) => json!(value),
            Self::Float(value) if value.is_finite() => json!(value),
            Self::Float(value) => json!({ "float": value.to_string() }),
            Self::Text(value) => json!(value),
        }
    }

    fn from_json(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::String(value) => Self::Text(value.clone()),
            Value::Number(value) => value.as_i64().map(Self::Int).or_else(|| value.as_f64().map(Self::Float))?,
            Value::Object(value) => Self::Float(value.get("float")?.as_str()?.parse().ok()?),
            Value::Null | Value::Array(_) => return None,
        })
    }
}

/// Encodes scalars as one metadata entry of a `.safetensors` file, whose entries are texts.
pub(super) fn to_note(scalars: &[(String, Scalar)]) -> String {
    let object: Map<String, Value> = scalars.iter().map(|(name, scalar)| (name.clone(), scalar.to_json())).collect();
    Value::Object(object).to_string()
}

/// Decodes the scalars of such an entry; `None` if it is another entry with the same name.
pub(super) fn from_note(note: &str) -> Option<Vec<(String, Scalar)>> {
    let object: Map<String, Value> = serde_json::from_str(note).ok()?;
    object.into_iter().map(|(name, value)| Some((name, Scalar::from_json(&value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_survive_their_note() {
        let scalars = [
            ("step", Scalar::Int(i64::MIN)),
            ("loss", Scalar::Float(0.1)),
            ("whole", Scalar::Float(3.0)),
            ("best", Scalar::Float(f64::INFINITY)),
            ("amp", Scalar::Bool(true)),
            ("name", Scalar::Text("a \"b\"".to_owned())),
        ];
        let scalars = scalars.map(|(name, scalar)| (name.to_owned(), scalar));
        assert_eq!(from_note(&to_note(&scalars)).unwrap(), scalars);
        assert_eq!(from_note("[1]"), None);
        assert_eq!(from_note("{\"a\": [1]}"), None);
    }
}
