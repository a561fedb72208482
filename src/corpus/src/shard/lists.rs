//! The list files CosyVoice's training reads: `data.list`, `utt2data.list`, `spk2data.list`.
//!
//! `data.list` names one Parquet file per line. `utt2data.list` and `spk2data.list` name one JSON file per line, each
//! an object from utterance (or speaker) to its Parquet file. CosyVoice opens all these paths unchanged, that is,
//! relative to its working directory.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use super::ShardEntry;
use crate::CorpusError;

/// The form in which the list files name other files: a prefix before every file name (empty, or ending in `/`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPaths {
    /// The prefix.
    pub prefix: String,
}

impl ListPaths {
    fn of(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// Returns the name of the JSON file that maps a shard's utterances (`utt`) or speakers (`spk`) to it.
fn map_name(kind: &str, shard: usize) -> String {
    format!("{kind}2parquet_{shard:09}.json")
}

/// Writes the two JSON files of one shard, `utt2parquet_000000000.json` and `spk2parquet_000000000.json`, into
/// `folder`. Returns their names.
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

/// Writes `data.list` for shards in order into `folder`.
///
/// # Errors
/// [`CorpusError::Io`].
pub fn write_data_list(folder: &Path, shards: &[ShardEntry], paths: &ListPaths) -> Result<(), CorpusError> {
    write_lines(&folder.join("data.list"), shards.iter().map(|shard| paths.of(&shard.file)))
}

/// Writes `utt2data.list` and `spk2data.list` for shards in order into `folder`.
///
/// # Errors
/// [`CorpusError::Io`].
pub fn write_row_lists(folder: &Path, shards: &[ShardEntry], paths: &ListPaths) -> Result<(), CorpusError> {
    for kind in ["utt", "spk"] {
        let names = (0..shards.len()).map(|number| paths.of(&map_name(kind, number)));
        write_lines(&folder.join(format!("{kind}2data.list")), names)?;
    }
    Ok(())
}

/// Writes a file of lines.
fn write_lines(path: &Path, lines: impl Iterator<Item = String>) -> Result<(), CorpusError> {
    let text: String = lines.map(|line| line + "\n").collect();
    fs::write(path, text).map_err(|e| CorpusError::io("write", path, e))
}

/// Writes an object that maps every key to the same file.
fn write_map<'a>(path: &Path, keys: impl Iterator<Item = &'a String>, file: &str) -> Result<(), CorpusError> {
    let map: Map<String, Value> = keys.map(|key| (key.clone(), Value::from(file))).collect();
    let text = serde_json::to_string_pretty(&map)
        .map_err(|e| CorpusError::structure(path, format!("cannot be written as JSON: {e}")))?;
    fs::write(path, text).map_err(|e| CorpusError::io("write", path, e))
}
