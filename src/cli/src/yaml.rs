//! Prints a JSON value as YAML that a recipe could contain.

use std::io::{self, Write};

use serde_json::Value;

/// Lists of so many characters or fewer are kept on one line.
const LINE: usize = 100;

/// Prints `value`, members of objects one per line.
///
/// # Errors
/// What the stream reports.
pub fn print(value: &Value, indent: usize, out: &mut dyn Write) -> io::Result<()> {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                print_member(&format!("{}:", text(name)), field, indent, out)?;
            }
            Ok(())
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                print_member("-", item, indent, out)?;
            }
            Ok(())
        }
        simple => writeln!(out, "{:indent$}{}", "", flow(simple)),
    }
}

/// Prints one member after its `lead`: on the same line when it is short, below it otherwise.
fn print_member(lead: &str, value: &Value, indent: usize, out: &mut dyn Write) -> io::Result<()> {
    let one_line = match value {
        Value::Object(fields) => fields.is_empty() || lead == "-",
        Value::Array(items) => items.iter().all(|item| !item.is_object()),
        _ => true,
    };
    let flat = if one_line { flow(value) } else { String::new() };
    if one_line && (flat.len() <= LINE || !(value.is_object() || value.is_array())) {
        return writeln!(out, "{:indent$}{lead} {flat}", "");
    }
    writeln!(out, "{:indent$}{lead}", "")?;
    print(value, indent + 2, out)
}

/// A value in flow style, on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let members: Vec<String> =
                fields.iter().map(|(name, field)| format!("{}: {}", text(name), flow(field))).collect();
            format!("{{{}}}", members.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(string) => text(string),
        other => other.to_string(),
    }
}

/// A text, quoted when YAML would read something else into it.
fn text(string: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./+".contains(c);
    let first_is_letter = string.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '/');
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_word = reserved.contains(&string.to_lowercase().as_str());
    if first_is_letter && string.chars().all(plain) && !is_word {
        return string.to_string();
    }
    // A JSON string is a double-quoted YAML string with the same meaning.
    Value::from(string).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_printed_as_a_recipe_would_have_them() {
        let value = serde_json::json!({
            "name": "demo",
            "prep": {"data": ["data/libri6"], "split": {"dev": 0.1}, "note": "yes", "empty": {}},
            "embed": {"extractors": [{"kind": "statistics", "dims": 192}]},
            "seed": 7,
            "weights": null,
        });
        let mut out = Vec::new();
        print(&value, 0, &mut out).unwrap();
        let expected = "\
name: demo
prep:
  data: [data/libri6]
  split:
    dev: 0.1
  note: \"yes\"
  empty: {}
embed:
  extractors:
    - {kind: statistics, dims: 192}
seed: 7
weights: null
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
