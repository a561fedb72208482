//! The cells of Arrow tables, for Parquet and Arrow files.

use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, anyhow};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use flowmill_corpus::ColumnSpec;
use flowmill_corpus::shard::size_names;
use serde_json::{Map, Value, json};

use super::facts::{View, WHOLE_TEXT};
use crate::table::print_pairs;
use crate::{human, style};

/// The number of members of a list that are shown.
const MEMBERS: usize = 6;
/// The number of characters of a text that are shown.
pub const TEXT: usize = 90;
/// The number of bytes that are shown.
const BYTES: usize = 8;
/// The deepest nesting of values.
const DEEPEST: usize = 16;

/// The columns of two or more axes, by their names.
pub type Shapes = BTreeMap<String, ColumnSpec>;

/// Returns the shapes in a shard's schema.
pub fn shapes(schema: &SchemaRef) -> Shapes {
    let (columns, _) = flowmill_corpus::shard::columns_of(schema);
    columns.into_iter().filter(|column| column.axes.len() > 1).map(|column| (column.name.clone(), column)).collect()
}

/// Returns the sizes of the axes of a column in one row, from the fields that have them.
fn sizes_in_row(batch: &RecordBatch, column: &ColumnSpec, row: usize) -> Option<Vec<i32>> {
    let size = |name: &String| {
        let sizes = batch.column_by_name(name)?.as_primitive_opt::<Int32Type>()?;
        sizes.is_valid(row).then(|| sizes.value(row))
    };
    size_names(column).iter().map(size).collect()
}

/// Runs a reader over unverified data: a panic inside becomes an error.
pub fn guarded<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(read));
    std::panic::set_hook(hook);
    result.unwrap_or_else(|_| Err(anyhow!("the content contradicts itself")))
}

/// Formats a type: `list<float16>`.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) => format!("list<{}>", type_name(item.data_type())),
        DataType::FixedSizeList(item, size) => format!("list<{}; {size}>", type_name(item.data_type())),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytes".into(),
        other => human::shortened(&format!("{other}").to_lowercase(), 60),
    }
}

/// A row: its columns with their values.
pub struct Row(Vec<Cell>);

/// One value of a row.
struct Cell {
    column: String,
    /// The sizes of the axes, if there are two or more.
    shape: Option<Vec<i32>>,
    value: CellValue,
}

/// The value of a cell, or of an item of one.
enum CellValue {
    Null,
    Number(String),
    Text(String),
    Bytes { length: usize, begin: Vec<u8> },
    List { length: usize, items: Vec<CellValue> },
    Struct(Vec<(String, CellValue)>),
}

/// Returns the rows of a batch. With `full`, lists have all of their items, otherwise the first ones.
pub fn rows(batch: &RecordBatch, shapes: &Shapes, view: View) -> Vec<Row> {
    let schema = batch.schema();
    let row = |row: usize| {
        let cell = |(field, column): (&std::sync::Arc<arrow::datatypes::Field>, &arrow::array::ArrayRef)| {
            let shape = shapes.get(field.name()).and_then(|spec| sizes_in_row(batch, spec, row));
            Cell { column: field.name().clone(), shape, value: value(column.as_ref(), row, view, 0) }
        };
        Row(schema.fields().iter().zip(batch.columns()).map(cell).collect())
    };
    (0..batch.num_rows()).map(row).collect()
}

