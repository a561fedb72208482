//! JSON lines, the format of metrics and journals: the last rows, and a summary of every number.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Map, Value};

use super::json::in_one_line;
use crate::human;
use crate::table::{Align, Cell, Table};

/// The length above which a line is an error.
const LONGEST_LINE: u64 = 16 << 20;
/// The number of columns above which fields are shown below each other instead of side by side.
const COLUMNS: usize = 9;
/// The largest number of fields that are summarized.
const FIELDS: usize = 200;

/// Prints the last `rows` lines and a summary of the numbers over all lines.
pub fn show(path: &Path, rows: usize, out: &mut dyn Write) -> Result<()> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut last = VecDeque::new();
    let mut summary = Summary::default();
    let mut number = 0_u64;
    while let Some(line) = next_line(&mut reader, number + 1)? {
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let row = match serde_json::from_slice(&line) {
            Ok(Value::Object(fields)) => flat(&fields),
            Ok(_) => bail!("line {number} is not an object"),
            Err(error) => bail!("line {number} is not valid JSON: {error}"),
        };
        summary.add(&row);
        last.push_back(row);
        if last.len() > rows {
            last.pop_front();
        }
    }
    writeln!(out, "{} rows", human::count(summary.rows))?;
    print_rows(last.make_contiguous(), out)?;
    summary.print(out)
}

/// Returns the next line without its end, or none at the end of the file.
fn next_line(reader: &mut impl BufRead, number: u64) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reader.take(LONGEST_LINE).read_until(b'\n', &mut line)? as u64;
    if read == LONGEST_LINE {
        bail!("line {number} is longer than {}", human::bytes(LONGEST_LINE));
    }
    Ok((read > 0).then_some(line))
}

/// Returns the fields of a row, with those of nested objects as `outer.inner`.
fn flat(fields: &Map<String, Value>) -> Vec<(String, Value)> {
    let mut row = Vec::new();
    for (name, value) in fields {
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                row.extend(flat(inner).into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
            }
            other => row.push((name.clone(), other.clone())),
        }
    }
    row
}

/// Prints rows: as a table if there are few columns, otherwise each as a block.
fn print_rows(rows: &[Vec<(String, Value)>], out: &mut dyn Write) -> Result<()> {
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if !names.contains(&name) && names.len() <= COLUMNS {
            names.push(name);
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    if names.len() > COLUMNS {
        for row in rows {
            writeln!(out)?;
            let pair = |(name, value): &(String, Value)| (human::shortened(name, 60), in_one_line(value));
            crate::table::print_pairs(&row.iter().map(pair).collect::<Vec<_>>(), 2, out)?;
        }
        return Ok(());
    }
    let columns = vec![("", Align::Right); names.len()];
    let mut table = Table::new(&columns).indented(2);
    table.row(names.iter().map(|name| Cell::styled(human::shortened(name, 30), crate::style::TITLE)));
    for row in rows {
        let cell =
            |name: &&String| row.iter().find(|field| field.0 == **name).map_or(String::new(), |f| in_one_line(&f.1));
        table.row(names.iter().map(|name| Cell::from(cell(name))));
    }
    Ok(table.print(out)?)
}

/// The statistics of the numbers of every field.
#[derive(Default)]
struct Summary {
    rows: u64,
    fields: Vec<(String, Numbers)>,
    left_out: bool,
}

/// The numbers of one field.
#[derive(Clone, Copy)]
struct Numbers {
    count: u64,
    first: f64,
    last: f64,
    smallest: f64,
    largest: f64,
    sum: f64,
}

impl Summary {
    /// Adds one row.
    fn add(&mut self, row: &[(String, Value)]) {
        self.rows += 1;
        for (name, value) in row {
            let Some(value) = value.as_f64() else { continue };
            if let Some((_, numbers)) = self.fields.iter_mut().find(|field| field.0 == *name) {
                numbers.add(value);
            } else if self.fields.len() < FIELDS {
                self.fields.push((name.clone(), Numbers::new(value)));
            } else {
                self.left_out = true;
            }
        }
    }

    /// Prints one line per field.
    fn print(&self, out: &mut dyn Write) -> Result<()> {
        let columns = ["field", "values", "first", "last", "smallest", "largest", "mean"];
        let aligned = columns.map(|title| (title, if title == "field" { Align::Left } else { Align::Right }));
        let mut table = Table::new(&aligned).indented(2);
        for (name, numbers) in &self.fields {
            let mean = numbers.sum / numbers.count as f64;
            let values = [numbers.first, numbers.last, numbers.smallest, numbers.largest, mean];
            let head = [Cell::from(human::shortened(name, 40)), Cell::from(human::count(numbers.count))];
            table.row(head.into_iter().chain(values.map(|value| Cell::from(human::number(value)))));
        }
        if !table.is_empty() {
            writeln!(out)?;
            table.print(out)?;
        }
        if self.left_out {
            writeln!(out, "  … more fields")?;
        }
        Ok(())
    }
}

impl Numbers {
    /// Creates the statistics with the first number.
    fn new(value: f64) -> Self {
        Self { count: 1, first: value, last: value, smallest: value, largest: value, sum: value }
    }

    /// Adds one more number.
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.last = value;
        self.smallest = self.smallest.min(value);
        self.largest = self.largest.max(value);
        self.sum += value;
    }
}
