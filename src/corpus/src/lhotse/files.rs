//! The manifests of a source.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use crate::CorpusError;
use crate::manifest::folder_of;
use crate::paths::{joined, prefix_of};
use crate::walk::walk;

/// Returns the files of a source: the manifests, and the tar files of shar.
///
/// # Errors
/// [`CorpusError::Structure`] if a folder has no manifest, [`CorpusError::Io`] if it cannot be listed.
pub fn files(root: &Path, path: &str) -> Result<Vec<String>, CorpusError> {
    let sets = sets(root, path)?.into_iter();
    Ok(sets.flat_map(|set| [Some(set.rows), set.recordings, set.tar]).flatten().collect())
}

/// Files that are read together.
#[derive(Debug)]
pub(super) struct Set {
    /// The cuts, or the supervisions.
    pub(super) rows: String,
    /// The recordings of supervisions.
    pub(super) recordings: Option<String>,
    /// The recordings of shar.
    pub(super) tar: Option<String>,
}

/// Finds the manifests of a source. Cuts are preferred to recordings and supervisions, which are the same data.
pub(super) fn sets(root: &Path, path: &str) -> Result<Vec<Set>, CorpusError> {
    let full = root.join(path);
    let prefix = prefix_of(if full.is_dir() { path } else { folder_of(path) });
    let names: Vec<String> = if full.is_dir() {
        let files = walk(&full)?.files.into_iter();
        files.filter(|file| file.is_utf8 && !file.is_hidden && !file.in_hidden).map(|file| file.path).collect()
    } else {
        let folder = full.parent().unwrap_or(root);
        let entries = std::fs::read_dir(folder).map_err(|e| CorpusError::io("list", folder, e))?;
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    };
    let there: HashSet<&str> = names.iter().map(String::as_str).collect();
    let in_name = |name: &str, word: &str| name.rsplit('/').next().is_some_and(|file| file.contains(word));
    let is_manifest = |name: &str| [".jsonl", ".jsonl.gz"].iter().any(|ending| name.ends_with(ending));
    let chosen = path.rsplit('/').next().filter(|_| !full.is_dir());
    let of = |word: &str| -> Vec<&String> {
        let mut found: Vec<&String> = names
            .iter()
            .filter(|name| {
                is_manifest(name) && in_name(name, word) && chosen.is_none_or(|chosen| chosen == name.as_str())
            })
            .collect();
        // Of a manifest and its compressed copy, the first counts.
        found.sort_unstable();
        let mut seen = HashSet::new();
        found.retain(|name| seen.insert(name.trim_end_matches(".gz").to_owned()));
        found
    };
    let at = |name: &str| joined(&prefix, name);
    let replaced = |name: &str, from: &str, to: &str| {
        let (folder, file) = name.rsplit_once('/').map_or(("", name), |(folder, file)| (folder, file));
        let file = file.replace(from, to);
        let name = if folder.is_empty() { file } else { format!("{folder}/{file}") };
        there.contains(name.as_str()).then_some(name)
    };
    let mut sets: Vec<Set> = Vec::new();
    for name in of("cuts") {
        let tar = name.trim_end_matches(".gz").trim_end_matches(".jsonl").to_owned() + ".tar";
        let tar = replaced(&tar, "cuts", "recording");
        sets.push(Set { rows: at(name), recordings: None, tar: tar.as_deref().map(at) });
    }
    if sets.is_empty() {
        let supervisions =
            of("supervisions").into_iter().map(|name| (name.clone(), replaced(name, "supervisions", "recordings")));
        let recordings = of("recordings").into_iter().filter_map(|name| {
            let supervisions = replaced(name, "recordings", "supervisions")?;
            Some((supervisions, Some(name.clone())))
        });
        let pairs: BTreeMap<String, Option<String>> = supervisions.chain(recordings).collect();
        sets.extend(pairs.into_iter().map(|(rows, recordings)| Set {
            rows: at(&rows),
            recordings: recordings.as_deref().map(at),
            tar: None,
        }));
    }
    if sets.is_empty() && !full.is_dir() {
        sets.push(Set { rows: path.to_owned(), recordings: None, tar: None });
    }
    if sets.is_empty() {
        let problem = "contains neither cuts (cuts.jsonl.gz) nor recordings.jsonl.gz with supervisions.jsonl.gz";
        return Err(CorpusError::structure(&full, problem));
    }
    Ok(sets)
}
