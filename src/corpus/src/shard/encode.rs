//! Rows as the Arrow columns of a shard.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, ArrowPrimitiveType, BinaryBuilder, Int32Builder, ListBuilder, PrimitiveBuilder,
    RecordBatch, StringBuilder,
};
use arrow::datatypes::{Float16Type, Float32Type, Float64Type, Int32Type, Int64Type, Schema, UInt8Type};
use arrow::error::ArrowError;

use super::schema::{data_type, list_item};
use super::{GROUP, ID};
use crate::{Array, ColumnSpec, DType, Element, Row};

/// Converts rows to a record batch. The rows were checked against the columns.
pub(super) fn batch(schema: &Arc<Schema>, columns: &[ColumnSpec], rows: &[Row]) -> Result<RecordBatch, ArrowError> {
    let mut arrays = Vec::with_capacity(schema.fields().len());
    for column in columns {
        match column.name.as_str() {
            ID => arrays.push(strings(rows.iter().map(|row| row.id.as_str()))),
            GROUP => arrays.push(strings(rows.iter().map(|row| row.group.as_str()))),
            name => {
                let values: Vec<Option<&Array>> = rows.iter().map(|row| row.columns.get(name)).collect();
                arrays.push(values_of(column, &values)?);
                if column.axes.len() > 1 {
                    for axis in 0..column.axes.len() {
                        arrays.push(sizes(&values, axis)?);
                    }
                }
            }
        }
    }
    RecordBatch::try_new(schema.clone(), arrays)
}

fn strings<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    let mut builder = StringBuilder::new();
    values.for_each(|value| builder.append_value(value));
    Arc::new(builder.finish())
}

/// The sizes of one axis.
fn sizes(values: &[Option<&Array>], axis: usize) -> Result<ArrayRef, ArrowError> {
    let mut builder = Int32Builder::new();
    for value in values {
        let size = value.map(|array| array.shape()[axis]);
        let size = size.map(|size| i32::try_from(size).map_err(|_| too_large(size))).transpose()?;
        builder.append_option(size);
    }
    Ok(Arc::new(builder.finish()))
}

fn too_large(size: usize) -> ArrowError {
    ArrowError::CastError(format!("{size} is too large an axis"))
}

/// The values of one column.
fn values_of(column: &ColumnSpec, values: &[Option<&Array>]) -> Result<ArrayRef, ArrowError> {
    match column.dtype {
        DType::F16 => numbers::<Float16Type>(column, values),
        DType::F32 => numbers::<Float32Type>(column, values),
        DType::F64 => numbers::<Float64Type>(column, values),
        DType::I32 => numbers::<Int32Type>(column, values),
        DType::I64 => numbers::<Int64Type>(column, values),
        DType::U8 => numbers::<UInt8Type>(column, values),
        DType::Text => {
            let append = |builder: &mut StringBuilder, texts: &[String]| {
                texts.iter().for_each(|text| builder.append_value(text));
            };
            build(column, StringBuilder::new(), values, append, StringBuilder::append_null)
        }
        DType::Bytes => {
            let strings = values.iter().flatten().filter_map(|array| array.values::<Vec<u8>>().ok()).flatten();
            let builder = BinaryBuilder::with_capacity(values.len(), strings.map(Vec::len).sum());
            let append = |builder: &mut BinaryBuilder, strings: &[Vec<u8>]| {
                strings.iter().for_each(|string| builder.append_value(string));
            };
            build(column, builder, values, append, BinaryBuilder::append_null)
        }
    }
}

/// The values of a column of numbers.
fn numbers<P: ArrowPrimitiveType>(column: &ColumnSpec, values: &[Option<&Array>]) -> Result<ArrayRef, ArrowError>
where
    P::Native: Element,
{
    let builder = PrimitiveBuilder::<P>::new();
    build(column, builder, values, PrimitiveBuilder::append_slice, PrimitiveBuilder::append_null)
}

/// Builds a plain field, or a list if the column has axes.
fn build<B: ArrayBuilder, T: Element>(
    column: &ColumnSpec,
    mut builder: B,
    values: &[Option<&Array>],
    append: impl Fn(&mut B, &[T]),
    append_null: impl Fn(&mut B),
) -> Result<ArrayRef, ArrowError> {
    if column.axes.is_empty() {
        for value in values {
            match value {
                Some(array) => append(&mut builder, elements(column, array)?),
                None => append_null(&mut builder),
            }
        }
        return Ok(builder.finish());
    }
    let mut lists = ListBuilder::new(builder).with_field(list_item(data_type(column.dtype)));
    for value in values {
        if let Some(array) = value {
            append(lists.values(), elements(column, array)?);
        }
        lists.append(value.is_some());
    }
    Ok(Arc::new(lists.finish()))
}

/// The elements of a row's value.
fn elements<'a, T: Element>(column: &ColumnSpec, array: &'a Array) -> Result<&'a [T], ArrowError> {
    array.values().map_err(|_| {
        let (name, wanted, found) = (&column.name, column.dtype, array.dtype());
        ArrowError::SchemaError(format!("column `{name}` has type {wanted}, but a row has {found}"))
    })
}