fn value(column: &dyn Array, row: usize, view: View, depth: usize) -> CellValue {
    if column.is_null(row) {
        return CellValue::Null;
    }
    let list = |items: &dyn Array| CellValue::List {
        length: items.len(),
        items: (0..items.len().min(view.items(MEMBERS))).map(|at| value(items, at, view, depth + 1)).collect(),
    };
    let bytes =
        |bytes: &[u8]| CellValue::Bytes { length: bytes.len(), begin: bytes.iter().take(BYTES).copied().collect() };
    match column.data_type() {
        DataType::Binary => bytes(column.as_binary::<i32>().value(row)),
        DataType::LargeBinary => bytes(column.as_binary::<i64>().value(row)),
        DataType::BinaryView => bytes(column.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => bytes(column.as_fixed_size_binary().value(row)),
        DataType::List(_) if depth < DEEPEST => list(column.as_list::<i32>().value(row).as_ref()),
        DataType::LargeList(_) if depth < DEEPEST => list(column.as_list::<i64>().value(row).as_ref()),
        DataType::FixedSizeList(..) if depth < DEEPEST => list(column.as_fixed_size_list().value(row).as_ref()),
        DataType::Struct(fields) if depth < DEEPEST => {
            let columns = fields.iter().zip(column.as_struct().columns());
            CellValue::Struct(
                columns.map(|(field, array)| (field.name().clone(), value(array, row, view, depth + 1))).collect(),
            )
        }
        other => {
            let text = formatted(column, row);
            if other.is_numeric() || *other == DataType::Boolean {
                CellValue::Number(text)
            } else {
                CellValue::Text(text)
            }
        }
    }
}

/// Formats any other value like Arrow.
fn formatted(column: &dyn Array, row: usize) -> String {
    let options = FormatOptions::default();
    let formatted =
        ArrayFormatter::try_new(column, &options).and_then(|formatter| formatter.value(row).try_to_string());
    match formatted {
        Ok(mut text) => {
            if let Some((end, _)) = text.char_indices().nth(WHOLE_TEXT) {
                text.truncate(end);
            }
            text
        }
        Err(error) => format!("({error})"),
    }
}

/// Prints rows, each as a block of `column  value`, at most `text` characters of a value.
pub fn print_rows(rows: &[Row], text: usize, out: &mut dyn Write) -> Result<()> {
    for (number, row) in rows.iter().enumerate() {
        writeln!(out, "{}", style::paint(style::TITLE, format!("row {number}")))?;
        let pair = |cell: &Cell| {
            let shape = cell.shape.as_ref().map_or(String::new(), |shape| format!("{shape:?} "));
            (human::shortened(&cell.column, 60), shape + &cell.value.in_one_line(text))
        };
        print_pairs(&row.0.iter().map(pair).collect::<Vec<_>>(), 2, out)?;
    }
    Ok(())
}

impl CellValue {
    /// Formats the value briefly.
    fn in_one_line(&self, text: usize) -> String {
        match self {
            Self::Null => "–".into(),
            Self::Number(number) => human::shortened(number, text),
            Self::Text(words) => human::shortened(words, text),
            Self::Bytes { length, begin } => {
                let more = if *length > begin.len() { " …" } else { "" };
                format!("{} bytes: {}{more}", human::count(*length as u64), hex(begin, " "))
            }
            Self::List { length, items } => {
                let shown: Vec<String> = items.iter().map(|item| item.in_one_line(text)).collect();
                let more = if *length > items.len() { ", …" } else { "" };
                format!("{} × [{}{more}]", human::count(*length as u64), shown.join(", "))
            }
            Self::Struct(fields) => {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(name, value)| format!("{}: {}", human::shortened(name, 60), value.in_one_line(text)))
                    .collect();
                format!("{{{}}}", fields.join(", "))
            }
        }
    }

    /// Returns the value for programs.
    fn json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            // Infinities and NaN are no numbers in JSON.
            Self::Number(number) => serde_json::from_str(number).unwrap_or_else(|_| json!(number)),
            Self::Text(text) => json!(text),
            Self::Bytes { length, begin } => json!({ "bytes": length, "begin": hex(begin, "") }),
            Self::List { length, items } => {
                json!({ "length": length, "items": items.iter().map(Self::json).collect::<Vec<_>>() })
            }
            Self::Struct(fields) => {
                Value::Object(fields.iter().map(|(name, value)| (name.clone(), value.json())).collect())
            }
        }
    }
}

impl Row {
    /// Returns the row for programs. A column of two or more axes has its `shape` next to its `items`.
    pub fn json(&self) -> Value {
        let mut row = Map::new();
        for Cell { column, shape, value } in &self.0 {
            let mut value = value.json();
            if let (Some(shape), Value::Object(list)) = (shape, &mut value) {
                list.insert("shape".into(), json!(shape));
            }
            row.insert(column.clone(), value);
        }
        Value::Object(row)
    }
}

fn hex(bytes: &[u8], between: &str) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(between)
}
