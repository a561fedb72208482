//! Selected columns of an utterance table, to find out whether rows are the same.

use std::ops::Range;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type, UInt32Type};

use super::file::Table;
use crate::CorpusError;

/// The `wav` column of an utterance table and some others.
pub struct RowColumns {
    table: Table,
    wavs: Vec<String>,
    /// The names of the other columns, as far as the table has them.
    others: Vec<String>,
}

impl RowColumns {
    /// Reads the columns. Columns that the table does not have are left out.
    ///
    /// # Errors
    /// [`CorpusError::Io`] and [`CorpusError::Table`]; [`CorpusError::Structure`] when a row has no `wav`.
    pub fn read(path: &Path, columns: &[&str]) -> Result<Self, CorpusError> {
        let names: Vec<&str> = columns.iter().copied().chain(["wav"]).collect();
        let table = Table::read(path, Some(&names))?;
        let first = table.batches().next();
        let has = |name: &&&str| first.is_some_and(|batch| batch.any(name).is_some());
        let others = columns.iter().filter(has).map(|name| (*name).to_owned()).collect();
        Ok(Self { wavs: table.strings("wav")?, table, others })
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.wavs.len()
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.wavs.is_empty()
    }

    /// The recordings of a stretch of rows.
    pub fn wavs(&self, rows: Range<usize>) -> impl Iterator<Item = &str> {
        self.wavs[rows.start.min(self.wavs.len())..rows.end.min(self.wavs.len())].iter().map(String::as_str)
    }

    /// Adds the other columns of a stretch of rows to a hash: their names, and every value in an unambiguous form.
    ///
    /// # Errors
    /// [`CorpusError::Structure`] for a column of a type that utterance tables do not have.
    pub fn hash(&self, rows: Range<usize>, hasher: &mut blake3::Hasher) -> Result<(), CorpusError> {
        for name in &self.others {
            text(name, hasher);
            let mut before = 0;
            for batch in self.table.batches() {
                let own = rows.start.max(before)..rows.end.min(before + batch.rows());
                if let Some(column) = batch.any(name).filter(|_| !own.is_empty()) {
                    let column = column.slice(own.start - before, own.len());
                    hash_values(&column, hasher).map_err(|found| batch.mistyped(name, &found))?;
                }
                before += batch.rows();
            }
        }
        Ok(())
    }
}

/// Fails with the type of a column that utterance tables do not have.
fn hash_values(column: &dyn Array, hasher: &mut blake3::Hasher) -> Result<(), DataType> {
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().iter().for_each(|value| {
            some(value.is_some(), hasher);
            text(value.unwrap_or_default(), hasher);
        }),
        DataType::Float64 => column.as_primitive::<Float64Type>().iter().for_each(|value| {
            some(value.is_some(), hasher);
            hasher.update(&value.unwrap_or_default().to_bits().to_le_bytes());
        }),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().iter().for_each(|value| {
            some(value.is_some(), hasher);
            hasher.update(&value.unwrap_or_default().to_le_bytes());
        }),
        other => return Err(other.clone()),
    }
    Ok(())
}

fn some(is_some: bool, hasher: &mut blake3::Hasher) {
    hasher.update(&[u8::from(is_some)]);
}

fn text(text: &str, hasher: &mut blake3::Hasher) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}
