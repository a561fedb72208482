//! One JSON value: its fields as indented lines, with long lists and texts shortened.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::facts::{Facts, View};
use crate::human;

/// The size above which a file is not read as one value.
pub const LARGEST_JSON: u64 = 64 << 20;
/// The number of members of a list, and of an object inside another, that are shown.
const MEMBERS: usize = 20;
/// The number of characters of a text that are shown.
const TEXT: usize = 120;

/// The value in a file.
pub struct Json(Value);

/// Reads the value in the file at `path`.
pub fn read(path: &Path) -> Result<Json> {
    let file = File::open(path)?;
    if file.metadata()?.len() > LARGEST_JSON {
        bail!("it is larger than {}, which is too large to show as one value", human::bytes(LARGEST_JSON));
    }
    let mut content = Vec::new();
    file.take(LARGEST_JSON).read_to_end(&mut content)?;
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&content);
    Ok(Json(serde_json::from_slice(content).context("it is not valid JSON")?))
}

impl Facts for Json {
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        print_value(&self.0, 0, view, out)
    }

    fn json(&self) -> Result<Value> {
        Ok(serde_json::json!({ "value": self.0 }))
    }
}

/// Prints the members of an object or a list, one per line. Members that are objects or lists are printed below their
/// name.
pub fn print_value(value: &Value, indent: usize, view: View, out: &mut dyn Write) -> Result<()> {
    match value {
        Value::Object(fields) => {
            let limit = if indent == 0 { usize::MAX } else { view.items(MEMBERS) };
            for (name, field) in fields.iter().take(limit) {
                print_member(&human::shortened(name, view.text(TEXT)), field, indent, view, out)?;
            }
            print_rest(fields.len(), limit, indent, out)
        }
        Value::Array(items) => {
            let limit = view.items(MEMBERS);
            for (index, item) in items.iter().enumerate().take(limit) {
                print_member(&format!("[{index}]"), item, indent, view, out)?;
            }
            print_rest(items.len(), limit, indent, out)
        }
        scalar => Ok(writeln!(out, "{:indent$}{}", "", in_one_line(scalar, view))?),
    }
}

/// Prints one named member.
fn print_member(name: &str, value: &Value, indent: usize, view: View, out: &mut dyn Write) -> Result<()> {
    let simple = match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.iter().all(|item| !item.is_object() && !item.is_array()),
        _ => true,
    };
    if simple {
        writeln!(out, "{:indent$}{name}: {}", "", in_one_line(value, view))?;
        return Ok(());
    }
    writeln!(out, "{:indent$}{name}:", "")?;
    print_value(value, indent + 2, view, out)
}

/// Prints the number of members that were left out.
fn print_rest(members: usize, limit: usize, indent: usize, out: &mut dyn Write) -> Result<()> {
    if members > limit {
        writeln!(out, "{:indent$}… {} more", "", human::count((members - limit) as u64))?;
    }
    Ok(())
}

/// Formats a value on one line: texts without quotes and shortened, lists cut.
pub fn in_one_line(value: &Value, view: View) -> String {
    match value {
        Value::String(text) => human::shortened(text, view.text(TEXT)),
        Value::Number(number) if number.is_f64() => number.as_f64().map_or(number.to_string(), human::number),
        Value::Array(items) => {
            let members = view.items(MEMBERS);
            let shown: Vec<String> = items.iter().take(members).map(|item| in_one_line(item, view)).collect();
            let rest = if items.len() > members { format!(", … {} values", items.len()) } else { String::new() };
            format!("[{}{rest}]", shown.join(", "))
        }
        other => human::shortened(&other.to_string(), view.text(TEXT)),
    }
}
