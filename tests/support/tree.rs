//! The files below a folder: their content and their times.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The state of one file at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// BLAKE3 of the content.
    pub content: blake3::Hash,
    /// The time of the last change.
    pub changed: SystemTime,
}

/// All files below a folder by their path relative to it.
///
/// Files about runs and not about results are excluded: journal, speed with its events, lock, and the cache of file times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<PathBuf, Entry>);

/// Names at the top of an experiment that are about runs, not results.
pub const EXCLUDED: [&str; 6] = ["journal.jsonl", "speed.jsonl", "tensorboard", ".lock", ".cache", "slurm"];

impl Tree {
    /// Reads everything below `folder`.
    pub fn of(folder: &Path) -> Self {
        let mut entries = BTreeMap::new();
        collect(folder, Path::new(""), &mut entries);
        Self(entries)
    }

    /// The paths with the hashes of their contents.
    pub fn contents(&self) -> BTreeMap<&Path, blake3::Hash> {
        self.0.iter().map(|(path, entry)| (path.as_path(), entry.content)).collect()
    }

    /// Checks that both trees hold the same paths with the same bytes.
    #[track_caller]
    pub fn expect_same_bytes(&self, other: &Self, about: &str) {
        let (ours, theirs) = (self.contents(), other.contents());
        let differing = |path: &&&Path| ours.get(**path) != theirs.get(**path);
        let mut differences: Vec<&&Path> = ours.keys().chain(theirs.keys()).filter(differing).collect();
        differences.sort();
        differences.dedup();
        assert!(differences.is_empty(), "{about}: these files differ or are on one side only: {differences:#?}");
    }

    /// The paths below `folder` that are not in `earlier` or were written again since.
    pub fn written_since(&self, earlier: &Self) -> Vec<PathBuf> {
        let new = |(path, entry): &(&PathBuf, &Entry)| earlier.0.get(*path) != Some(entry);
        self.0.iter().filter(new).map(|(path, _)| path.clone()).collect()
    }

    /// The first folder of each of these paths, without repetition: the stages concerned.
    pub fn stages(paths: &[PathBuf]) -> Vec<String> {
        let first = |path: &PathBuf| path.iter().next().map(|name| name.to_string_lossy().into_owned());
        let mut stages: Vec<String> = paths.iter().filter_map(first).collect();
        stages.sort();
        stages.dedup();
        stages
    }
}

/// Adds the files of one folder.
fn collect(root: &Path, relative: &Path, entries: &mut BTreeMap<PathBuf, Entry>) {
    let folder = root.join(relative);
    for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let entry = entry.unwrap();
        let path = relative.join(entry.file_name());
        let excluded = relative.as_os_str().is_empty() && EXCLUDED.iter().any(|name| entry.file_name() == *name);
        if excluded {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            collect(root, &path, entries);
        } else {
            let content = blake3::hash(&fs::read(root.join(&path)).unwrap());
            let changed = entry.metadata().unwrap().modified().unwrap();
            entries.insert(path, Entry { content, changed });
        }
    }
}
