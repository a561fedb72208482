//! Columns of rows in shards, by the places of their recordings.

use std::collections::BTreeMap;
use std::path::Path;

use crate::shard::AnyShard;
use crate::source::Source;
use crate::{ColumnSpec, CorpusError, Row};

/// The columns of a row, or the reason why it has none.
pub type Fetched = Result<Row, String>;

/// A row's place in its shard.
enum Place {
    /// The row's number.
    Row(usize),
    /// The byte position of the row's recording in a tar file.
    Offset(u64),
}

/// Returns the rows of recordings with these columns, as far as the shards have them; `wavs` are the recordings as stage 0 names them.
/// Shards are opened one after the other, each once.
///
/// # Errors
/// [`CorpusError`] if a shard cannot be read. A row that is damaged, or has a value of another type or shape, has its own reason.
pub fn fetch(root: &Path, wavs: &[&str], columns: &[ColumnSpec]) -> Result<Vec<Fetched>, CorpusError> {
    let columns: Vec<ColumnSpec> = columns.iter().map(|column| column.clone().optional()).collect();
    let mut found: Vec<Fetched> = wavs.iter().map(|wav| Err(format!("{wav} is no row of a shard"))).collect();
    let mut by_file: BTreeMap<&str, Vec<(usize, Place)>> = BTreeMap::new();
    for (at, wav) in wavs.iter().enumerate() {
        match Source::of(wav) {
            Source::Cell(cell) => {
                let row = usize::try_from(cell.row).unwrap_or(usize::MAX);
                by_file.entry(cell.file).or_default().push((at, Place::Row(row)));
            }
            Source::Member(member) => {
                by_file.entry(member.archive).or_default().push((at, Place::Offset(member.offset)));
            }
            _ => {}
        }
    }
    for (file, places) in by_file {
        let shard = AnyShard::open(&root.join(file))?;
        let mut rows: Vec<(usize, usize)> = Vec::with_capacity(places.len());
        for (at, place) in places {
            let row = match place {
                Place::Row(row) => Some(row),
                Place::Offset(offset) => shard.row_of(offset),
            };
            match row {
                Some(row) => rows.push((row, at)),
                None => found[at] = Err(format!("{file} has no row with this recording; run stage 0 again")),
            }
        }
        rows.sort_unstable();
        for ((_, at), row) in rows.iter().zip(rows_of(&shard, &rows, &columns)) {
            found[*at] = row;
        }
    }
    Ok(found)
}

/// Returns ascending rows of a shard, which may repeat. If one is damaged, each is read on its own.
fn rows_of(shard: &AnyShard, rows: &[(usize, usize)], columns: &[ColumnSpec]) -> Vec<Fetched> {
    let numbers: Vec<usize> = rows.iter().map(|(row, _)| *row).collect();
    let mut distinct = numbers.clone();
    distinct.dedup();
    let read: Vec<Fetched> = match shard.fetch(&distinct, columns) {
        Ok(read) => read.into_iter().map(Ok).collect(),
        Err(_) => {
            let one = |row: &usize| match shard.fetch(&[*row], columns) {
                Ok(mut read) => read.pop().ok_or_else(|| "it is not in its shard".to_owned()),
                Err(CorpusError::Structure { problem, .. }) => Err(problem),
                Err(other) => Err(other.to_string()),
            };
            distinct.iter().map(one).collect()
        }
    };
    let of = |row: &usize| {
        let at = distinct.binary_search(row).ok();
        at.and_then(|at| read.get(at).cloned()).unwrap_or_else(|| Err("it is not in its shard".to_owned()))
    };
    numbers.iter().map(of).collect()
}
