//! Common Voice: a table of tab-separated values for each split, and a folder `clips`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::Corpus;
use crate::manifest::{Parsed, folder_of, table, taken};
use crate::objects::RowReader;
use crate::paths::{joined, prefix_of};
use crate::{CorpusError, ReadOptions, Reading};

/// The tables that are read from a folder, in this order. A clip belongs to the first that lists it: `validated.tsv`
/// lists those of the splits too. `other.tsv` and `invalidated.tsv` are read if the source names them.
const TABLES: [&str; 4] = ["train.tsv", "dev.tsv", "test.tsv", "validated.tsv"];
/// The folders below the source that are searched for tables: `cv-corpus-17.0/en`.
const DEPTH: usize = 2;

/// Returns the tables of a source: the one that it names, or those of a language or of several.
pub(super) fn tables(root: &Path, dir: &str) -> Result<Vec<String>, CorpusError> {
    let full = root.join(dir);
    if full.is_file() {
        return Ok(vec![dir.to_owned()]);
    }
    let (mut found, mut folders) = (Vec::new(), vec![dir.to_owned()]);
    for _ in 0..=DEPTH {
        let mut below = Vec::new();
        for folder in &folders {
            let prefix = prefix_of(folder);
            let tables: Vec<String> = TABLES.iter().map(|name| joined(&prefix, name)).collect();
            let tables: Vec<String> = tables.into_iter().filter(|path| root.join(path).is_file()).collect();
            if tables.is_empty() {
                below.extend(folders_in(root, folder)?.iter().map(|name| joined(&prefix, name)));
            }
            found.extend(tables);
        }
        folders = below;
    }
    if found.is_empty() {
        return Err(CorpusError::structure(&full, format!("has none of {}", Corpus::CommonVoice.expected())));
    }
    Ok(found)
}

/// Returns the names of folders in a folder, sorted.
fn folders_in(root: &Path, dir: &str) -> Result<Vec<String>, CorpusError> {
    let full = root.join(dir);
    let fail = |e| CorpusError::io("list", &full, e);
    let mut names = Vec::new();
    for entry in fs::read_dir(&full).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().into_string().unwrap_or_default();
        // Clips are files by the million.
        if entry.path().is_dir() && !name.is_empty() && !name.starts_with('.') && name != "clips" {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Reads the tables.
pub(super) fn read(root: &Path, dir: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let mut reading = Reading::default();
    let (mut parsed, mut listed, mut folder) = (Parsed::new(), BTreeSet::new(), String::new());
    for path in tables(root, dir)? {
        let of = folder_of(&path);
        if of != folder {
            listed.clear();
            of.clone_into(&mut folder);
        }
        let full = root.join(&path);
        let bytes = fs::read(&full).map_err(|e| CorpusError::io("read", &full, e))?;
        let name = path.strip_prefix(dir).map_or(path.as_str(), |below| below.trim_start_matches('/'));
        let name = if name.is_empty() { path.as_str() } else { name };
        let split = name.rsplit('/').next().unwrap_or(name).trim_end_matches(".tsv");
        let reader = RowReader::new(&joined(&prefix_of(of), "clips"), "bad line in the table", options);
        let mut rows = table::read(&reader, name, &full, bytes)?;
        let id = |row: &Result<crate::reading::Candidate, crate::Rejection>| match row {
            Ok(row) => row.id.clone(),
            Err(rejection) => rejection.id.clone(),
        };
        if split == "validated" {
            rows.retain(|row| !listed.contains(&id(row)));
        } else {
            listed.extend(rows.iter().map(id));
        }
        rows.iter_mut().flatten().for_each(|row| row.split = Some(split.to_owned()));
        parsed.append(&mut rows);
        reading.files.push(full);
    }
    Ok(taken(reading, parsed, options))
}
