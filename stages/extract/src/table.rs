//! Files that stages write.

use std::path::Path;

use flowmill_corpus::shard::{ShardOptions, ShardWriter};
use flowmill_corpus::{ColumnSpec, Row, Utterance};
use flowmill_extract::{Column, Extracted};
use flowmill_runner::StageError;
use serde_json::Value;

/// Writes the table of a part whose columns have any type and shape: `utt`, `spk` and the columns.
///
/// # Errors
/// When it cannot be written, or two columns have one name.
pub fn write_table(path: &Path, columns: &[Column], rows: Vec<(&Utterance, Extracted)>) -> Result<(), StageError> {
    let specs: Vec<ColumnSpec> = columns.iter().map(|column| column.spec.clone()).collect();
    let options = ShardOptions { columns: specs, ..ShardOptions::default() };
    let mut writer = ShardWriter::create(path, &options).map_err(StageError::other)?;
    for (row, value) in rows {
        let names = columns.iter().map(|column| column.name().to_owned());
        let columns = names.zip(value.into_arrays()).collect();
        let row = Row { id: row.utt.clone(), group: row.spk.clone(), columns, ..Row::default() };
        writer.push(row).map_err(StageError::other)?;
    }
    writer.finish().map(drop).map_err(StageError::other)
}

/// Writes figures for people and programs.
///
/// # Errors
/// When the file cannot be written.
pub fn write_json(path: &Path, value: &Value) -> Result<(), StageError> {
    let text = serde_json::to_string_pretty(value).map_err(StageError::other)?;
    std::fs::write(path, text + "\n").map_err(|error| StageError::file(path, error))
}
