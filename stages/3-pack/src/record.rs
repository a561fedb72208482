//! What a shard's part tells the index: a small JSON file beside the shard.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use flowmill_corpus::shard::{ColumnDigests, ShardEntry};
use flowmill_runner::StageError;
use serde::{Deserialize, Serialize};

use crate::statistics::Moments;

/// What is in a shard.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRecord {
    /// The entry its index gets.
    pub entry: ShardEntry,
    /// Its speakers.
    pub speakers: BTreeSet<String>,
    /// The moments of its mels; none of no mel.
    pub moments: Moments,
    /// The digests of its columns.
    pub content: ColumnDigests,
}

impl ShardRecord {
    /// Writes it as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), StageError> {
        let text = serde_json::to_string(self).map_err(StageError::other)?;
        fs::write(path, text + "\n").map_err(|e| StageError::file(path, e))
    }

    /// Reads it.
    ///
    /// # Errors
    /// When the file cannot be read or is no record.
    pub fn read(path: &Path) -> Result<Self, StageError> {
        let text = fs::read_to_string(path).map_err(|e| StageError::file(path, e))?;
        serde_json::from_str(&text).map_err(|e| StageError::new(format!("{}: {e}", path.display())))
    }
}
