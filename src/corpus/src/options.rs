//! How sources are read.

use crate::{ColumnSpec, Role};
use serde::{Deserialize, Serialize};

/// What an utterance of a tar file is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ids {
    /// As its JSON says; by its key when that says nothing.
    #[default]
    Json,
    /// By its key.
    Key,
    /// By its shard and its key, for shards that each count from zero.
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
    /// Whether rows may have more than utterances have.
    pub(crate) fn asks_for_more(&self) -> bool {
        let other_media = self.media.iter().any(|role| *role != Role::Audio);
        other_media || !self.references.is_empty() || !self.columns.is_empty()
    }
}
