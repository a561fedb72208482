//! Values of Arrow arrays as JSON, for the fields of rows.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use serde_json::{Map, Value};

/// The deepest nesting of values.
const DEEPEST: usize = 16;

/// Returns the fields of a row. Bytes and values of other types are null.
pub(super) fn row(batch: &RecordBatch, at: usize) -> Map<String, Value> {
    let schema = batch.schema_ref().fields();
    schema.iter().zip(batch.columns()).map(|(field, array)| (field.name().clone(), value(array, at, 0))).collect()
}

fn value(array: &dyn Array, at: usize, depth: usize) -> Value {
    if array.is_null(at) || depth > DEEPEST {
        return Value::Null;
    }
    macro_rules! number {
        ($type:ty) => {
            Value::from(array.as_primitive::<$type>().value(at))
        };
    }
    let list = |values: &dyn Array| (0..values.len()).map(|at| value(values, at, depth + 1)).collect();
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(at).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(at).into(),
        DataType::Utf8View => array.as_string_view().value(at).into(),
        DataType::Boolean => array.as_boolean().value(at).into(),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float16 => Value::from(f64::from(array.as_primitive::<Float16Type>().value(at))),
        DataType::Float32 => number!(Float32Type),
        DataType::Float64 => number!(Float64Type),
        DataType::List(_) => list(array.as_list::<i32>().value(at).as_ref()),
        DataType::LargeList(_) => list(array.as_list::<i64>().value(at).as_ref()),
        DataType::FixedSizeList(_, _) => list(array.as_fixed_size_list().value(at).as_ref()),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let inner = fields.iter().zip(columns);
            Value::Object(inner.map(|(field, array)| (field.name().clone(), value(array, at, depth + 1))).collect())
        }
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            let key = dictionary.normalized_keys().get(at).copied();
            key.map_or(Value::Null, |key| value(dictionary.values().as_ref(), key, depth + 1))
        }
        _ => Value::Null,
    }
}
