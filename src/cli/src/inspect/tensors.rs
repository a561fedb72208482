//! A table of tensors: names, types, shapes, number of elements.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;

use crate::human;
use crate::style;
use crate::table::{Align, Cell, Table};

/// The properties of one tensor.
pub struct Row<'a> {
    /// The name.
    pub name: &'a str,
    /// The element type.
    pub dtype: String,
    /// The dimensions.
    pub shape: &'a [usize],
    /// The size in bytes.
    pub bytes: u64,
}

/// Prints one line per tensor, then the sums per type.
pub fn print<'a>(rows: impl Iterator<Item = Row<'a>>, out: &mut dyn Write) -> Result<()> {
    let mut table = Table::new(&[
        ("tensor", Align::Left),
        ("type", Align::Left),
        ("shape", Align::Left),
        ("numbers", Align::Right),
    ]);
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut tensors = 0;
    for row in rows {
        let numbers = row.shape.iter().map(|size| *size as u64).product::<u64>();
        let sum = sums.entry(row.dtype.clone()).or_default();
        sum.0 += numbers;
        sum.1 += row.bytes;
        tensors += 1;
        table.row([
            Cell::from(human::shortened(row.name, 120)),
            Cell::styled(row.dtype, style::DIM),
            Cell::from(shape(row.shape)),
            Cell::from(human::count(numbers)),
        ]);
    }
    table.print(out)?;
    let total: u64 = sums.values().map(|sum| sum.0).sum();
    let parts: Vec<String> = sums
        .iter()
        .map(|(dtype, (numbers, bytes))| format!("{} {dtype} ({})", human::count(*numbers), human::bytes(*bytes)))
        .collect();
    writeln!(
        out,
        "{} tensors, {} numbers: {}",
        human::count(tensors),
        human::count(total),
        if parts.is_empty() { "none".into() } else { parts.join(", ") }
    )?;
    Ok(())
}

/// Formats dimensions.
pub fn shape(shape: &[usize]) -> String {
    match shape {
        [] => "scalar".to_string(),
        sizes => sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" × "),
    }
}
