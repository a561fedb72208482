//! Receipts: the inputs of one part of a stage, the recipe values it used, and its outputs.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use flowmill_runner::Receipt;
use serde_json::Value;

use super::facts::{Facts, View};
use super::json::print_value;
use crate::human;
use crate::style;
use crate::table::{Align, Cell, Table, print_pairs};

/// The number of files and rejected rows that are listed.
const LISTED: usize = 50;
/// The number of digits of a checksum that are shown.
const CHECKSUM: usize = 16;

/// Returns whether a JSON value has the fields of a receipt, under its checksum.
pub fn looks_like_one(value: &Value) -> bool {
    let Some(content) = value.get("content") else { return false };
    ["stage", "key", "config", "inputs", "outputs"].iter().all(|field| content.get(field).is_some())
}

/// Reads the receipt at `path`. A receipt that was changed by hand is an error.
pub fn read(path: &Path) -> Result<Receipt> {
    Ok(Receipt::read(path)?)
}

impl Facts for Receipt {
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        print_pairs(&summary(self, view), 2, out)?;
        section("configuration", out)?;
        print_value(&self.config, 2, view, out)?;
        print_inputs(self, view, out)?;
        print_outputs(self, view, out)?;
        print_rejected(self, view, out)
    }

    fn json(&self) -> Result<Value> {
        Ok(serde_json::json!({ "receipt": self }))
    }
}

/// Returns part, rows and facts.
fn summary(receipt: &Receipt, view: View) -> Vec<(String, String)> {
    let mut pairs = vec![
        ("stage".to_string(), format!("{}, version {}", receipt.stage, receipt.version)),
        ("part".into(), receipt.key.clone()),
    ];
    if receipt.carries_rows {
        let rows = format!(
            "{} in, {} out, {} rejected",
            human::count(receipt.rows_in),
            human::count(receipt.rows_out),
            human::count(receipt.rejected.len() as u64)
        );
        pairs.push(("rows".into(), rows));
    }
    pairs.extend(receipt.facts.iter().map(|(name, value)| (name.clone(), super::json::in_one_line(value, view))));
    pairs
}

/// Prints the title of a section.
fn section(title: &str, out: &mut dyn Write) -> Result<()> {
    Ok(writeln!(out, "{}", style::paint(style::TITLE, title))?)
}

/// Prints the inputs of the part.
fn print_inputs(receipt: &Receipt, view: View, out: &mut dyn Write) -> Result<()> {
    let mut table = Table::new(&[("input", Align::Left), ("blake3", Align::Left)]);
    for input in receipt.inputs.iter().take(view.items(LISTED)) {
        let checksum = input.blake3.as_deref().map_or("absent", short);
        table.row([Cell::from(&input.path), Cell::styled(checksum, style::DIM)]);
    }
    table.print(out)?;
    rest(receipt.inputs.len(), view, out)
}

/// Prints the outputs of the part.
fn print_outputs(receipt: &Receipt, view: View, out: &mut dyn Write) -> Result<()> {
    let mut table = Table::new(&[("output", Align::Left), ("size", Align::Right), ("blake3", Align::Left)]);
    for output in receipt.files.iter().take(view.items(LISTED)) {
        let size = Cell::from(human::bytes(output.size));
        table.row([Cell::from(&output.path), size, Cell::styled(short(&output.blake3), style::DIM)]);
    }
    table.print(out)?;
    rest(receipt.files.len(), view, out)
}

/// Prints the rejected rows.
fn print_rejected(receipt: &Receipt, view: View, out: &mut dyn Write) -> Result<()> {
    if receipt.rejected.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[("rejected", Align::Left), ("reason", Align::Left)]);
    for rejection in receipt.rejected.iter().take(view.items(LISTED)) {
        table.row([
            human::shortened(&rejection.id, view.text(60)).into(),
            human::shortened(&rejection.reason, view.text(200)).into(),
        ]);
    }
    table.print(out)?;
    rest(receipt.rejected.len(), view, out)
}

/// Returns the beginning of a checksum.
fn short(checksum: &str) -> &str {
    checksum.get(..CHECKSUM).unwrap_or(checksum)
}

/// Prints the number of lines that were left out.
fn rest(members: usize, view: View, out: &mut dyn Write) -> Result<()> {
    let listed = view.items(LISTED);
    if members > listed {
        writeln!(out, "… {} more", human::count((members - listed) as u64))?;
    }
    Ok(())
}
