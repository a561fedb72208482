//! JSON lines, the format of metrics and journals: the last rows, and a summary of every number.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use anyhow::{Result, bail};
use flowmill_train::metrics::Course;
use serde_json::{Map, Value, json};

use super::facts::{Facts, View};
use super::json::in_one_line;
use crate::human;
use crate::table::{Align, Cell, Table};

/// The length above which a line is an error.
const LONGEST_LINE: u64 = 16 << 20;
/// The number of columns above which fields are shown below each other instead of side by side.
const COLUMNS: usize = 9;
/// The largest number of fields that are summarized.
const FIELDS: usize = 200;

/// The content of a file of JSON lines.
pub struct Lines {
    last: VecDeque<Map<String, Value>>,
    summary: Summary,
    damage: Option<String>,
}

/// Reads the file at `path` up to its end, or up to a line that is no JSON object.
pub fn read(path: &Path, view: View) -> Result<Lines> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut found = Lines { last: VecDeque::new(), summary: Summary::default(), damage: None };
    let mut number = 0_u64;
    loop {
        let line = match next_line(&mut reader, number + 1) {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) if number == 0 => return Err(error),
            Err(error) => {
                found.damage = Some(error.to_string());
                break;
            }
        };
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let row = match serde_json::from_slice(&line) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => {
                found.damage = Some(format!("line {number} is not an object"));
                break;
            }
            Err(error) => {
                found.damage = Some(format!("line {number} is not valid JSON: {error}"));
                break;
            }
        };
        found.summary.add(&flat(&row));
        found.last.push_back(row);
        if found.last.len() > view.rows {
            found.last.pop_front();
        }
    }
    Ok(found)
}

impl Facts for Lines {
    /// Prints the last lines and a summary of the numbers over all lines.
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        writeln!(out, "{} rows", human::count(self.summary.rows))?;
        let rows: Vec<_> = self.last.iter().map(flat).collect();
        print_rows(&rows, view, out)?;
        print_courses(self.summary.fields.iter().map(|(name, course)| (name.as_str(), course)), out)?;
        if self.summary.left_out {
            writeln!(out, "  … more fields")?;
        }
        Ok(())
    }

    fn json(&self) -> Result<Value> {
        let numbers: Map<String, Value> = self
            .summary
            .fields
            .iter()
            .map(|(name, course)| Ok((name.clone(), serde_json::to_value(course)?)))
            .collect::<Result<_>>()?;
        Ok(json!({ "rows": self.summary.rows, "last_rows": self.last, "numbers": numbers }))
    }

    fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }
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
fn print_rows(rows: &[Vec<(String, Value)>], view: View, out: &mut dyn Write) -> Result<()> {
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
            let pair = |(name, value): &(String, Value)| (human::shortened(name, 60), in_one_line(value, view));
            crate::table::print_pairs(&row.iter().map(pair).collect::<Vec<_>>(), 2, out)?;
        }
        return Ok(());
    }
    let columns = vec![("", Align::Right); names.len()];
    let mut table = Table::new(&columns).indented(2);
    table.row(names.iter().map(|name| Cell::styled(human::shortened(name, 30), crate::style::TITLE)));
    for row in rows {
        let cell = |name: &&String| {
            row.iter().find(|field| field.0 == **name).map_or(String::new(), |f| in_one_line(&f.1, view))
        };
        table.row(names.iter().map(|name| Cell::from(cell(name))));
    }
    Ok(table.print(out)?)
}

/// The statistics of the numbers of every field.
#[derive(Default)]
struct Summary {
    rows: u64,
    fields: Vec<(String, Course)>,
    left_out: bool,
}

impl Summary {
    /// Adds one row.
    fn add(&mut self, row: &[(String, Value)]) {
        self.rows += 1;
        for (name, value) in row {
            let Some(value) = value.as_f64() else { continue };
            if let Some((_, course)) = self.fields.iter_mut().find(|field| field.0 == *name) {
                course.add(value);
            } else if self.fields.len() < FIELDS {
                self.fields.push((name.clone(), Course::new(value)));
            } else {
                self.left_out = true;
            }
        }
    }
}

/// Prints one line per number that was measured again and again.
pub fn print_courses<'a>(courses: impl Iterator<Item = (&'a str, &'a Course)>, out: &mut dyn Write) -> Result<()> {
    let columns = ["field", "values", "first", "last", "smallest", "largest", "mean"];
    let aligned = columns.map(|title| (title, if title == "field" { Align::Left } else { Align::Right }));
    let mut table = Table::new(&aligned).indented(2);
    for (name, course) in courses {
        let values = [course.first, course.last, course.min, course.max, course.mean];
        let head = [Cell::from(human::shortened(name, 40)), Cell::from(human::count(course.values))];
        table.row(head.into_iter().chain(values.map(|value| Cell::from(human::number(value)))));
    }
    if !table.is_empty() {
        writeln!(out)?;
        table.print(out)?;
    }
    Ok(())
}
