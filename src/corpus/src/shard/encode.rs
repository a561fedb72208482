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
use crate::{Array, ArrayData, ColumnSpec, DType, Row};

/// Rows as a record batch. The rows were checked against the columns.
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
    macro_rules! numbers {
        ($type:ty, $variant:ident) => {
            build(
                column,
                PrimitiveBuilder::<$type>::new(),
                values,
                |builder, array| match array.data() {
                    ArrayData::$variant(values) => append::<$type>(builder, values),
                    _ => Err(other_type(column, array)),
                },
                PrimitiveBuilder::append_null,
            )
        };
    }
    match column.dtype {
        DType::F16 => numbers!(Float16Type, F16),
        DType::F32 => numbers!(Float32Type, F32),
        DType::F64 => numbers!(Float64Type, F64),
        DType::I32 => numbers!(Int32Type, I32),
        DType::I64 => numbers!(Int64Type, I64),
        DType::U8 => numbers!(UInt8Type, U8),
        DType::Text => build(
            column,
            StringBuilder::new(),
            values,
            |builder, array| match array.data() {
                ArrayData::Text(values) => {
                    values.iter().for_each(|value| builder.append_value(value));
                    Ok(())
                }
                _ => Err(other_type(column, array)),
            },
            StringBuilder::append_null,
        ),
        DType::Bytes => {
            let bytes = |array: &&Array| match array.data() {
                ArrayData::Bytes(values) => values.iter().map(Vec::len).sum(),
                _ => 0,
            };
            let capacity = values.iter().flatten().map(bytes).sum();
            build(
                column,
                BinaryBuilder::with_capacity(values.len(), capacity),
                values,
                |builder, array| match array.data() {
                    ArrayData::Bytes(values) => {
                        values.iter().for_each(|value| builder.append_value(value));
                        Ok(())
                    }
                    _ => Err(other_type(column, array)),
                },
                BinaryBuilder::append_null,
            )
        }
    }
}

/// A plain field, or a list where the column has axes.
fn build<B: ArrayBuilder>(
    column: &ColumnSpec,
    mut builder: B,
    values: &[Option<&Array>],
    append: impl Fn(&mut B, &Array) -> Result<(), ArrowError>,
    append_null: impl Fn(&mut B),
) -> Result<ArrayRef, ArrowError> {
    if column.axes.is_empty() {
        for value in values {
            match value {
                Some(array) => append(&mut builder, array)?,
                None => append_null(&mut builder),
            }
        }
        return Ok(builder.finish());
    }
    let mut lists = ListBuilder::new(builder).with_field(list_item(data_type(column.dtype)));
    for value in values {
        if let Some(array) = value {
            append(lists.values(), array)?;
        }
        lists.append(value.is_some());
    }
    Ok(Arc::new(lists.finish()))
}

fn append<T: ArrowPrimitiveType>(builder: &mut PrimitiveBuilder<T>, values: &[T::Native]) -> Result<(), ArrowError> {
    builder.append_slice(values);
    Ok(())
}

fn other_type(column: &ColumnSpec, array: &Array) -> ArrowError {
    ArrowError::SchemaError(format!("column `{}` is of {}, a row has {}", column.name, column.dtype, array.dtype()))
}
