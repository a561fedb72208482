//! PyTorch files and NumPy arrays: tensors and scalars by name, or the values of a saved dict. No element of a tensor is read.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use flowmill_weights::{Archive, PickleFile, PickleValue};

use crate::human;
use crate::style;
use crate::table::{Align, Cell, Table, print_pairs};

use super::tensors;

/// The number of characters of a name or a text that are shown.
const TEXT: usize = 120;
/// The number of items of a list that are shown.
const ITEMS: usize = 6;

/// Prints the content of the file; at most `rows` of its values without tensors.
pub fn show(path: &Path, rows: usize, out: &mut dyn Write) -> Result<()> {
    match Archive::open(path) {
        Ok(archive) => show_tensors(&archive, out),
        Err(error) => match PickleFile::open(path) {
            Ok(PickleFile { value: PickleValue::Object(_), .. }) => Err(error.into()),
            Ok(file) => {
                if has_tensors(&file.value) {
                    style::warning(&format!("not usable as weights: {error}"));
                }
                show_values(&file.value, rows, out)
            }
            Err(_) => Err(error.into()),
        },
    }
}

/// Prints the tensors of a state dict, the scalars next to them, and everything else in the file.
pub fn show_tensors(archive: &Archive<'_>, out: &mut dyn Write) -> Result<()> {
    let shortened = |text: &str| human::shortened(text, TEXT);
    if let Some(entry) = &archive.entry {
        writeln!(out, "the state dict is its entry `{entry}`")?;
    }
    for (title, pairs) in [
        ("scalars", archive.scalars.iter().map(|(name, value)| (name, value.to_string())).collect::<Vec<_>>()),
        ("left out", archive.left_out.iter().map(|(name, value)| (name, value.clone())).collect()),
    ] {
        if !pairs.is_empty() {
            writeln!(out, "{}", style::paint(style::TITLE, title))?;
            let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| (shortened(name), shortened(&value))).collect();
            print_pairs(&pairs, 2, out)?;
        }
    }
    tensors::print(
        archive.tensors.iter().map(|(name, view)| tensors::Row {
            name,
            dtype: view.element().to_string(),
            shape: view.shape(),
            bytes: view.byte_count(),
        }),
        out,
    )
}

/// Prints the entries of a dict, or the value itself.
fn show_values(value: &PickleValue, rows: usize, out: &mut dyn Write) -> Result<()> {
    let Some(entries) = value.as_dict() else {
        return Ok(writeln!(out, "{}", in_one_line(value))?);
    };
    let about = if has_tensors(value) { "" } else { ", no tensors of a state dict" };
    writeln!(out, "a dict of {} entries{about}", human::count(entries.len() as u64))?;
    let mut table = Table::new(&[("key", Align::Left), ("value", Align::Left)]);
    for (key, value) in entries.iter().take(rows) {
        table.row([Cell::styled(in_one_line(key), style::DIM), Cell::from(in_one_line(value))]);
    }
    table.print(out)?;
    if entries.len() > rows {
        writeln!(out, "… {} more", human::count((entries.len() - rows) as u64))?;
    }
    Ok(())
}

/// Returns whether it is a dict that contains tensors itself.
fn has_tensors(value: &PickleValue) -> bool {
    value.as_dict().is_some_and(|entries| entries.iter().any(|(_, value)| matches!(value, PickleValue::Tensor(_))))
}

/// Formats a value briefly, with the first items of a list.
fn in_one_line(value: &PickleValue) -> String {
    let first = |items: Vec<String>, length: usize| {
        let rest = if length > items.len() { ", …" } else { "" };
        format!("{}: {}{rest}", value.summary(), items.join(", "))
    };
    match value {
        PickleValue::Text(text) => human::shortened(text, TEXT),
        PickleValue::Bool(value) => value.to_string(),
        PickleValue::Int(value) => value.to_string(),
        PickleValue::Long(value) => value.to_string(),
        PickleValue::Float(value) => human::number(*value),
        PickleValue::Ints(items) => first(items.iter().take(ITEMS).map(i64::to_string).collect(), items.len()),
        PickleValue::Floats(items) => {
            first(items.iter().take(ITEMS).map(|item| human::number(*item)).collect(), items.len())
        }
        PickleValue::Dict(items) => {
            let entry = |(key, value): &(PickleValue, PickleValue)| {
                let key = key.as_text().map_or_else(|| key.summary(), |key| human::shortened(key, 40));
                format!("{key} ({})", value.summary())
            };
            first(items.iter().take(ITEMS).map(entry).collect(), items.len())
        }
        other => other.summary(),
    }
}
