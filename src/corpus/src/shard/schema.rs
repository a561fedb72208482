//! The Arrow fields of a shard's columns.
//!
//! A column without axes is a plain field; a column with axes is a list in row-major order. For two or more axes,
//! their sizes are in extra fields after it, `NAME_AXISs`: `mel`, `mel_frames`, `mel_bins`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::{GROUP, ID};
use crate::{Axis, ColumnSpec, DType};

/// Returns the columns in the order of the file: the id and the group come first unless the list contains them.
pub(super) fn with_keys(columns: &[ColumnSpec]) -> Vec<ColumnSpec> {
    let key = |name: &str| ColumnSpec::new(name, DType::Text);
    let keys = [ID, GROUP].into_iter().filter(|name| columns.iter().all(|column| column.name != *name));
    keys.map(key).chain(columns.iter().cloned()).collect()
}

/// The schema of a shard with these columns.
pub(super) fn schema(columns: &[ColumnSpec]) -> Arc<Schema> {
    Arc::new(Schema::new(columns.iter().flat_map(fields).collect::<Vec<Field>>()))
}

/// Returns a field name that two columns of a shard would share.
pub(super) fn repeated(columns: &[ColumnSpec]) -> Option<String> {
    let mut names: Vec<String> =
        columns.iter().flat_map(|column| std::iter::once(column.name.clone()).chain(size_names(column))).collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone())
}

/// The fields of one column.
fn fields(column: &ColumnSpec) -> Vec<Field> {
    let value = data_type(column.dtype);
    let value = if column.axes.is_empty() { value } else { DataType::List(list_item(value)) };
    let sizes = size_names(column).into_iter().map(|name| Field::new(name, DataType::Int32, !column.required));
    std::iter::once(Field::new(&column.name, value, !column.required)).chain(sizes).collect()
}

/// Returns the names of the fields with the sizes of a column's axes. For one axis there is none, because a list has
/// its own size.
pub fn size_names(column: &ColumnSpec) -> Vec<String> {
    match column.axes.len() {
        0 | 1 => Vec::new(),
        _ => column.axes.iter().map(|axis| format!("{}_{}s", column.name, axis.name)).collect(),
    }
}

/// The field of a list's values, named as the Parquet format names it.
pub(super) fn list_item(value: DataType) -> Arc<Field> {
    Arc::new(Field::new("element", value, false))
}

/// The Arrow type of an element.
pub(super) fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::F16 => DataType::Float16,
        DType::F32 => DataType::Float32,
        DType::F64 => DataType::Float64,
        DType::I32 => DataType::Int32,
        DType::I64 => DataType::Int64,
        DType::U8 => DataType::UInt8,
        DType::Text => DataType::Utf8,
        DType::Bytes => DataType::Binary,
    }
}

/// Returns the element type of an Arrow type; `None` for one that shards do not have.
pub(super) fn dtype(data_type: &DataType) -> Option<DType> {
    DType::ALL.into_iter().find(|&dtype| self::data_type(dtype) == *data_type)
}

/// Returns the columns that a file's fields represent, and the names of fields that no shard has.
pub fn columns_of(schema: &Schema) -> (Vec<ColumnSpec>, Vec<String>) {
    let (mut columns, mut others): (Vec<ColumnSpec>, Vec<String>) = (Vec::new(), Vec::new());
    // True while the last column is a list whose axis sizes have not been read yet.
    let mut open = false;
    for field in schema.fields() {
        let axis = columns.last().filter(|_| open).and_then(|column| axis_of(column, field));
        if let (Some(name), Some(column)) = (axis, columns.last_mut()) {
            column.axes.retain(|axis| !axis.name.is_empty());
            column.axes.push(Axis { name, size: None });
            continue;
        }
        let (element, is_list) = match field.data_type() {
            DataType::List(item) => (item.data_type(), true),
            other => (other, false),
        };
        let Some(dtype) = dtype(element) else {
            others.push(field.name().clone());
            open = false;
            continue;
        };
        let axes = if is_list { vec![Axis { name: String::new(), size: None }] } else { Vec::new() };
        columns.push(ColumnSpec {
            name: field.name().clone(),
            dtype,
            axes,
            required: !field.is_nullable(),
            docs: String::new(),
        });
        open = is_list;
    }
    for axis in columns.iter_mut().flat_map(|column| &mut column.axes).filter(|axis| axis.name.is_empty()) {
        axis.name = "value".to_owned();
    }
    (columns, others)
}

/// Returns the axis of a list whose size is in a field.
fn axis_of(column: &ColumnSpec, field: &Field) -> Option<String> {
    let name = field.name().strip_prefix(&column.name)?.strip_prefix('_')?.strip_suffix('s')?;
    (*field.data_type() == DataType::Int32 && !name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{MelStore, speech};

    #[test]
    fn fields_follow_from_columns_and_columns_from_fields() {
        let names = |columns: &[ColumnSpec]| -> Vec<String> {
            schema(columns).fields().iter().map(|field| field.name().clone()).collect()
        };
        let speech = speech::columns(MelStore::Float16);
        let expected = "utt wav audio_data text spk utt_embedding spk_embedding speech_token lang duration sample_rate mel \
                        mel_frames mel_bins";
        assert_eq!(names(&with_keys(&speech)), expected.split_whitespace().collect::<Vec<_>>());
        let columns = with_keys(&[
            ColumnSpec::new("codes", DType::I64).fixed_axis("level", 8).axis("frame"),
            ColumnSpec::new("score", DType::F64).optional(),
        ]);
        assert_eq!(names(&columns), ["utt", "spk", "codes", "codes_levels", "codes_frames", "score"]);
        let found = |columns: &[ColumnSpec]| -> Vec<String> {
            columns_of(&schema(columns)).0.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            found(&columns)[2..],
            ["codes: i64 [level, frame]".to_owned(), "score: f64 [] (optional)".to_owned()]
        );
        assert_eq!(found(&speech)[7], "speech_token: i64 [value]");
        assert_eq!(found(&speech)[11], "mel: f16 [frame, bin]");
    }
}
