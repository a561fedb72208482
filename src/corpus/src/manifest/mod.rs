//! Manifests: files of rows that name a recording, and optionally its text, duration, offset, speaker, language, split
//! and id, by the names in [`crate::fields`].
//!
//! | file | rows |
//! |---|---|
//! | JSON lines, also compressed with gzip (`.jsonl.gz`) | one object per line, as NeMo, WeNet and FunASR write it |
//! | JSON | one array of objects, or one object of them by their ids as SpeechBrain writes it |
//! | CSV or TSV | lines below a header that names the fields |
//!
//! A folder is read as all the manifests below it: the `metadata.csv` of each split of Hugging Face's `audiofolder`, the
//! files `EN_B00000.jsonl` of Emilia.

pub(crate) mod extras;
mod layout;
mod packed;
pub(crate) mod table;

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;

use crate::delimited::Table;
use crate::fields::Object;
use crate::lines::TextFile;
use crate::objects::RowReader;
use crate::reading::{Candidate, Rejection};
use crate::walk::files_below;
use crate::{CorpusError, ReadOptions, Reading, encoding, split};
pub(crate) use extras::columns;
use layout::Layout;
pub(crate) use packed::batches;

/// Endings of files that are manifests wherever they are in a folder.
const ENDINGS: [&str; 4] = [".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"];
/// Names of tables that are manifests wherever they are in a folder.
const TABLES: [&str; 2] = ["metadata.csv", "metadata.tsv"];

/// The rows of a file, good and bad.
pub(crate) type Parsed = Vec<Result<Candidate, Rejection>>;

/// Reads a manifest, or the manifests of a folder. Relative paths of recordings are relative to the manifest's folder. A
/// row without an id is named after its recording's path without extension (`/` replaced by `-`), with its offset in
/// milliseconds if it has one. If that gives several rows the same name, a hash of path, offset and duration is
/// appended. A row without a speaker has the source's speaker, or else its own.
///
/// # Errors
/// [`CorpusError::Structure`] if the file is missing, empty, not text, or JSON in which no rows are found, or if a folder
/// has no manifest.
pub fn read(root: &Path, path: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let mut reading = Reading::default();
    let mut parsed = Vec::new();
    for file in files(root, path)? {
        let name = name_below(path, &file);
        let (mut rows, warnings) = read_file(root, &file, name, options)?;
        split_by_name(rows.iter_mut().flatten(), name);
        parsed.append(&mut rows);
        reading.warnings.extend(warnings);
        reading.files.push(root.join(&file));
    }
    Ok(taken(reading, parsed, options))
}

/// Returns the manifests that a path names: itself, or those below a folder.
///
/// # Errors
/// [`CorpusError::Structure`] if a folder has none, [`CorpusError::Io`] if one cannot be listed.
pub fn files(root: &Path, path: &str) -> Result<Vec<String>, CorpusError> {
    let full = root.join(path);
    if !full.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let is_manifest = |path: &str| {
        let path = path.to_ascii_lowercase();
        ENDINGS.iter().any(|ending| path.ends_with(ending))
            || TABLES.iter().any(|name| path.rsplit('/').next() == Some(*name))
    };
    let found = files_below(root, path, is_manifest)?;
    if found.is_empty() {
        let problem = "contains no manifest: files that end in .jsonl or .jsonl.gz, or metadata.csv, are expected";
        return Err(CorpusError::structure(&full, problem));
    }
    Ok(found)
}

/// Joins the rows of files.
pub(crate) fn joined_rows(files: Vec<Parsed>) -> Parsed {
    let mut rows = Parsed::with_capacity(files.iter().map(Vec::len).sum());
    files.into_iter().for_each(|mut file| rows.append(&mut file));
    rows
}

/// Adds the rows of files to a reading.
pub(crate) fn taken(mut reading: Reading, parsed: Parsed, options: &ReadOptions<'_>) -> Reading {
    let mut texts = false;
    // The rows stay in the memory that they are in.
    let good = parsed.into_iter().filter_map(|outcome| match outcome {
        Ok(row) => {
            texts |= row.text.is_ok();
            Some(row)
        }
        Err(rejection) => {
            reading.rejected.push(rejection);
            None
        }
    });
    let rows: Vec<Candidate> = good.collect();
    reading.take(rows, texts, options, "")
}

