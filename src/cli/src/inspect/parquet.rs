//! Parquet: columns, row groups, notes, and the first rows with long cells shortened.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ::parquet::file::metadata::ParquetMetaData;
use anyhow::{Context, Result, anyhow};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use flowmill_corpus::ColumnSpec;
use flowmill_corpus::shard::size_names;

use crate::human;
use crate::style;
use crate::table::{Align, Cell, Table, print_pairs};

/// The number of members of a list that are shown.
const MEMBERS: usize = 6;
/// The number of characters of a text that are shown.
const TEXT: usize = 90;
/// The number of characters of a text that are shown in full mode.
const WHOLE_TEXT: usize = 1 << 20;
/// The number of kinds of reasons that are shown.
const REASONS: usize = 20;
/// The number of row groups that are shown.
const ROW_GROUPS: usize = 20;

/// Prints the table. The reasons of rejected rows are counted by kind and always shown in full.
pub fn show(path: &Path, rows: usize, full: bool, out: &mut dyn Write) -> Result<()> {
    let builder = guarded(|| Ok(ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?))
        .context("its footer cannot be read; the file is truncated or modified")?;
    print_summary(builder.metadata(), out)?;
    let shapes = shapes(builder.schema());
    print_columns(builder.schema(), builder.metadata(), &shapes, out)?;
    print_row_groups(builder.metadata(), out)?;
    let rejected = is_rejected(builder.schema());
    let first = guarded(|| first_rows(builder, rows)).context("its rows cannot be read")?;
    if rejected {
        let reasons = guarded(|| reasons(path)).context("its rows cannot be read")?;
        print_reasons(reasons, out)?;
    }
    print_rows(&first, &shapes, if full || rejected { WHOLE_TEXT } else { TEXT }, out)
}

/// The columns of two or more axes, by their names.
type Shapes = BTreeMap<String, ColumnSpec>;

/// Returns the shapes in a shard's schema.
fn shapes(schema: &SchemaRef) -> Shapes {
    let (columns, _) = flowmill_corpus::shard::columns_of(schema);
    columns.into_iter().filter(|column| column.axes.len() > 1).map(|column| (column.name.clone(), column)).collect()
}

/// Returns the shape of a column in one row, from the fields with the sizes of its axes: `[8, 150]`.
fn shape_in_row(batch: &RecordBatch, column: &ColumnSpec, row: usize) -> Option<String> {
    let size = |name: &String| {
        let sizes = batch.column_by_name(name)?.as_primitive_opt::<Int32Type>()?;
        sizes.is_valid(row).then(|| sizes.value(row).to_string())
    };
    let sizes: Option<Vec<String>> = size_names(column).iter().map(size).collect();
    Some(format!("[{}]", sizes?.join(", ")))
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

/// Prints the kinds of reasons, the most frequent first.
fn print_reasons(kinds: BTreeMap<String, u64>, out: &mut dyn Write) -> Result<()> {
    let mut kinds: Vec<(String, u64)> = kinds.into_iter().collect();
    kinds.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut table = Table::new(&[("rows", Align::Right), ("reason", Align::Left)]);
    for (kind, count) in kinds.iter().take(REASONS) {
        table.row([human::count(*count).into(), human::shortened(kind, WHOLE_TEXT).into()]);
    }
    table.print(out)?;
    if kinds.len() > REASONS {
        writeln!(out, "… {} more kinds", kinds.len() - REASONS)?;
    }
    Ok(())
}

/// Runs a reader over unverified data: a panic inside becomes an error.
fn guarded<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(read));
    std::panic::set_hook(hook);
    result.unwrap_or_else(|_| Err(anyhow!("the content contradicts itself")))
}

/// Reads the first rows and nothing after them.
fn first_rows(builder: ParquetRecordBatchReaderBuilder<File>, rows: usize) -> Result<Vec<RecordBatch>> {
    let reader = builder.with_limit(rows).with_batch_size(rows.clamp(1, 1024)).build()?;
    Ok(reader.collect::<Result<_, _>>()?)
}

/// Prints the number of rows and row groups, the writer and the notes.
fn print_summary(metadata: &ParquetMetaData, out: &mut dyn Write) -> Result<()> {
    let file = metadata.file_metadata();
    let rows = u64::try_from(file.num_rows()).context("the number of rows is negative")?;
    let groups = metadata.num_row_groups();
    writeln!(out, "{} rows in {groups} row group{}", human::count(rows), if groups == 1 { "" } else { "s" })?;
    let writer = file.created_by().map(|name| ("written by".to_string(), human::shortened(name, TEXT)));
    // The Arrow schema is shown as the columns.
    let notes = file.key_value_metadata().into_iter().flatten().filter(|note| note.key != "ARROW:schema").map(|note| {
        let value = note.value.as_deref().unwrap_or("");
        (human::shortened(&note.key, 40), human::shortened(value, TEXT))
    });
    let pairs: Vec<_> = writer.into_iter().chain(notes).collect();
    Ok(print_pairs(&pairs, 2, out)?)
}

