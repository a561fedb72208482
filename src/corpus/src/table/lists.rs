//! Tables of ids and lists of numbers (embeddings, tokens).

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, ListArray, ListBuilder, PrimitiveBuilder, StringArray,
};
use arrow::datatypes::{DataType, Field, Float32Type, Int64Type};

use super::file::{self, BATCH_ROWS, Table};
use crate::CorpusError;

/// Writes embeddings: column `key` (`utt` or `spk`) and column `value` (`utt_embedding` or `spk_embedding`, `List<f32>`).
///
/// # Errors
/// [`CorpusError::Io`] and [`CorpusError::Table`].
pub fn write_embeddings(path: &Path, key: &str, value: &str, rows: &[(String, Vec<f32>)]) -> Result<(), CorpusError> {
    write::<Float32Type>(path, key, value, rows)
}

/// Reads a table of [`write_embeddings`], in its order.
///
/// # Errors
/// [`CorpusError::Io`], [`CorpusError::Table`], and [`CorpusError::Structure`] (a column of another type, a missing value).
pub fn read_embeddings(path: &Path, key: &str, value: &str) -> Result<Vec<(String, Vec<f32>)>, CorpusError> {
    read::<Float32Type>(path, key, value)
}

/// Writes tokens: column `key` (`utt`) and column `value` (`speech_token`, `List<i64>`).
///
/// # Errors
/// [`CorpusError::Io`] and [`CorpusError::Table`].
pub fn write_tokens(path: &Path, key: &str, value: &str, rows: &[(String, Vec<i64>)]) -> Result<(), CorpusError> {
    write::<Int64Type>(path, key, value, rows)
}

/// Reads a table of [`write_tokens`], in its order.
///
/// # Errors
/// [`CorpusError::Io`], [`CorpusError::Table`], and [`CorpusError::Structure`] (a column of another type, a missing value).
pub fn read_tokens(path: &Path, key: &str, value: &str) -> Result<Vec<(String, Vec<i64>)>, CorpusError> {
    read::<Int64Type>(path, key, value)
}

/// A column of a table of ids and embeddings, with a value for every row.
#[derive(Clone, Copy, Debug)]
pub enum EmbeddingColumn<'a> {
    /// Ids.
    Ids(&'a [&'a str]),
    /// Embeddings.
    Embeddings(&'a [&'a [f32]]),
}

impl EmbeddingColumn<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Ids(ids) => ids.len(),
            Self::Embeddings(rows) => rows.len(),
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Ids(_) => DataType::Utf8,
            Self::Embeddings(_) => list_type::<Float32Type>(),
        }
    }

    fn array(&self, from: usize, to: usize) -> ArrayRef {
        match self {
            Self::Ids(ids) => Arc::new(StringArray::from_iter_values(&ids[from..to])),
            Self::Embeddings(rows) => lists::<Float32Type>(rows[from..to].iter().copied()),
        }
    }
}

/// Writes several columns of ids and embeddings.
///
/// # Errors
/// [`CorpusError::Io`] and [`CorpusError::Table`]; [`CorpusError::Structure`] for columns of different lengths.
pub fn write_embedding_columns(path: &Path, columns: &[(&str, EmbeddingColumn<'_>)]) -> Result<(), CorpusError> {
    let rows = columns.first().map_or(0, |(_, column)| column.len());
    if columns.iter().any(|(_, column)| column.len() != rows) {
        return Err(CorpusError::structure(path, "columns have different numbers of rows"));
    }
    let types: Vec<_> = columns.iter().map(|(name, column)| (*name, column.data_type())).collect();
    let batch = |from: usize| -> Vec<ArrayRef> {
        let to = rows.min(from + BATCH_ROWS);
        columns.iter().map(|(_, column)| column.array(from, to)).collect()
    };
    file::write(path, &types, (0..rows).step_by(BATCH_ROWS).map(batch))
}

/// The type of lists, whose values are named as the Parquet format names them.
fn list_type<T: ArrowPrimitiveType>() -> DataType {
    DataType::List(item::<T>())
}

fn item<T: ArrowPrimitiveType>() -> Arc<Field> {
    Arc::new(Field::new("element", T::DATA_TYPE, true))
}

fn lists<'a, T: ArrowPrimitiveType>(rows: impl ExactSizeIterator<Item = &'a [T::Native]>) -> ArrayRef {
    let values = PrimitiveBuilder::<T>::new();
    let mut builder = ListBuilder::with_capacity(values, rows.len()).with_field(item::<T>());
    for row in rows {
        builder.values().append_slice(row);
        builder.append(true);
    }
    Arc::new(builder.finish())
}

/// Ids and lists of one numeric type.
type Rows<T> = Vec<(String, Vec<<T as ArrowPrimitiveType>::Native>)>;

/// Writes ids and lists of one numeric type.
fn write<T: ArrowPrimitiveType>(
    path: &Path,
    key: &str,
    value: &str,
    rows: &[(String, Vec<T::Native>)],
) -> Result<(), CorpusError> {
    let batch = |rows: &[(String, Vec<T::Native>)]| -> Vec<ArrayRef> {
        let ids = StringArray::from_iter_values(rows.iter().map(|(id, _)| id));
        vec![Arc::new(ids), lists::<T>(rows.iter().map(|(_, list)| list.as_slice()))]
    };
    let columns = [(key, DataType::Utf8), (value, list_type::<T>())];
    file::write(path, &columns, rows.chunks(BATCH_ROWS).map(batch))
}

/// Reads ids and lists; a missing list or number is an error.
fn read<T: ArrowPrimitiveType>(path: &Path, key: &str, value: &str) -> Result<Rows<T>, CorpusError> {
    let table = Table::read(path, Some(&[key, value]))?;
    let mut rows = Vec::with_capacity(table.rows());
    for batch in table.batches() {
        let ids = batch.required(key)?;
        let lists: &ListArray = batch.column(value)?;
        if lists.value_type() != T::DATA_TYPE {
            return Err(batch.mistyped(value, lists.data_type()));
        }
        for (id, list) in ids.iter().flatten().zip(lists.iter()) {
            let missing = || CorpusError::structure(path, format!("`{id}` has a missing value in `{value}`"));
            let list = list.filter(|list| list.null_count() == 0).ok_or_else(missing)?;
            rows.push((id.to_owned(), list.as_primitive::<T>().values().to_vec()));
        }
    }
    Ok(rows)
}
