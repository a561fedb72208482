//! How sources are read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ColumnSpec, Role};

/// Where the ids of a tar file's utterances come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ids {
    /// Their JSON, or their key where the JSON has no id.
    #[default]
    Json,
    /// Their key.
    Key,
    /// Their shard and key, for shards that each count from zero.
    Shard,
}

/// How to read a source; each format looks at what it needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions<'a> {
    /// Whether entries of `wav.scp` that are commands (`sox … |`) are taken. Running them later runs whatever the file says.
    pub allow_pipes: bool,
    /// The speaker of utterances that name none.
    pub speaker: Option<&'a str>,
    /// What utterances of tar files are called.
    pub ids: Ids,
    /// Whether single rows without a transcript are kept. A source in which no row has one is read without transcripts anyway.
    pub rows_without_text: bool,
    /// The media that rows of a manifest have; none: recordings.
    pub media: &'a [Role],
    /// The fields of a manifest that hold ids of other rows.
    pub references: &'a [String],
    /// Columns that rows of a manifest have beyond those of an utterance.
    pub columns: &'a [ColumnSpec],
}

impl ReadOptions<'_> {
    /// Returns whether rows may have more than utterances have.
    pub(crate) fn asks_for_more(&self) -> bool {
        let other_media = self.media.iter().any(|role| *role != Role::Audio);
        other_media || !self.references.is_empty() || !self.columns.is_empty()
    }
}
