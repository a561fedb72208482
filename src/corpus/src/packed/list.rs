//! The files of a source of shards.

use std::path::Path;

use crate::lines::TextFile;
use crate::manifest::folder_of;
use crate::paths::{joined, prefix_of};
use crate::walk::files_below;
use crate::{CorpusError, webdataset};

/// Returns the shards that a path names, relative to `root` or absolute: itself, those that a list names (CosyVoice's `data.list`), those of
/// a pattern with braces, or those below a folder.
///
/// # Errors
/// [`CorpusError::Structure`] if there is none, or one that is named is missing; [`CorpusError::Io`].
pub fn files(root: &Path, path: &str) -> Result<Vec<String>, CorpusError> {
    let full = root.join(path);
    if full.is_dir() {
        return below(root, path);
    }
    if webdataset::is_list(path) {
        return of_list(root, path);
    }
    let named = if path.contains('{') {
        webdataset::expand(path).map_err(|problem| CorpusError::structure(&full, problem))?
    } else {
        vec![path.to_owned()]
    };
    match named.iter().find(|file| !root.join(file).is_file()) {
        Some(missing) => Err(CorpusError::structure(&root.join(missing), "there is no such shard")),
        None => Ok(named),
    }
}

/// Returns the shards below a folder, in order of their names.
fn below(root: &Path, path: &str) -> Result<Vec<String>, CorpusError> {
    let found = files_below(root, path, |name| name.ends_with(".parquet") || name.ends_with(".tar"))?;
    if found.is_empty() {
        return Err(CorpusError::structure(
            &root.join(path),
            "contains no shard: no file that ends in .parquet or .tar",
        ));
    }
    Ok(found)
}

/// Returns the shards that a list names, one per line. CosyVoice writes paths as its working directory saw them, so a file that is not at
/// its path is looked for in the folder of the list, by its path and by its name.
fn of_list(root: &Path, path: &str) -> Result<Vec<String>, CorpusError> {
    let full = root.join(path);
    let fail = |problem: String| CorpusError::structure(&full, problem);
    let file =
        TextFile::open(root, path)?.ok_or_else(|| fail("does not exist; a list of shards is expected".into()))?;
    let prefix = prefix_of(folder_of(path));
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for line in file.lines() {
        let named = file.text(&line).map_err(fail)?;
        // Other lists have the name of a shard first, or more columns after it.
        let named = named.trim();
        let name = named.rsplit('/').next().unwrap_or(named);
        let places = [joined(&prefix, named), joined(&prefix, name), named.to_owned()];
        match places.into_iter().find(|place| root.join(place).is_file()) {
            Some(place) => found.push(place),
            None => missing.push(named.to_owned()),
        }
    }
    if let Some(first) = missing.first() {
        let (count, all) = (missing.len(), missing.len() + found.len());
        let problem = format!(
            "{count} of its {all} shards are missing, such as {first}; relative paths start from the list's folder or from the recipe's"
        );
        return Err(fail(problem));
    }
    if found.is_empty() {
        return Err(fail("names no shard".into()));
    }
    Ok(found)
}
