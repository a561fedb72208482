//! The results of this stage, for the stages that run extractors over rows: the parts to work on and their rows.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use flowmill_corpus::{
    Utterance,
    table::{self, RecordingRow},
};
use flowmill_runner::{PlanContext, StageError};
use rayon::prelude::*;

use crate::contents::Contents;
pub use crate::fallback::decoder;
use crate::recordings::{PartRecordings, recordings_of_parts};

/// A table of stage 0.
#[derive(Clone)]
pub struct Table {
    /// The split's name.
    pub split: String,
    /// `SPLIT/part-00000`.
    pub key: String,
    /// The file.
    pub path: PathBuf,
}

/// A table with its content.
pub struct PrepPart {
    /// The table.
    pub table: Table,
    /// The number of utterances.
    pub rows: u64,
    /// The content of its rows, independent of the location of rows and recordings.
    pub contents: Contents,
    /// The recordings, shared with the other parts of the phase.
    pub recordings: PartRecordings,
}

/// Returns the tables of all splits, in the order in which stage 0 planned them.
///
/// # Errors
/// Returns an error if stage 0 is not finished.
pub fn tables(context: &PlanContext) -> Result<Vec<Table>, StageError> {
    let stage = context.stage_dir(0);
    let table = |path: PathBuf| {
        let (split, key) = name_of(path.strip_prefix(&stage).ok()?)?;
        Some(Table { split, key, path })
    };
    Ok(context.receipts(0)?.iter().flat_map(|receipt| receipt.outputs()).filter_map(table).collect())
}

/// Returns the tables of one split.
///
/// # Errors
/// Returns an error if stage 0 made no such split; `key` is the recipe's key that names it.
pub fn tables_of(context: &PlanContext, split: &str, key: &str) -> Result<Vec<Table>, StageError> {
    let tables = tables(context)?;
    let splits: BTreeSet<String> = tables.iter().map(|table| table.split.clone()).collect();
    if !splits.contains(split) {
        let known = splits.into_iter().collect::<Vec<_>>().join(", ");
        let message = format!("stage 0 made no split {split:?}; existing splits: {known}");
        return Err(context.recipe().error(key, message).into());
    }
    Ok(tables.into_iter().filter(|table| table.split == split).collect())
}

/// Returns tables with their content, in order; `columns` are those that the stage reads. Without `with_recordings` the
/// recordings are neither content nor read.
///
/// # Errors
/// Returns an error if a table cannot be read.
pub fn parts(
    context: &PlanContext,
    tables: Vec<Table>,
    columns: &[&str],
    with_recordings: bool,
) -> Result<Vec<PrepPart>, StageError> {
    let rows: Vec<Vec<RecordingRow>> = tables
        .par_iter()
        .map(|table| table::read_recordings(&table.path).map_err(StageError::other))
        .collect::<Result<_, _>>()?;
    let contents = contents_of(context, &tables, |contents, table| match with_recordings {
        true => contents.add(table, columns, None),
        false => contents.add_columns(table, columns),
    })?;
    let read = rows.iter().map(|rows| if with_recordings { rows.as_slice() } else { &[] });
    let recordings = recordings_of_parts(context, &read.collect::<Vec<_>>());
    let counts = rows.iter().map(|rows| rows.len() as u64);
    let whole = tables.into_iter().zip(counts).zip(contents).zip(recordings);
    Ok(whole.map(|(((table, rows), contents), recordings)| PrepPart { table, rows, contents, recordings }).collect())
}

/// Returns the content of the rows of tables, each with these columns.
///
/// # Errors
/// Returns an error if a table cannot be read.
pub fn contents(context: &PlanContext, tables: &[Table], columns: &[&str]) -> Result<Vec<Contents>, StageError> {
    contents_of(context, tables, |contents, table| contents.add(table, columns, None))
}

/// Returns the content of each table, which `add` reads from its file.
fn contents_of(
    context: &PlanContext,
    tables: &[Table],
    add: impl Fn(&mut Contents, &Path) -> Result<(), StageError> + Sync,
) -> Result<Vec<Contents>, StageError> {
    let of = |table: &Table| {
        let mut contents = Contents::new(context.recipe_dir());
        add(&mut contents, &table.path)?;
        Ok(contents)
    };
    tables.par_iter().map(of).collect()
}

/// Returns the outputs of this stage's own earlier parts whose keys have this prefix, in the order of the parts.
///
/// # Errors
/// Returns an error if a receipt cannot be read.
pub fn outputs(context: &PlanContext, own: u8, prefix: &str) -> Result<Vec<PathBuf>, StageError> {
    let receipts = context.receipts(own)?;
    Ok(receipts
        .iter()
        .filter(|receipt| receipt.key.starts_with(prefix))
        .flat_map(|receipt| receipt.outputs())
        .collect())
}

/// Returns the split and the key of a path, relative to stage 0, of the form `SPLIT/part-00000.parquet`.
fn name_of(table: &Path) -> Option<(String, String)> {
    let key = table.to_str()?.strip_suffix(".parquet")?;
    let (split, part) = key.split_once('/')?;
    (part.starts_with("part-") && !part.contains('/')).then(|| (split.to_owned(), key.to_owned()))
}

/// Returns the utterances of a table.
///
/// # Errors
/// Returns an error if it cannot be read.
pub fn utterances(table: &Table) -> Result<Vec<Utterance>, StageError> {
    table::read_utterances(&table.path).map_err(StageError::other)
}
