//! Selected columns of an utterance table, to find out whether rows are the same.

use std::ops::Range;
use std::path::{Path, PathBuf};

use polars::prelude::*;

use super::{read_frame, required_strings};
use crate::CorpusError;

/// The `wav` column of an utterance table and some others.
pub struct RowColumns {
    path: PathBuf,
    wavs: Vec<String>,
    others: Vec<Column>,
}

impl RowColumns {
    /// Reads the columns. Columns that the table does not have are left out.
    ///
    /// # Errors
    /// [`CorpusError::Io`] and [`CorpusError::Table`]; [`CorpusError::Structure`] when a row has no `wav`.
    pub fn read(path: &Path, columns: &[&str]) -> Result<Self, CorpusError> {
        let frame = read_frame(path, None)?;
        let others = columns.iter().filter_map(|name| frame.column(name).ok().cloned()).collect();
        Ok(Self { path: path.to_owned(), wavs: required_strings(path, &frame, "wav")?, others })
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
        let fail = |e| CorpusError::table(&self.path, e);
        for column in &self.others {
            text(column.name(), hasher);
            let column = column.slice(i64::try_from(rows.start).unwrap_or(i64::MAX), rows.len());
            match column.dtype() {
                DataType::String => column.str().map_err(fail)?.iter().for_each(|value| {
                    some(value.is_some(), hasher);
                    text(value.unwrap_or_default(), hasher);
                }),
                DataType::Float64 => column.f64().map_err(fail)?.iter().for_each(|value| {
                    some(value.is_some(), hasher);
                    hasher.update(&value.unwrap_or_default().to_bits().to_le_bytes());
                }),
                DataType::UInt32 => column.u32().map_err(fail)?.iter().for_each(|value| {
                    some(value.is_some(), hasher);
                    hasher.update(&value.unwrap_or_default().to_le_bytes());
                }),
                other => {
                    let problem = format!("column `{}` has the type {other}", column.name());
                    return Err(CorpusError::structure(&self.path, problem));
                }
            }
        }
        Ok(())
    }
}

fn some(is_some: bool, hasher: &mut blake3::Hasher) {
    hasher.update(&[u8::from(is_some)]);
}

fn text(text: &str, hasher: &mut blake3::Hasher) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}
