//! The list files CosyVoice's training reads: `data.list`, `utt2data.list`, `spk2data.list`.
//!
//! `data.list` names a Parquet file a line. `utt2data.list` and `spk2data.list` name a JSON file a line, each an object from
//! utterance (or speaker) to the Parquet file it is in. CosyVoice opens all these paths as they stand, that is relative to its
//! working directory.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use super::ShardEntry;
use crate::CorpusError;

/// How the list files name other files: this before every file name (empty, or ending in `/`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPaths {
    /// What stands before the name.
    pub prefix: String,
}

impl ListPaths {
    fn of(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// The name of the JSON file that maps a shard's utterances (`utt`) or speakers (`spk`) to it.
fn map_name(kind: &str, shard: usize) -> String {
    format!("{kind}2parquet_{shard:09}.json")
}

/// Writes the two JSON files of one shard, `utt2parquet_000000000.json` and `spk2parquet_000000000.json`, into `folder`; gives their
/// names.
///
/// # Errors
/// [`CorpusError::Io`].
pub fn write_shard_lists(
    folder: &Path,
    number: usize,
    shard: &ShardEntry,
    speakers: &BTreeSet<String>,
    paths: &ListPaths,
) -> Result<[String; 2], CorpusError> {
    let names = [map_name("utt", number), map_name("spk", number)];
    let file = paths.of(&shard.file);
    write_map(&folder.join(&names[0]), shard.utterances.iter(), &file)?;
    write_map(&folder.join(&names[1]), speakers.iter(), &file)?;
    Ok(names)
}

/// Writes `data.list`, `utt2data.list` and `spk2data.list` for shards in order into `folder`.
///
/// # Errors
/// [`CorpusError::Io`].
pub fn write_data_lists(folder: &Path, shards: &[ShardEntry], paths: &ListPaths) -> Result<(), CorpusError> {
    let lines = |name: &dyn Fn(usize) -> String| -> String {
        (0..shards.len()).map(|number| paths.of(&name(number)) + "\n").collect()
    };
    for (list, text) in [
        ("data.list", lines(&|number| shards[number].file.clone())),
        ("utt2data.list", lines(&|number| map_name("utt", number))),
        ("spk2data.list", lines(&|number| map_name("spk", number))),
    ] {
        let path = folder.join(list);
        fs::write(&path, text).map_err(|e| CorpusError::io("write", &path, e))?;
    }
    Ok(())
}

/// Writes an object that maps every key to the same file.
fn write_map<'a>(path: &Path, keys: impl Iterator<Item = &'a String>, file: &str) -> Result<(), CorpusError> {
    let map: Map<String, Value> = keys.map(|key| (key.clone(), Value::from(file))).collect();
    let text = serde_json::to_string_pretty(&map)
        .map_err(|e| CorpusError::structure(path, format!("cannot be written as JSON: {e}")))?;
    fs::write(path, text).map_err(|e| CorpusError::io("write", path, e))
}
