//! The index of a split's shards: their content and their checksums.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{CorpusError, file_checksum};

/// The `format` an index declares.
const FORMAT: &str = "flowmill-shards";
/// The version this code writes and reads.
const VERSION: u32 = 1;

/// One shard as its index describes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// The file's name, in the index's own folder; of an index of shards elsewhere ([`ShardIndex::in_place`]) its path.
    pub file: String,
    /// The number of rows that are used.
    pub rows: u64,
    /// The file's size.
    pub bytes: u64,
    /// The file's BLAKE3 checksum, in hexadecimal.
    pub blake3: String,
    /// Seconds of audio.
    pub seconds: f64,
    /// Every row's utterance id, in order.
    pub utterances: Vec<String>,
    /// The length of every row in mel frames, in order, for sampling.
    pub frames: Vec<u32>,
    /// The sizes of every row along the free axes of columns other than those of the speech flows, by axis. Other
    /// costs are computed from them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub axes: BTreeMap<String, Vec<u32>>,
    /// The numbers of the rows that are used, ascending; empty if all are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<u32>,
}

impl ShardEntry {
    /// Returns the number in the file of the row at a position among the rows that are used.
    pub(super) fn row_in_file(&self, at: usize) -> usize {
        self.kept.get(at).map_or(at, |row| *row as usize)
    }
}

/// The sizes of a row in its index.
#[derive(Clone, Copy, Debug)]
pub struct RowSizes<'a> {
    shard: &'a ShardEntry,
    row: usize,
}

impl RowSizes<'_> {
    /// Returns the number of mel frames; 0 for a row without a recording.
    pub fn frames(&self) -> u32 {
        self.shard.frames.get(self.row).copied().unwrap_or(0)
    }

    /// Returns the size along a free axis of columns other than those of the speech flows; `None` if no column has
    /// the axis.
    pub fn axis(&self, name: &str) -> Option<u32> {
        self.shard.axes.get(name)?.get(self.row).copied()
    }
}

impl ShardEntry {
    /// The sizes of its rows, in order.
    pub fn sizes(&self) -> impl Iterator<Item = RowSizes<'_>> {
        (0..self.frames.len()).map(|row| RowSizes { shard: self, row })
    }
}

/// The origin of a column. Two columns with the same numbers mean the same only if their origins are equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeBy {
    /// The kind of extractor.
    pub kind: String,
    /// The BLAKE3 checksum of its settings and of its fitted or loaded data, in hexadecimal.
    pub blake3: String,
}

/// The index of a split, `index.json` next to its shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardIndex {
    format: String,
    version: u32,
    /// The split's name.
    pub split: String,
    /// The number of rows in all shards.
    pub rows: u64,
    /// The number of mel frames in all shards.
    pub frames: u64,
    /// Seconds of audio in all shards.
    pub seconds: f64,
    /// The definition and the storage of the mel.
    pub mel: serde_json::Value,
    /// The origins of the columns, by name, as far as they are known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extractors: BTreeMap<String, MadeBy>,
    /// True if the shards are those of another program and stay where they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_place: bool,
    /// The shards in order.
    pub shards: Vec<ShardEntry>,
}

impl ShardIndex {
    /// Creates an index of these shards.
    pub fn new(split: &str, mel: serde_json::Value, shards: Vec<ShardEntry>) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            split: split.to_owned(),
            rows: shards.iter().map(|shard| shard.rows).sum(),
            frames: shards.iter().flat_map(|shard| &shard.frames).map(|&frames| u64::from(frames)).sum(),
            seconds: shards.iter().map(|shard| shard.seconds).sum(),
            mel,
            extractors: BTreeMap::new(),
            in_place: false,
            shards,
        }
    }

    /// Sets the origins of the columns.
    #[must_use]
    pub fn made_by(self, extractors: BTreeMap<String, MadeBy>) -> Self {
        Self { extractors, ..self }
    }

    /// Makes it an index of shards that stay where they are.
    #[must_use]
    pub fn in_place(self) -> Self {
        Self { in_place: true, ..self }
    }

    /// Reads an index and checks its consistency.
    ///
    /// # Errors
    /// [`CorpusError::Io`], or [`CorpusError::Structure`] for a file that is not an index of this version or
    /// contradicts itself.
    pub fn read(path: &Path) -> Result<Self, CorpusError> {
        let fail = |problem: String| CorpusError::structure(path, problem);
        let bytes = fs::read(path).map_err(|e| CorpusError::io("read", path, e))?;
        if bytes.starts_with(b"PAR1") {
            return Err(fail(
                "is a Parquet shard, not an index of shards: name the `index.json` that stage 3 wrote next to its shards".into(),
            ));
        }
        let text = std::str::from_utf8(&bytes).map_err(|e| fail(format!("is not a shard index: {e}")))?;
        let index: Self = serde_json::from_str(text).map_err(|e| fail(format!("is not a shard index: {e}")))?;
        if index.format != FORMAT || index.version != VERSION {
            let (format, version) = (&index.format, index.version);
            return Err(fail(format!(
                "declares format `{format}` version {version}; this is {FORMAT} version {VERSION}"
            )));
        }
        for shard in &index.shards {
            let rows = usize::try_from(shard.rows).unwrap_or(usize::MAX);
            let sizes = std::iter::once(&shard.frames).chain(shard.axes.values());
            if shard.utterances.len() != rows || sizes.into_iter().any(|sizes| sizes.len() != rows) {
                return Err(fail(format!("gives {} {rows} rows but other numbers of ids or lengths", shard.file)));
            }
            let is_ascending = shard.kept.windows(2).all(|pair| pair[0] < pair[1]);
            if !shard.kept.is_empty() && (shard.kept.len() != rows || !is_ascending) {
                return Err(fail(format!("gives {} {rows} rows but other numbers of them", shard.file)));
            }
            if index.in_place {
                continue;
            }
            if shard.file.contains('/') || shard.file.starts_with('.') {
                return Err(fail(format!("names the shard `{}`, which is not a plain file name", shard.file)));
            }
        }
        Ok(index)
    }

    /// Writes the index as JSON.
    ///
    /// # Errors
    /// [`CorpusError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), CorpusError> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|e| CorpusError::structure(path, format!("cannot be written as JSON: {e}")))?;
        text.push('\n');
        fs::write(path, text).map_err(|e| CorpusError::io("write", path, e))
    }

    /// Checks a shard's size and checksum; `folder` is the folder of the index.
    ///
    /// # Errors
    /// [`CorpusError::Io`] if it cannot be read, [`CorpusError::Checksum`] if it is another file.
    pub fn verify(&self, folder: &Path, shard: &ShardEntry) -> Result<(), CorpusError> {
        let path = folder.join(&shard.file);
        let found = file_checksum(&path)?.to_string();
        if found == shard.blake3 {
            return Ok(());
        }
        Err(CorpusError::Checksum { path, expected: shard.blake3.clone(), found })
    }
}
