//! PyTorch files and NumPy arrays: tensors and scalars by name, or the values of a saved dict. No element of a tensor is read.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use flowmill_weights::{Archive, PickleFile, PickleValue, Scalar};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::facts::{Facts, View};
use super::tensors::{Tensor, Tensors};
use crate::human;
use crate::style;
use crate::table::{Align, Cell, Table, print_pairs};

/// The number of characters of a name or a text that are shown.
const TEXT: usize = 120;
/// The number of items of a list that are shown.
const ITEMS: usize = 6;

/// The state dict of a file.
#[derive(Serialize)]
pub struct StateDict {
    /// The entry of the file that contains it.
    entry: Option<String>,
    scalars: Map<String, Value>,
    /// Values that are neither tensors nor scalars, with descriptions.
    left_out: Map<String, Value>,
    #[serde(flatten)]
    tensors: Tensors,
}

/// The values of a file that is no state dict.
struct Saved {
    value: PickleValue,
    has_tensors: bool,
}

/// Reads the description of the tensors of the file at `path`, or its other values.
pub fn read(path: &Path) -> Result<Box<dyn Facts>> {
    match Archive::open(path) {
        Ok(archive) => Ok(Box::new(StateDict::of(&archive))),
        Err(error) => match PickleFile::open(path) {
            Ok(PickleFile { value: PickleValue::Object(_), .. }) => Err(error.into()),
            Ok(file) => {
                let has_tensors = has_tensors(&file.value);
                if has_tensors {
                    style::warning(&format!("not usable as weights: {error}"));
                }
                Ok(Box::new(Saved { value: file.value, has_tensors }))
            }
            Err(_) => Err(error.into()),
        },
    }
}

impl StateDict {
    /// Describes an open file.
    pub fn of(archive: &Archive<'_>) -> Self {
        let scalar = |value: &Scalar| match value {
            Scalar::Bool(value) => json!(value),
            Scalar::Int(value) => json!(value),
            Scalar::Float(value) => json!(value),
            Scalar::Text(text) => json!(text),
        };
        let tensor = |(name, view): &(String, flowmill_weights::TensorView)| Tensor {
            name: name.clone(),
            dtype: view.element().to_string(),
            shape: view.shape().to_vec(),
            bytes: view.byte_count(),
        };
        Self {
            entry: archive.entry.clone(),
            scalars: archive.scalars.iter().map(|(name, value)| (name.clone(), scalar(value))).collect(),
            left_out: archive.left_out.iter().map(|(name, about)| (name.clone(), json!(about))).collect(),
            tensors: archive.tensors.iter().map(tensor).collect(),
        }
    }

    /// Returns the number of tensors and of their elements by type.
    pub fn summary(&self) -> String {
        self.tensors.summary()
    }
}

impl Facts for StateDict {
    /// Prints the tensors, the scalars next to them, and everything else in the file.
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        if let Some(entry) = &self.entry {
            writeln!(out, "the state dict is its entry `{entry}`")?;
        }
        for (title, values) in [("scalars", &self.scalars), ("left out", &self.left_out)] {
            if !values.is_empty() {
                writeln!(out, "{}", style::paint(style::TITLE, title))?;
                let shortened = |text: &str| human::shortened(text, view.text(TEXT));
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let pairs: Vec<_> =
                    values.iter().map(|(name, value)| (shortened(name), shortened(&text(value)))).collect();
                print_pairs(&pairs, 2, out)?;
            }
        }
        self.tensors.print(view, out)
    }

    fn json(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }
}

impl Facts for Saved {
    /// Prints the entries of a dict, or the value itself.
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        let Some(entries) = self.value.as_dict() else {
            return Ok(writeln!(out, "{}", in_one_line(&self.value, view))?);
        };
        let about = if self.has_tensors { "" } else { ", no tensors of a state dict" };
        writeln!(out, "a dict of {} entries{about}", human::count(entries.len() as u64))?;
        let mut table = Table::new(&[("key", Align::Left), ("value", Align::Left)]);
        for (key, value) in entries.iter().take(view.rows) {
            table.row([Cell::styled(in_one_line(key, view), style::DIM), Cell::from(in_one_line(value, view))]);
        }
        table.print(out)?;
        if entries.len() > view.rows {
            writeln!(out, "… {} more", human::count((entries.len() - view.rows) as u64))?;
        }
        Ok(())
    }

    fn json(&self) -> Result<Value> {
        // Values are described like for people: a pickle may hold more than JSON can express.
        let whole = View { rows: usize::MAX, full: true };
        let Some(entries) = self.value.as_dict() else {
            return Ok(json!({ "value": in_one_line(&self.value, whole) }));
        };
        let entry = |(key, value): &(PickleValue, PickleValue)| json!({ "key": in_one_line(key, whole), "value": in_one_line(value, whole) });
        let first: Vec<Value> = entries.iter().map(entry).collect();
        Ok(json!({ "entries": first.len(), "first_entries": first }))
    }
}

/// Returns whether it is a dict that contains tensors itself.
fn has_tensors(value: &PickleValue) -> bool {
    value.as_dict().is_some_and(|entries| entries.iter().any(|(_, value)| matches!(value, PickleValue::Tensor(_))))
}

/// Formats a value briefly, with the first items of a list.
fn in_one_line(value: &PickleValue, view: View) -> String {
    let items_shown = view.items(ITEMS);
    let first = |items: Vec<String>, length: usize| {
        let rest = if length > items.len() { ", …" } else { "" };
        format!("{}: {}{rest}", value.summary(), items.join(", "))
    };
    match value {
        PickleValue::Text(text) => human::shortened(text, view.text(TEXT)),
        PickleValue::Bool(value) => value.to_string(),
        PickleValue::Int(value) => value.to_string(),
        PickleValue::Long(value) => value.to_string(),
        PickleValue::Float(value) => human::number(*value),
        PickleValue::Ints(items) => first(items.iter().take(items_shown).map(i64::to_string).collect(), items.len()),
        PickleValue::Floats(items) => {
            first(items.iter().take(items_shown).map(|item| human::number(*item)).collect(), items.len())
        }
        PickleValue::Dict(items) => {
            let entry = |(key, value): &(PickleValue, PickleValue)| {
                let key = key.as_text().map_or_else(|| key.summary(), |key| human::shortened(key, 40));
                format!("{key} ({})", value.summary())
            };
            first(items.iter().take(items_shown).map(entry).collect(), items.len())
        }
        other => other.summary(),
    }
}
