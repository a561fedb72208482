//! YAML input and output of values without a schema.

use std::sync::Arc;

use serde_json::{Number, Value};

use crate::recipe::{RecipeError, parsed};

/// Reads one YAML document of another program; `origin` names it in messages. Memory is bounded for any text, and nothing in the text is
/// executed.
///
/// # Errors
/// Returns an error for YAML that is broken, nested too deeply or too large, with its line.
pub fn from_yaml(text: &str, origin: &str) -> Result<Value, RecipeError> {
    parsed(text, &Arc::from(origin))
}

/// Formats a value as YAML that can be read as a recipe again.
pub fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text
}

fn write(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                text.push_str(&format!("{:indent$}{}:", "", scalar(&Value::String(key.clone()))));
                write_value(value, indent + 2, text);
            }
        }
        other => text.push_str(&format!("{:indent$}{}\n", "", inline(other))),
    }
}

fn write_value(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            write(value, indent, text);
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            text.push('\n');
            for item in items {
                text.push_str(&format!("{:indent$}- {}\n", "", inline(item)));
            }
        }
        other => text.push_str(&format!(" {}\n", inline(other))),
    }
}

/// Formats a value in flow style, on one line.
fn inline(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let entry =
                |(key, value): (&String, &Value)| format!("{}: {}", scalar(&Value::String(key.clone())), inline(value));
            format!("{{{}}}", map.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        other => scalar(other),
    }
}

/// Formats a number. One of single precision has the digits that a person would write.
fn digits(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() && f64::from(value as f32) == value => format!("{:?}", value as f32),
        _ => number.to_string(),
    }
}

/// Formats a scalar. Text that could be taken for something else is quoted as JSON, which is also valid YAML.
fn scalar(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text,
        Value::Number(number) => return digits(number),
        other => return other.to_string(),
    };
    let starts_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_');
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./+".contains(c));
    let reserved =
        matches!(text.to_lowercase().as_str(), "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n");
    if starts_plain && plain && !reserved { text.clone() } else { value.to_string() }
}