/// Prints one line per column: type with its axes, compressed and plain size, compression.
fn print_columns(schema: &SchemaRef, metadata: &ParquetMetaData, shapes: &Shapes, out: &mut dyn Write) -> Result<()> {
    let columns = [
        ("column", Align::Left),
        ("type", Align::Left),
        ("stored", Align::Right),
        ("plain", Align::Right),
        ("compression", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for field in schema.fields() {
        let (mut stored, mut plain, mut codec) = (0_u64, 0_u64, String::new());
        for chunk in metadata.row_groups().iter().flat_map(|group| group.columns()) {
            if chunk.column_path().parts().first() == Some(field.name()) {
                stored += u64::try_from(chunk.compressed_size()).unwrap_or(0);
                plain += u64::try_from(chunk.uncompressed_size()).unwrap_or(0);
                codec = chunk.compression_codec_name();
            }
        }
        let axes = shapes.get(field.name()).map(|column| {
            let names: Vec<&str> = column.axes.iter().map(|axis| axis.name.as_str()).collect();
            human::shortened(&format!(" [{}]", names.join(", ")), 60)
        });
        table.row([
            Cell::from(human::shortened(field.name(), 60)),
            Cell::styled(type_name(field.data_type()) + &axes.unwrap_or_default(), style::DIM),
            Cell::from(human::bytes(stored)),
            Cell::from(human::bytes(plain)),
            Cell::from(codec),
        ]);
    }
    Ok(table.print(out)?)
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

/// Formats a type: `list<float16>`.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) => format!("list<{}>", type_name(item.data_type())),
        DataType::FixedSizeList(item, size) => format!("list<{}; {size}>", type_name(item.data_type())),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytes".into(),
        other => human::shortened(&format!("{other}").to_lowercase(), 60),
    }
}

/// Prints the rows and bytes of every row group.
fn print_row_groups(metadata: &ParquetMetaData, out: &mut dyn Write) -> Result<()> {
    let mut table = Table::new(&[("row group", Align::Right), ("rows", Align::Right), ("stored", Align::Right)]);
    for (index, group) in metadata.row_groups().iter().enumerate().take(ROW_GROUPS) {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        let stored = u64::try_from(group.compressed_size()).unwrap_or(0);
        table.row([index.into(), human::count(rows).into(), human::bytes(stored).into()]);
    }
    table.print(out)?;
    if metadata.num_row_groups() > ROW_GROUPS {
        writeln!(out, "… {} more row groups", metadata.num_row_groups() - ROW_GROUPS)?;
    }
    Ok(())
}

/// Prints rows, each as a block of `column  value`, at most `text` characters of a value.
fn print_rows(batches: &[RecordBatch], shapes: &Shapes, text: usize, out: &mut dyn Write) -> Result<()> {
    let mut number = 0_u64;
    for batch in batches {
        for row in 0..batch.num_rows() {
            writeln!(out, "{}", style::paint(style::TITLE, format!("row {number}")))?;
            let schema = batch.schema();
            let pairs: Vec<_> = schema
                .fields()
                .iter()
                .zip(batch.columns())
                .map(|(field, column)| {
                    let shape = shapes.get(field.name());
                    let shape = shape.and_then(|column| shape_in_row(batch, column, row));
                    let shape = shape.map(|shape| shape + " ").unwrap_or_default();
                    (human::shortened(field.name(), 60), shape + &cell(column.as_ref(), row, text))
                })
                .collect();
            print_pairs(&pairs, 2, out)?;
            number += 1;
        }
    }
    Ok(())
}

/// Formats one cell briefly.
fn cell(column: &dyn Array, row: usize, text: usize) -> String {
    if column.is_null(row) {
        return "–".into();
    }
    match column.data_type() {
        DataType::Binary => bytes_cell(column.as_binary::<i32>().value(row)),
        DataType::LargeBinary => bytes_cell(column.as_binary::<i64>().value(row)),
        DataType::BinaryView => bytes_cell(column.as_binary_view().value(row)),
        DataType::List(_) => list_cell(column.as_list::<i32>().value(row).as_ref(), text),
        DataType::LargeList(_) => list_cell(column.as_list::<i64>().value(row).as_ref(), text),
        DataType::FixedSizeList(..) => list_cell(column.as_fixed_size_list().value(row).as_ref(), text),
        _ => scalar_cell(column, row, text),
    }
}

/// Formats bytes: their number, and the first ones.
fn bytes_cell(bytes: &[u8]) -> String {
    let begin: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let more = if bytes.len() > 8 { " …" } else { "" };
    format!("{} bytes: {}{more}", human::count(bytes.len() as u64), begin.join(" "))
}

/// Formats a list: its length, and the first items.
fn list_cell(items: &dyn Array, text: usize) -> String {
    let first: Vec<String> = (0..items.len().min(MEMBERS)).map(|index| cell(items, index, text)).collect();
    let more = if items.len() > MEMBERS { ", …" } else { "" };
    format!("{} × [{}{more}]", human::count(items.len() as u64), first.join(", "))
}

/// Formats any other value like Arrow.
fn scalar_cell(column: &dyn Array, row: usize, limit: usize) -> String {
    let options = FormatOptions::default();
    match ArrayFormatter::try_new(column, &options) {
        Ok(formatter) => match formatter.value(row).try_to_string() {
            Ok(text) => human::shortened(&text, limit),
            Err(error) => format!("({error})"),
        },
        Err(error) => format!("({error})"),
    }
}
