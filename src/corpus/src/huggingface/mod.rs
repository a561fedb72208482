//! Datasets of Hugging Face: Parquet files of the hub, and Arrow files of `save_to_disk`, whose rows hold their recordings
//! (`audio: {bytes, path}`).
//!
//! The bytes stay where they are: a row names the file and its place in it ([`ParquetCell`],
//! [`TarMember`](crate::source::TarMember)). The other columns are the fields of rows, by the names in
//! [`crate::fields`]. A row whose recording is only a path is read from there.

mod arrow_file;
mod cell;
mod json;
mod parquet_file;

use std::path::Path;

use rayon::prelude::*;

pub use cell::ParquetCell;

use crate::manifest::{Parsed, folder_of, joined_rows, name_below, split_by_name, taken};
use crate::objects::RowReader;
use crate::reading::Candidate;
use crate::shard::speech;
use crate::walk::files_below;
use crate::{CorpusError, ReadOptions, Reading, Rejection};

/// Names of columns that hold a recording as bytes, without a path.
const BYTES: [&str; 5] = ["audio", "audio_bytes", "audio_data", "wav", "bytes"];

/// Returns the tables of a source: itself, or those below a folder.
///
/// # Errors
/// [`CorpusError::Structure`] if there is none, [`CorpusError::Io`] if a folder cannot be listed.
pub fn files(root: &Path, path: &str) -> Result<Vec<String>, CorpusError> {
    let full = root.join(path);
    if !full.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let is_table = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        // The library keeps results of `map` and orders of rows next to its data.
        let is_of_library = name.starts_with("cache-") || name.starts_with("indices");
        name.ends_with(".parquet") || (name.ends_with(".arrow") && !is_of_library)
    };
    let found = files_below(root, path, is_table)?;
    if found.is_empty() {
        return Err(CorpusError::structure(&full, "contains no file that ends in .parquet or .arrow"));
    }
    Ok(found)
}

/// Reads the rows of a dataset.
///
/// # Errors
/// [`CorpusError::Structure`] if a table has no column with recordings, or cannot be read.
pub fn read(root: &Path, path: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let files = files(root, path)?;
    let read = |file: &String| -> Result<Parsed, CorpusError> {
        let name = name_below(path, file);
        let table = TableFile {
            full: root.join(file),
            path: file,
            name,
            reader: RowReader::new(folder_of(file), "bad row", options),
            fields: None,
        };
        let mut rows = if file.ends_with(".arrow") { arrow_file::read(&table) } else { parquet_file::read(&table) }?;
        split_by_name(rows.iter_mut().flatten(), name);
        Ok(rows)
    };
    let parsed: Vec<Parsed> = files.par_iter().map(read).collect::<Result<_, _>>()?;
    let reading = Reading { files: files.iter().map(|file| root.join(file)).collect(), ..Reading::default() };
    Ok(taken(reading, joined_rows(parsed), options))
}

/// Reads the rows of a packed shard. Of its columns, only single values and those that the recipe names are read.
pub(crate) fn read_shard(
    root: &Path,
    file: &str,
    name: &str,
    options: &ReadOptions<'_>,
) -> Result<Parsed, CorpusError> {
    let named = options.columns.iter().map(|column| column.name.as_str());
    let named = named.chain(options.references.iter().map(String::as_str));
    let named = named.chain(options.renames.iter().map(|(_, name)| name.as_str()));
    let reader = RowReader::new(folder_of(file), "bad row", options);
    let table = TableFile { full: root.join(file), path: file, name, reader, fields: Some(named.collect()) };
    parquet_file::read(&table)
}

/// A table that is read.
struct TableFile<'a> {
    full: std::path::PathBuf,
    /// The path as the recipe names it.
    path: &'a str,
    /// The name for messages.
    name: &'a str,
    reader: RowReader<'a>,
    /// The columns that are read in addition to single values; `None` for all.
    fields: Option<Vec<&'a str>>,
}

impl TableFile<'_> {
    /// Returns the error of a table without recordings.
    fn without_recordings(&self, names: &[String]) -> CorpusError {
        let names = names.join(", ");
        let problem = format!(
            "has no column with recordings (`audio` with `bytes` and `path`, or `audio` as bytes); it has {names}"
        );
        CorpusError::structure(&self.full, problem)
    }

    /// Returns the row of an object; `bytes` makes the place of its recording from the recording's name, if the table
    /// holds it.
    fn row(
        &self,
        mut object: serde_json::Map<String, serde_json::Value>,
        column: &str,
        at: usize,
        bytes: Option<&dyn Fn(&str) -> String>,
    ) -> Result<Candidate, Rejection> {
        let place = format!("{}[{at}]", self.name);
        let Some(bytes) = bytes else { return self.reader.row(Ok(object.into()), None, place) };
        let inner = object.get(column).and_then(|audio| audio.get("path")).and_then(|path| path.as_str());
        let inner = inner.or_else(|| object.get(speech::WAV).filter(|_| self.fields.is_some())?.as_str());
        // The path is that of the machine that made the dataset.
        let file =
            inner.and_then(|path| path.rsplit(['/', '\\']).next()).map(str::trim).filter(|name| !name.is_empty());
        let stem = self.name.rsplit_once('.').map_or(self.name, |(stem, _)| stem);
        let name = file.map_or_else(|| format!("{stem}-{at:08}"), str::to_owned);
        object.shift_remove(column);
        object.insert("audio_filepath".to_owned(), name.as_str().into());
        let mut row = self.reader.row(Ok(object.into()), None, place)?;
        row.wav = bytes(&name);
        if row.origin.is_some() {
            row.origin = Some(row.wav.clone());
        }
        // Times of a table are those of the recording that was cut out.
        (row.start, row.end) = (None, None);
        Ok(row)
    }
}
