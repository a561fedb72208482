//! Receipts: the inputs of one part of a stage, the recipe values it used, and its outputs.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use flowmill_runner::Receipt;
use serde_json::Value;

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

/// Prints the receipt. A receipt that was changed by hand is an error.
pub fn show(path: &Path, out: &mut dyn Write) -> Result<()> {
    let receipt = Receipt::read(path)?;
    print_pairs(&summary(&receipt), 2, out)?;
    section("configuration", out)?;
    print_value(&receipt.config, 2, out)?;
    print_inputs(&receipt, out)?;
    print_outputs(&receipt, out)?;
    print_rejected(&receipt, out)
}

/// Returns part, rows and facts.
fn summary(receipt: &Receipt) -> Vec<(String, String)> {
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
    pairs.extend(receipt.facts.iter().map(|(name, value)| (name.clone(), super::json::in_one_line(value))));
    pairs
}

/// Prints the title of a section.
fn section(title: &str, out: &mut dyn Write) -> Result<()> {
    Ok(writeln!(out, "{}", style::paint(style::TITLE, title))?)
}

/// Prints the inputs of the part.
fn print_inputs(receipt: &Receipt, out: &mut dyn Write) -> Result<()> {
    let mut table = Table::new(&[("input", Align::Left), ("blake3", Align::Left)]);
    for input in receipt.inputs.iter().take(LISTED) {
        let checksum = input.blake3.as_deref().map_or("absent", short);
        table.row([Cell::from(&input.path), Cell::styled(checksum, style::DIM)]);
    }
    table.print(out)?;
    rest(receipt.inputs.len(), out)
}

/// Prints the outputs of the part.
fn print_outputs(receipt: &Receipt, out: &mut dyn Write) -> Result<()> {
    let mut table = Table::new(&[("output", Align::Left), ("size", Align::Right), ("blake3", Align::Left)]);
    for output in receipt.files.iter().take(LISTED) {
        let size = Cell::from(human::bytes(output.size));
        table.row([Cell::from(&output.path), size, Cell::styled(short(&output.blake3), style::DIM)]);
    }
    table.print(out)?;
    rest(receipt.files.len(), out)
}

/// Prints the rejected rows.
fn print_rejected(receipt: &Receipt, out: &mut dyn Write) -> Result<()> {
    if receipt.rejected.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[("rejected", Align::Left), ("reason", Align::Left)]);
    for rejection in receipt.rejected.iter().take(LISTED) {
        table.row([human::shortened(&rejection.id, 60).into(), human::shortened(&rejection.reason, 200).into()]);
    }
    table.print(out)?;
    rest(receipt.rejected.len(), out)
}

/// Returns the beginning of a checksum.
fn short(checksum: &str) -> &str {
    checksum.get(..CHECKSUM).unwrap_or(checksum)
}

/// Prints the number of lines that were left out.
fn rest(members: usize, out: &mut dyn Write) -> Result<()> {
    if members > LISTED {
        writeln!(out, "… {} more", human::count((members - LISTED) as u64))?;
    }
    Ok(())
}
