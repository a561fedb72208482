//! The record of a shard for the index: a small JSON file next to the shard.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use flowmill_corpus::ColumnSpec;
use flowmill_corpus::shard::{ColumnDigests, ShardEntry};
use flowmill_runner::StageError;
use serde::{Deserialize, Serialize};

use crate::statistics::Moments;
use crate::utterance::PackedRow;

/// The content of a shard.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRecord {
    /// The entry in the index.
    pub entry: ShardEntry,
    /// The speakers.
    pub speakers: BTreeSet<String>,
    /// The moments of its mels; empty without mels.
    pub moments: Moments,
    /// The digests of its columns.
    pub content: ColumnDigests,
}

impl ShardRecord {
    /// Adds a row; `others` are the shard's columns other than those of the speech flows.
    pub fn add(&mut self, made: &PackedRow, others: &[ColumnSpec]) {
        if let Some(moments) = &made.moments {
            self.moments.merge(moments);
        }
        let entry = &mut self.entry;
        entry.utterances.push(made.row.id.clone());
        entry.frames.push(as_u32(made.frames));
        entry.seconds += made.seconds;
        self.speakers.insert(made.row.group.clone());
        let mut sizes: BTreeMap<&str, u32> = BTreeMap::new();
        for column in others {
            let shape = made.row.columns.get(&column.name).map_or(&[][..], |array| array.shape());
            for (at, axis) in column.axes.iter().enumerate().filter(|(_, axis)| axis.size.is_none()) {
                let size = sizes.entry(&axis.name).or_default();
                *size = (*size).max(as_u32(shape.get(at).copied().unwrap_or(0)));
            }
        }
        for (axis, size) in sizes {
            entry.axes.entry(axis.to_owned()).or_default().push(size);
        }
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), StageError> {
        let text = serde_json::to_string(self).map_err(StageError::other)?;
        fs::write(path, text + "\n").map_err(|e| StageError::file(path, e))
    }

    /// Reads it.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is not a record.
    pub fn read(path: &Path) -> Result<Self, StageError> {
        let text = fs::read_to_string(path).map_err(|e| StageError::file(path, e))?;
        serde_json::from_str(&text).map_err(|e| StageError::new(format!("{}: {e}", path.display())))
    }
}

fn as_u32(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}
