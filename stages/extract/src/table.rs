//! Files that stages write.

use std::path::Path;

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
    let rows = rows.into_iter().map(|(row, value)| {
        let names = columns.iter().map(|column| column.name().to_owned());
        let columns = names.zip(value.into_arrays()).collect();
        Row { id: row.utt.clone(), group: row.spk.clone(), columns, ..Row::default() }
    });
    flowmill_stage_prep::columns::write_table(path, specs, rows)
}

/// Writes figures for people and programs.
///
/// # Errors
/// When the file cannot be written.
pub fn write_json(path: &Path, value: &Value) -> Result<(), StageError> {
    let text = serde_json::to_string_pretty(value).map_err(StageError::other)?;
    std::fs::write(path, text + "\n").map_err(|error| StageError::file(path, error))
}
