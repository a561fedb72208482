//! Parquet: columns, row groups, notes, and the first rows with long cells shortened.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ::parquet::file::metadata::ParquetMetaData;
use anyhow::{Context, Result};
use arrow::array::AsArray;
use arrow::datatypes::{DataType, SchemaRef};
use serde::Serialize;
use serde_json::Value;

use super::cells::{self, Row, Shapes, TEXT, guarded, type_name};
use super::facts::{Facts, View, WHOLE_TEXT};
use crate::human;
use crate::style;
use crate::table::{Align, Cell, Table, print_pairs};

/// The number of kinds of reasons that are shown.
const REASONS: usize = 20;
/// The number of row groups that are shown.
const ROW_GROUPS: usize = 20;

/// The content of a Parquet file.
#[derive(Serialize)]
pub struct Parquet {
    rows: u64,
    created_by: Option<String>,
    metadata: Vec<(String, String)>,
    columns: Vec<Column>,
    row_groups: Vec<RowGroup>,
    /// The number of rejected rows for every kind of reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<BTreeMap<String, u64>>,
    #[serde(skip)]
    first: Vec<Row>,
}

/// A column of a table.
#[derive(Serialize)]
struct Column {
    name: String,
    r#type: String,
    /// The axes of a column of two or more axes.
    axes: Vec<String>,
    stored_bytes: u64,
    plain_bytes: u64,
    compression: String,
}

/// A row group of a table.
#[derive(Serialize)]
struct RowGroup {
    rows: u64,
    stored_bytes: u64,
}

/// Reads the description and the first rows of the file at `path`.
pub fn read(path: &Path, view: View) -> Result<Parquet> {
    let builder = guarded(|| Ok(ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?))
        .context("its footer cannot be read; the file is truncated or modified")?;
    let metadata = builder.metadata().clone();
    let schema = builder.schema().clone();
    let shapes = cells::shapes(&schema);
    let file = metadata.file_metadata();
    let first = guarded(|| first_rows(builder, &shapes, view)).context("its rows cannot be read")?;
    let reasons = match is_rejected(&schema) {
        true => Some(guarded(|| reasons(path)).context("its rows cannot be read")?),
        false => None,
    };
    // The Arrow schema is shown as the columns.
    let notes = file.key_value_metadata().into_iter().flatten().filter(|note| note.key != "ARROW:schema");
    let group = |group: &::parquet::file::metadata::RowGroupMetaData| RowGroup {
        rows: u64::try_from(group.num_rows()).unwrap_or(0),
        stored_bytes: u64::try_from(group.compressed_size()).unwrap_or(0),
    };
    Ok(Parquet {
        rows: u64::try_from(file.num_rows()).context("the number of rows is negative")?,
        created_by: file.created_by().map(str::to_owned),
        metadata: notes.map(|note| (note.key.clone(), note.value.clone().unwrap_or_default())).collect(),
        columns: columns(&schema, &metadata, &shapes),
        row_groups: metadata.row_groups().iter().map(group).collect(),
        reasons,
        first,
    })
}

/// Returns whether a table is a stage's `rejected.parquet`.
fn is_rejected(schema: &SchemaRef) -> bool {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    names.starts_with(&["id", "reason", "part"]) && schema.field(1).data_type() == &DataType::Utf8
}

/// Returns the number of rows for every kind of reason, which is the text before its first `: `.
fn reasons(path: &Path) -> Result<BTreeMap<String, u64>> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let mut kinds = BTreeMap::new();
    for batch in builder.build()? {
        for reason in batch?.column(1).as_string::<i32>().iter().flatten() {
            let kind = reason.split(": ").next().unwrap_or_default();
            match kinds.get_mut(kind) {
                Some(count) => *count += 1,
                None => drop(kinds.insert(kind.to_owned(), 1)),
            }
        }
    }
    Ok(kinds)
}

/// Reads the first rows and nothing after them.
fn first_rows(builder: ParquetRecordBatchReaderBuilder<File>, shapes: &Shapes, view: View) -> Result<Vec<Row>> {
    let reader = builder.with_limit(view.rows).with_batch_size(view.rows.clamp(1, 1024)).build()?;
    let mut rows = Vec::new();
    for batch in reader {
        rows.extend(cells::rows(&batch?, shapes, view));
    }
    Ok(rows)
}

/// Describes the columns: type with its axes, compressed and plain size, compression.
fn columns(schema: &SchemaRef, metadata: &ParquetMetaData, shapes: &Shapes) -> Vec<Column> {
    let column = |field: &std::sync::Arc<arrow::datatypes::Field>| {
        let axes = shapes.get(field.name()).map(|spec| spec.axes.iter().map(|axis| axis.name.clone()).collect());
        let mut column = Column {
            name: field.name().clone(),
            r#type: type_name(field.data_type()),
            axes: axes.unwrap_or_default(),
            stored_bytes: 0,
            plain_bytes: 0,
            compression: String::new(),
        };
        for chunk in metadata.row_groups().iter().flat_map(|group| group.columns()) {
            if chunk.column_path().parts().first() == Some(field.name()) {
                column.stored_bytes += u64::try_from(chunk.compressed_size()).unwrap_or(0);
                column.plain_bytes += u64::try_from(chunk.uncompressed_size()).unwrap_or(0);
                column.compression = chunk.compression_codec_name();
            }
        }
        column
    };
    schema.fields().iter().map(column).collect()
}

