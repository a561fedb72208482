//! Training on several corpora.

use std::path::{Path, PathBuf};

use flowmill_corpus::packed;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::foreign;

/// The index of a split's shards, in the split's folder.
pub const INDEX: &str = "index.json";

/// A corpus of a mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MixtureEntry {
    /// The `index.json` of its shards, as another recipe packed them, or the folder of that file; by default the
    /// training split of this recipe. Shards that another program packed (CosyVoice's `data.list`, a folder of Parquet files, or one) have
    /// no index: one is made before the training, with their checksums, and the mel is computed from their recordings.
    #[serde(default)]
    pub index: Option<String>,
    /// The share of an epoch's utterances, relative to the weights of the others.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}

/// Reads the entries; null means none.
pub fn null_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MixtureEntry>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A training corpus.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighted {
    /// `index.json` of its shards.
    pub index: PathBuf,
    /// The share, relative to the others.
    pub weight: f64,
}

/// Returns the corpora in the entries; without entries, only the recipe's own. `own` is its index, `stage` the folder of this stage;
/// `resolve` makes paths absolute.
pub fn corpora(entries: &[MixtureEntry], own: &Path, stage: &Path, resolve: &dyn Fn(&str) -> PathBuf) -> Vec<Weighted> {
    if entries.is_empty() {
        return vec![Weighted { index: own.to_owned(), weight: 1.0 }];
    }
    let index = |number: usize, entry: &MixtureEntry| match entry.index.as_deref().map(resolve) {
        None => own.to_owned(),
        Some(path) if is_foreign(&path) => foreign::index_of(stage, number),
        Some(path) => index_file(&path),
    };
    let entries = entries.iter().enumerate();
    entries.map(|(number, entry)| Weighted { index: index(number, entry), weight: entry.weight }).collect()
}

/// Returns whether a path is that of shards without an index: a file that is not JSON, or a folder with shards and no index.
pub fn is_foreign(path: &Path) -> bool {
    if path.is_dir() {
        // A folder of packed splits holds more than training data.
        let has_index = |entry: std::fs::DirEntry| entry.path().join(INDEX).is_file();
        let has_splits = std::fs::read_dir(path).is_ok_and(|entries| entries.filter_map(Result::ok).any(has_index));
        return !path.join(INDEX).is_file()
            && !has_splits
            && packed::files(Path::new(""), &path.to_string_lossy()).is_ok();
    }
    path.is_file() && path.extension().is_none_or(|extension| extension != "json")
}

/// Returns the index for a path: itself, or the one in that folder.
fn index_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(INDEX) } else { path.to_owned() }
}

/// Checks that the entries can be mixed.
///
/// # Errors
/// Returns the invalid key, below the list's own name, and the reason.
pub fn check(entries: &[MixtureEntry], resolve: &dyn Fn(&str) -> PathBuf) -> Result<(), (String, String)> {
    let mut seen: Vec<Option<PathBuf>> = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        if !(entry.weight > 0.0 && entry.weight.is_finite()) {
            return Err((format!("[{at}].weight"), "must be a positive number".to_owned()));
        }
        let index = entry.index.as_deref().map(|path| index_file(&resolve(path)));
        if seen.contains(&index) {
            return Err((format!("[{at}]"), "names a corpus again; use one entry with a larger weight".to_owned()));
        }
        seen.push(index);
    }
    Ok(())
}

/// Checks that the corpora exist.
///
/// # Errors
/// Returns the key of the first missing one, below the list's own name, and the reason.
pub fn check_files(entries: &[MixtureEntry], resolve: &dyn Fn(&str) -> PathBuf) -> Result<(), (String, String)> {
    let named = entries.iter().enumerate().filter_map(|(at, entry)| Some((at, resolve(entry.index.as_deref()?))));
    let mut named = named.filter(|(_, path)| !is_foreign(path)).map(|(at, path)| (at, index_file(&path)));
    match named.find(|(_, file)| !file.is_file()) {
        Some((at, file)) => {
            Err((format!("[{at}].index"), format!("{} does not exist; pack that corpus first", file.display())))
        }
        None => Ok(()),
    }
}
