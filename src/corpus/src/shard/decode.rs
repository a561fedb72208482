//! Decoding of a shard's Arrow record batches to rows. Types, counts and missing values of a file are checked.

use arrow::array::{Array as _, ArrayRef, ArrowPrimitiveType, AsArray, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, Int32Type, Int64Type, UInt8Type};

use super::schema::{columns_of, dtype, size_names};
use super::{GROUP, ID};
use crate::{Array, ArrayData, ColumnSpec, DType, Row};

/// Checks that a file with these fields has the columns, in types that can be converted to the wanted ones exactly.
pub(super) fn check(schema: &arrow::datatypes::Schema, columns: &[ColumnSpec]) -> Result<(), String> {
    let (there, _) = columns_of(schema);
    for column in columns {
        let Ok(field) = schema.field_with_name(&column.name) else {
            if column.required {
                let have: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                return Err(format!("has no column `{}`; it has {}", column.name, have.join(", ")));
            }
            continue;
        };
        let element = match field.data_type() {
            DataType::List(item) if !column.axes.is_empty() => Some(item.data_type()),
            other if column.axes.is_empty() => Some(other),
            _ => None,
        };
        if element.and_then(dtype).is_none_or(|found| !column.accepts(found)) {
            let list = if column.axes.is_empty() { "" } else { "lists of " };
            let (name, wanted, found) = (&column.name, column.dtype, field.data_type());
            return Err(format!("column `{name}` has the type {found}, expected {list}{wanted}"));
        }
        let axes = there.iter().find(|there| there.name == column.name).map_or(0, |there| there.axes.len());
        if axes > column.axes.len() {
            let wanted = column.shape_text();
            return Err(format!("column `{}` has {axes} axes, expected the axes {wanted}", column.name));
        }
        for name in size_names(column) {
            let field = schema.field_with_name(&name).map_err(|_| {
                format!(
                    "column `{}` has the axes {}, but there is no column `{name}`",
                    column.name,
                    column.shape_text()
                )
            })?;
            if *field.data_type() != DataType::Int32 {
                return Err(format!("column `{name}` has the type {}, expected Int32", field.data_type()));
            }
        }
    }
    Ok(())
}

/// A column of a batch with the sizes of its axes.
struct Values<'a> {
    column: &'a ColumnSpec,
    values: &'a ArrayRef,
    sizes: Vec<&'a ArrayRef>,
}

/// Returns the rows of a batch with the given columns. The file was checked for them ([`check`]).
pub(super) fn rows(batch: &RecordBatch, columns: &[ColumnSpec]) -> Result<Vec<Row>, String> {
    let key = |name: &str| -> Option<&StringArray> { batch.column_by_name(name)?.as_string_opt::<i32>() };
    let ids = key(ID).ok_or_else(|| format!("has no column `{ID}` of strings"))?;
    // Tables of single columns have only ids.
    let groups = key(GROUP);
    let mut found = Vec::with_capacity(columns.len());
    for column in columns.iter().filter(|column| column.name != ID && column.name != GROUP) {
        let Some(values) = batch.column_by_name(&column.name) else { continue };
        let names = size_names(column);
        let sizes: Vec<&ArrayRef> = names.iter().filter_map(|name| batch.column_by_name(name)).collect();
        if sizes.len() != names.len() {
            return Err(format!("column `{}` lacks the sizes of its axes", column.name));
        }
        found.push(Values { column, values, sizes });
    }
    let row = |at: usize| -> Result<Row, String> {
        let id = ids.value(at).to_owned();
        let mut row =
            Row { group: groups.map(|groups| groups.value(at).to_owned()).unwrap_or_default(), ..Row::default() };
        for values in &found {
            let fail = |problem: String| format!("row `{id}`: column `{}` {problem}", values.column.name);
            if let Some(array) = values.row(at).map_err(fail)? {
                row.columns.insert(values.column.name.clone(), array);
            } else if values.column.required {
                return Err(fail("has no value".to_owned()));
            }
        }
        Ok(Row { id, ..row })
    };
    (0..batch.num_rows()).map(row).collect()
}

impl Values<'_> {
    /// Returns the value of one row; `None` if it is missing.
    fn row(&self, at: usize) -> Result<Option<Array>, String> {
        if self.values.is_null(at) {
            return Ok(None);
        }
        let (shape, elements) = match self.values.as_list_opt::<i32>() {
            Some(lists) => self.list(lists, at)?,
            None => (Vec::new(), self.values.slice(at, 1)),
        };
        if elements.null_count() > 0 {
            return Err("has a missing value in its list".to_owned());
        }
        let data = elements_of(&elements).ok_or_else(|| format!("has the type {}", elements.data_type()))?;
        let array = Array::from_data(shape, data).map_err(|error| error.to_string())?;
        let array = match self.column.rounds(array.dtype()) {
            true => array.to_single().ok_or("has a value beyond single precision")?,
            false => array.widened(self.column.dtype).map_err(|error| error.to_string())?,
        };
        self.column.check(&array).map_err(|error| error.to_string())?;
        Ok(Some(array))
    }

    /// Returns the shape and the elements of one row's list.
    fn list(&self, lists: &ListArray, at: usize) -> Result<(Vec<usize>, ArrayRef), String> {
        let elements = lists.value(at);
        if self.sizes.is_empty() {
            return Ok((vec![elements.len()], elements));
        }
        let size = |array: &&ArrayRef| {
            let sizes = array.as_primitive_opt::<Int32Type>().filter(|array| array.is_valid(at));
            let size = sizes.map(|sizes| sizes.value(at));
            size.and_then(|size| usize::try_from(size).ok()).ok_or_else(|| match size {
                Some(size) => format!("has the size {size} along an axis"),
                None => "lacks the size of an axis".to_owned(),
            })
        };
        Ok((self.sizes.iter().map(size).collect::<Result<_, _>>()?, elements))
    }
}

/// Returns the elements of an Arrow array without missing values; `None` for a type that shards do not have.
fn elements_of(elements: &ArrayRef) -> Option<ArrayData> {
    fn numbers<T: ArrowPrimitiveType>(elements: &ArrayRef) -> Option<Vec<T::Native>> {
        Some(elements.as_primitive_opt::<T>()?.values().to_vec())
    }
    Some(match dtype(elements.data_type())? {
        DType::F16 => ArrayData::F16(numbers::<Float16Type>(elements)?),
        DType::F32 => ArrayData::F32(numbers::<Float32Type>(elements)?),
        DType::F64 => ArrayData::F64(numbers::<Float64Type>(elements)?),
        DType::I32 => ArrayData::I32(numbers::<Int32Type>(elements)?),
        DType::I64 => ArrayData::I64(numbers::<Int64Type>(elements)?),
        DType::U8 => ArrayData::U8(numbers::<UInt8Type>(elements)?),
        DType::Text => ArrayData::Text(elements.as_string_opt::<i32>()?.iter().flatten().map(str::to_owned).collect()),
        DType::Bytes => {
            ArrayData::Bytes(elements.as_binary_opt::<i32>()?.iter().flatten().map(<[u8]>::to_vec).collect())
        }
    })
}
