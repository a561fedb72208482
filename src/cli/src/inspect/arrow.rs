//! Arrow IPC files and streams: columns, number of rows, and the first rows.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flowmill_corpus::arrow_file::ArrowBatches;
use serde::Serialize;
use serde_json::Value;

use super::cells::{self, Row, Shapes, TEXT, guarded, type_name};
use super::facts::{Facts, View};
use super::parquet::print_notes;
use crate::human;
use crate::style;
use crate::table::{Align, Cell, Table};

/// The content of an Arrow file.
#[derive(Serialize)]
pub struct ArrowFile {
    /// `file`, with an index at its end, or `stream`.
    layout: &'static str,
    rows: u64,
    batches: u64,
    metadata: Vec<(String, String)>,
    columns: Vec<Column>,
    #[serde(skip)]
    first: Vec<Row>,
    #[serde(skip)]
    damage: Option<String>,
}

/// A column of a table.
#[derive(Serialize)]
struct Column {
    name: String,
    r#type: String,
}

/// Reads the batches of the file at `path` up to its end, or up to damage; at most one is in memory.
pub fn read(path: &Path, view: View) -> Result<ArrowFile> {
    let mut batches = ArrowBatches::open(path)?;
    let layout = if batches.is_file() { "file" } else { "stream" };
    let mut found = ArrowFile {
        layout,
        rows: 0,
        batches: 0,
        metadata: Vec::new(),
        columns: Vec::new(),
        first: Vec::new(),
        damage: None,
    };
    loop {
        let batch = match guarded(|| Ok(batches.next_batch()?)) {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(error) => {
                found.damage = Some(format!("{error:#}"));
                break;
            }
        };
        found.rows += batch.num_rows() as u64;
        found.batches += 1;
        let wanted = view.rows.saturating_sub(found.first.len()).min(batch.num_rows());
        let first = guarded(|| Ok(cells::rows(&batch.slice(0, wanted), &Shapes::new(), view)));
        found.first.extend(first.context("its rows cannot be read")?);
    }
    if let Some(schema) = batches.schema() {
        let mut notes: Vec<_> = schema.metadata().iter().map(|(key, text)| (key.clone(), text.clone())).collect();
        notes.sort();
        found.metadata = notes;
        let column = |field: &std::sync::Arc<arrow::datatypes::Field>| Column {
            name: field.name().clone(),
            r#type: type_name(field.data_type()),
        };
        found.columns = schema.fields().iter().map(column).collect();
    }
    Ok(found)
}

impl Facts for ArrowFile {
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        let plural = if self.batches == 1 { "" } else { "es" };
        let (rows, batches) = (human::count(self.rows), human::count(self.batches));
        writeln!(out, "{rows} rows in {batches} batch{plural} of a {}", self.layout)?;
        print_notes(None, &self.metadata, view, out)?;
        let mut table = Table::new(&[("column", Align::Left), ("type", Align::Left)]);
        for column in &self.columns {
            table.row([
                Cell::from(human::shortened(&column.name, 60)),
                Cell::styled(human::shortened(&column.r#type, view.text(TEXT)), style::DIM),
            ]);
        }
        table.print(out)?;
        cells::print_rows(&self.first, view.text(TEXT), out)
    }

    fn json(&self) -> Result<Value> {
        let mut json = serde_json::to_value(self)?;
        json["metadata"] = self.metadata.iter().map(|(key, text)| (key.clone(), Value::from(text.as_str()))).collect();
        json["first_rows"] = self.first.iter().map(Row::json).collect();
        Ok(json)
    }

    fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }
}