/// The name of the compression of a column chunk, in lower case and without its level.
trait CompressionName {
    fn compression_codec_name(&self) -> String;
}

impl CompressionName for ::parquet::file::metadata::ColumnChunkMetaData {
    fn compression_codec_name(&self) -> String {
        let name = format!("{:?}", self.compression()).to_lowercase();
        name.split('(').next().unwrap_or_default().replace("uncompressed", "none")
    }
}

impl Facts for Parquet {
    /// Prints the table. The reasons of rejected rows are counted by kind and always shown in full.
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        let groups = self.row_groups.len();
        let plural = if groups == 1 { "" } else { "s" };
        writeln!(out, "{} rows in {groups} row group{plural}", human::count(self.rows))?;
        print_notes(self.created_by.as_deref(), &self.metadata, view, out)?;
        self.print_columns(out)?;
        self.print_row_groups(out)?;
        if let Some(reasons) = &self.reasons {
            print_reasons(reasons, out)?;
        }
        let text = if self.reasons.is_some() { WHOLE_TEXT } else { view.text(TEXT) };
        cells::print_rows(&self.first, text, out)
    }

    fn json(&self) -> Result<Value> {
        let mut json = serde_json::to_value(self)?;
        json["metadata"] = self.metadata.iter().map(|(key, text)| (key.clone(), Value::from(text.as_str()))).collect();
        json["first_rows"] = self.first.iter().map(Row::json).collect();
        Ok(json)
    }
}

/// Prints the writer and the notes of a table.
pub fn print_notes(writer: Option<&str>, notes: &[(String, String)], view: View, out: &mut dyn Write) -> Result<()> {
    let writer = writer.map(|name| ("written by".to_owned(), human::shortened(name, view.text(TEXT))));
    let note = |(key, text): &(String, String)| (human::shortened(key, 40), human::shortened(text, view.text(TEXT)));
    let pairs: Vec<_> = writer.into_iter().chain(notes.iter().map(note)).collect();
    Ok(print_pairs(&pairs, 2, out)?)
}

/// Prints the kinds of reasons, the most frequent first.
fn print_reasons(kinds: &BTreeMap<String, u64>, out: &mut dyn Write) -> Result<()> {
    let mut kinds: Vec<(&String, &u64)> = kinds.iter().collect();
    kinds.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
    let mut table = Table::new(&[("rows", Align::Right), ("reason", Align::Left)]);
    for (kind, count) in kinds.iter().take(REASONS) {
        table.row([human::count(**count).into(), human::shortened(kind, WHOLE_TEXT).into()]);
    }
    table.print(out)?;
    if kinds.len() > REASONS {
        writeln!(out, "… {} more kinds", kinds.len() - REASONS)?;
    }
    Ok(())
}

impl Parquet {
    /// Prints one line per column.
    fn print_columns(&self, out: &mut dyn Write) -> Result<()> {
        let mut table = Table::new(&[
            ("column", Align::Left),
            ("type", Align::Left),
            ("stored", Align::Right),
            ("plain", Align::Right),
            ("compression", Align::Left),
        ]);
        for column in &self.columns {
            let axes = match column.axes.as_slice() {
                [] => String::new(),
                axes => human::shortened(&format!(" [{}]", axes.join(", ")), 60),
            };
            table.row([
                Cell::from(human::shortened(&column.name, 60)),
                Cell::styled(format!("{}{axes}", column.r#type), style::DIM),
                Cell::from(human::bytes(column.stored_bytes)),
                Cell::from(human::bytes(column.plain_bytes)),
                Cell::from(&column.compression),
            ]);
        }
        Ok(table.print(out)?)
    }

    /// Prints the rows and bytes of every row group.
    fn print_row_groups(&self, out: &mut dyn Write) -> Result<()> {
        let mut table = Table::new(&[("row group", Align::Right), ("rows", Align::Right), ("stored", Align::Right)]);
        for (index, group) in self.row_groups.iter().enumerate().take(ROW_GROUPS) {
            table.row([index.into(), human::count(group.rows).into(), human::bytes(group.stored_bytes).into()]);
        }
        table.print(out)?;
        if self.row_groups.len() > ROW_GROUPS {
            writeln!(out, "… {} more row groups", self.row_groups.len() - ROW_GROUPS)?;
        }
        Ok(())
    }
}
