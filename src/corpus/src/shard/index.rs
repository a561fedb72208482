//! The index of a split's shards: what is in them, and their checksums.

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
    /// The file's name, in the index's own folder.
    pub file: String,
    /// Rows.
    pub rows: u64,
    /// The file's size.
    pub bytes: u64,
    /// The file's BLAKE3 checksum, in hexadecimal.
    pub blake3: String,
    /// Seconds of audio.
    pub seconds: f64,
    /// Every row's utterance id, in order.
    pub utterances: Vec<String>,
    /// Every row's length in mel frames, in order: what sampling needs.
    pub frames: Vec<u32>,
    /// Every row's size along the free axes of columns that are not the speech flows', by the axis: what other costs are reckoned by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub axes: BTreeMap<String, Vec<u32>>,
}

/// The sizes of a row, as its index has them.
#[derive(Clone, Copy, Debug)]
pub struct RowSizes<'a> {
    shard: &'a ShardEntry,
    row: usize,
}

impl RowSizes<'_> {
    /// Mel frames; 0 for a row without a recording.
    pub fn frames(&self) -> u32 {
        self.shard.frames.get(self.row).copied().unwrap_or(0)
    }

    /// The size along a free axis of columns that are not the speech flows'; `None` where no column has the axis.
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

/// What made a column: two columns of the same numbers mean the same only if this is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeBy {
    /// The kind of extractor.
    pub kind: String,
    /// The BLAKE3 checksum of its settings and of what was fitted or loaded, in hexadecimal.
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
    /// Rows in all shards.
    pub rows: u64,
    /// Mel frames in all shards.
    pub frames: u64,
    /// Seconds of audio in all shards.
    pub seconds: f64,
    /// How the mel was computed and is stored.
    pub mel: serde_json::Value,
    /// What made the columns, by name, as far as it is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extractors: BTreeMap<String, MadeBy>,
    /// The shards in order.
    pub shards: Vec<ShardEntry>,
}

impl ShardIndex {
    /// An index of these shards.
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
            shards,
        }
    }

    /// The same index, saying what made the columns.
    #[must_use]
    pub fn made_by(self, extractors: BTreeMap<String, MadeBy>) -> Self {
        Self { extractors, ..self }
    }

    /// Reads an index and checks that it agrees with itself.
    ///
    /// # Errors
    /// [`CorpusError::Io`], or [`CorpusError::Structure`] for what is no index of this version or contradicts itself.
    pub fn read(path: &Path) -> Result<Self, CorpusError> {
        let fail = |problem: String| CorpusError::structure(path, problem);
        let bytes = fs::read(path).map_err(|e| CorpusError::io("read", path, e))?;
        if bytes.starts_with(b"PAR1") {
            return Err(fail(
                "is a Parquet shard, not an index of shards: name the `index.json` that stage 3 wrote next to its shards. Shards that \
                 CosyVoice packed have none: pack their recordings here, with their embeddings and tokens imported (`kind: import`)"
                    .into(),
            ));
        }
        let text = std::str::from_utf8(&bytes).map_err(|e| fail(format!("is no shard index: {e}")))?;
        let index: Self = serde_json::from_str(text).map_err(|e| fail(format!("is no shard index: {e}")))?;
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
            if shard.file.contains('/') || shard.file.starts_with('.') {
                return Err(fail(format!("names the shard `{}`, which is no plain file name", shard.file)));
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

    /// Checks a shard's size and checksum; `folder` is where the index lies.
    ///
    /// # Errors
    /// [`CorpusError::Io`] when it cannot be read, [`CorpusError::Checksum`] when it is another file.
    pub fn verify(&self, folder: &Path, shard: &ShardEntry) -> Result<(), CorpusError> {
        let path = folder.join(&shard.file);
        let found = file_checksum(&path)?.to_string();
        if found == shard.blake3 {
            return Ok(());
        }
        Err(CorpusError::Checksum { path, expected: shard.blake3.clone(), found })
    }
}
