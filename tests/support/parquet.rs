//! Reading Parquet tables that the program wrote.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Reads all rows of a table.
pub fn read(path: &Path) -> Vec<RecordBatch> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    reader.map(Result::unwrap).collect()
}

/// Returns one column of a batch in another type.
fn column(batch: &RecordBatch, name: &str, as_type: &DataType) -> arrow::array::ArrayRef {
    let column = batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name} in {}", batch.schema()));
    cast(column, as_type).unwrap()
}

/// A column of texts; missing ones are empty.
pub fn texts(path: &Path, name: &str) -> Vec<String> {
    let of_batch = |batch: RecordBatch| {
        let column = column(&batch, name, &DataType::Utf8);
        column.as_string::<i32>().iter().map(|text| text.unwrap_or("").to_string()).collect::<Vec<_>>()
    };
    read(path).into_iter().flat_map(of_batch).collect()
}

/// A column of numbers; missing ones are NaN.
pub fn numbers(path: &Path, name: &str) -> Vec<f64> {
    let of_batch = |batch: RecordBatch| {
        let column = column(&batch, name, &DataType::Float64);
        column.as_primitive::<Float64Type>().iter().map(|number| number.unwrap_or(f64::NAN)).collect::<Vec<_>>()
    };
    read(path).into_iter().flat_map(of_batch).collect()
}

/// A column of bytes.
pub fn binaries(path: &Path, name: &str) -> Vec<Vec<u8>> {
    let of_batch = |batch: RecordBatch| {
        let column = column(&batch, name, &DataType::Binary);
        column.as_binary::<i32>().iter().map(|bytes| bytes.unwrap_or_default().to_vec()).collect::<Vec<_>>()
    };
    read(path).into_iter().flat_map(of_batch).collect()
}

/// A column of lists of numbers.
pub fn lists(path: &Path, name: &str) -> Vec<Vec<f64>> {
    let as_type = DataType::List(Arc::new(Field::new("item", DataType::Float64, true)));
    let of_batch = |batch: RecordBatch| {
        let column = column(&batch, name, &as_type);
        let lists = column.as_list::<i32>().iter().map(|list| list.expect("a list"));
        lists.map(|list| list.as_primitive::<Float64Type>().values().to_vec()).collect::<Vec<_>>()
    };
    read(path).into_iter().flat_map(of_batch).collect()
}

/// A column of lists of texts; missing ones are empty.
pub fn text_lists(path: &Path, name: &str) -> Vec<Vec<String>> {
    let as_type = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    let of_batch = |batch: RecordBatch| {
        let column = column(&batch, name, &as_type);
        let texts = |list: arrow::array::ArrayRef| {
            list.as_string::<i32>().iter().map(|text| text.unwrap_or("").to_owned()).collect::<Vec<_>>()
        };
        column.as_list::<i32>().iter().map(|list| list.map(texts).unwrap_or_default()).collect::<Vec<_>>()
    };
    read(path).into_iter().flat_map(of_batch).collect()
}

/// A column of lists of bytes.
pub fn binary_lists(path: &Path, name: &str) -> Vec<Vec<Vec<u8>>> {
    let as_type = DataType::List(Arc::new(Field::new("item", DataType::Binary, true)));
    let of_batch = |batch: RecordBatch| {
        let column = column(&batch, name, &as_type);
        let bytes = |list: arrow::array::ArrayRef| {
            list.as_binary::<i32>().iter().map(|bytes| bytes.unwrap_or_default().to_vec()).collect::<Vec<_>>()
        };
        column.as_list::<i32>().iter().map(|list| bytes(list.expect("a list"))).collect::<Vec<_>>()
    };
    read(path).into_iter().flat_map(of_batch).collect()
}