/// Returns the name of a file for messages: its path below the folder that the recipe names, or its own name.
pub(crate) fn name_below<'a>(path: &str, file: &'a str) -> &'a str {
    let name = file.strip_prefix(path).map_or(file, |below| below.trim_start_matches('/'));
    if name.is_empty() { file.rsplit('/').next().unwrap_or(file) } else { name }
}

/// Gives rows without a split the one that the name of their file contains.
pub(crate) fn split_by_name<'a>(rows: impl IntoIterator<Item = &'a mut Candidate>, name: &str) {
    let Some(split) = split::of_path(name) else { return };
    for row in rows.into_iter().filter(|row| row.split.is_none()) {
        row.split = Some(split.to_owned());
    }
}

/// Returns the folder of a file, as the recipe names both.
pub(crate) fn folder_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((folder, _)) => folder,
        None => "",
    }
}

/// Reads the rows of one file, whose name in messages is `name`.
fn read_file(
    root: &Path,
    path: &str,
    name: &str,
    options: &ReadOptions<'_>,
) -> Result<(Parsed, Vec<String>), CorpusError> {
    let full = root.join(path);
    let reader = RowReader::new(folder_of(path), "bad line in the manifest", options);
    let mut warnings = Vec::new();
    let lower = name.to_ascii_lowercase();
    let parsed = if lower.ends_with(".gz") {
        let mut parsed = Vec::new();
        for batch in batches(&full)? {
            let (first, bytes) = batch?;
            parsed.append(&mut lines(&reader, name, full.clone(), bytes, first));
        }
        parsed
    } else {
        let bytes = match fs::read(&full) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(CorpusError::structure(&full, "does not exist; a file of JSON lines is expected"));
            }
            read => read.map_err(|e| CorpusError::io("read", &full, e))?,
        };
        if let Some(problem) = encoding::no_text(&bytes) {
            return Err(CorpusError::structure(&full, problem));
        }
        match Layout::of(&bytes) {
            Layout::Lines if table::is_table(&bytes, &lower) => table::read(&reader, name, &full, bytes)?,
            Layout::Lines => lines(&reader, name, full.clone(), bytes, 0),
            Layout::Elements(elements) => {
                warnings.push(format!(
                    "{name} is one JSON array, not JSON lines; the elements of that array are read as rows"
                ));
                let row = |(at, element)| reader.row(Object::of(element), None, format!("{name}[{at}]"));
                elements.into_par_iter().enumerate().map(row).collect()
            }
            Layout::ById(objects) => {
                warnings.push(format!(
                    "{name} is one JSON object; each of its objects is read as a row with its key as id"
                ));
                let row = |(id, element): (String, Value)| {
                    let place = format!("{name}[{id:?}]");
                    reader.row(Object::of(element), Some(id), place)
                };
                objects.into_par_iter().map(row).collect()
            }
            Layout::Row(object) => vec![reader.row(Object::of(object), None, format!("{name}:1"))],
            Layout::Unknown(problem) => return Err(CorpusError::structure(&full, problem)),
        }
    };
    if parsed.is_empty() {
        return Err(CorpusError::structure(&full, "is empty; it should contain one JSON object per line"));
    }
    warnings.extend(reader.warning(name));
    Ok((parsed, warnings))
}

/// Returns the rows of all lines; `before` is the number of lines before them.
fn lines(reader: &RowReader<'_>, name: &str, full: PathBuf, bytes: Vec<u8>, before: u32) -> Parsed {
    let file = TextFile::from_bytes(name, full, bytes);
    let lines = file.lines();
    let first = lines.first().map(|line| file.lossy(line)).filter(|line| !line.starts_with(['{', '[']));
    let table = first.and_then(|line| Table::of(&line));
    let row = |line: &crate::lines::Line| {
        let place = format!("{name}:{}", before.saturating_add(line.number));
        match file.text(line) {
            Ok(text) => {
                let advice = table.as_ref().filter(|_| !text.starts_with('{')).map(|table| table.advice(name));
                let object = Object::parse(text.as_bytes());
                let object =
                    object.map_err(|problem| advice.map_or(problem.clone(), |advice| format!("{problem}; {advice}")));
                reader.row(object, None, place)
            }
            Err(problem) => Err(Rejection { id: place, reason: format!("manifest {problem}") }),
        }
    };
    lines.par_iter().map(row).collect()
}
