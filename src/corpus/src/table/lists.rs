//! Two-column tables: an id and a list of numbers (embeddings, tokens).

use std::path::Path;

use polars::prelude::*;

use super::{read_frame, required_strings, write_frame};
use crate::CorpusError;

/// Writes embeddings: column `key` (`utt` or `spk`) and column `value` (`utt_embedding` or `spk_embedding`, `List<f32>`).
///
/// # Errors
/// [`CorpusError::Io`] and [`CorpusError::Table`].
pub fn write_embeddings(path: &Path, key: &str, value: &str, rows: &[(String, Vec<f32>)]) -> Result<(), CorpusError> {
    write::<Float32Type>(path, key, value, rows, DataType::Float32)
}

/// Reads a table of [`write_embeddings`], in its order.
///
/// # Errors
/// [`CorpusError::Io`], [`CorpusError::Table`] (also for a column of another type) and [`CorpusError::Structure`].
pub fn read_embeddings(path: &Path, key: &str, value: &str) -> Result<Vec<(String, Vec<f32>)>, CorpusError> {
    read(path, key, value, |list| Ok(list.f32()?.iter().collect()))
}

/// Writes tokens: column `key` (`utt`) and column `value` (`speech_token`, `List<i64>`).
///
/// # Errors
/// [`CorpusError::Io`] and [`CorpusError::Table`].
pub fn write_tokens(path: &Path, key: &str, value: &str, rows: &[(String, Vec<i64>)]) -> Result<(), CorpusError> {
    write::<Int64Type>(path, key, value, rows, DataType::Int64)
}

/// Reads a table of [`write_tokens`], in its order.
///
/// # Errors
/// [`CorpusError::Io`], [`CorpusError::Table`] (also for a column of another type) and [`CorpusError::Structure`].
pub fn read_tokens(path: &Path, key: &str, value: &str) -> Result<Vec<(String, Vec<i64>)>, CorpusError> {
    read(path, key, value, |list| Ok(list.i64()?.iter().collect()))
}

/// Writes ids and lists of one numeric type.
fn write<T: PolarsNumericType>(
    path: &Path,
    key: &str,
    value: &str,
    rows: &[(String, Vec<T::Native>)],
    inner: DataType,
) -> Result<(), CorpusError> {
    let values = rows.iter().map(|(_, list)| list.len()).sum();
    let mut ids = StringChunkedBuilder::new(key.into(), rows.len());
    let mut lists = ListPrimitiveChunkedBuilder::<T>::new(value.into(), rows.len(), values, inner);
    for (id, list) in rows {
        ids.append_value(id);
        lists.append_slice(list);
    }
    let columns = vec![ids.finish().into_column(), lists.finish().into_column()];
    write_frame(path, DataFrame::new(rows.len(), columns).map_err(|e| CorpusError::table(path, e))?)
}

/// Reads ids and lists; a missing list or number is an error.
fn read<N>(
    path: &Path,
    key: &str,
    value: &str,
    numbers: impl Fn(&Series) -> PolarsResult<Vec<Option<N>>>,
) -> Result<Vec<(String, Vec<N>)>, CorpusError> {
    let fail = |e| CorpusError::table(path, e);
    let frame = read_frame(path, None)?;
    let ids = required_strings(path, &frame, key)?;
    let lists = frame.column(value).and_then(|c| c.list()).map_err(fail)?;
    let missing = |id: &str| CorpusError::structure(path, format!("`{id}` has a missing value in `{value}`"));
    let mut rows = Vec::with_capacity(ids.len());
    for (index, id) in ids.into_iter().enumerate() {
        let list = lists.get_as_series(index).ok_or_else(|| missing(&id))?;
        let numbers = numbers(&list).map_err(fail)?.into_iter().collect::<Option<Vec<N>>>();
        let numbers = numbers.ok_or_else(|| missing(&id))?;
        rows.push((id, numbers));
    }
    Ok(rows)
}
