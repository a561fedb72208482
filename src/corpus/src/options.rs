//! Options for reading sources.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::histories::HistoryOptions;
use crate::{ColumnSpec, Role};

/// The origin of the ids of a tar file's utterances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ids {
    /// Their JSON, or their key if the JSON has no id.
    #[default]
    Json,
    /// Their key.
    Key,
    /// Their shard and key, for shards that each count from zero.
    Shard,
}

/// The options for reading a source. Each format uses those that concern it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions<'a> {
    /// True if entries of `wav.scp` that are commands (`sox … |`) are accepted. Running them later executes whatever
    /// the file says.
    pub allow_pipes: bool,
    /// The default speaker of utterances.
    pub speaker: Option<&'a str>,
    /// The origin of ids in tar files.
    pub ids: Ids,
    /// True if single rows without a transcript are kept. A source in which no row has one is read without
    /// transcripts anyway.
    pub rows_without_text: bool,
    /// The media that rows of a manifest have; empty for recordings.
    pub media: &'a [Role],
    /// The fields of a manifest that hold ids of other rows.
    pub references: &'a [String],
    /// Columns that rows of a manifest have beyond those of an utterance.
    pub columns: &'a [ColumnSpec],
    /// The folder that relative paths of recordings start from, as the recipe names it; without it that of the file.
    pub recordings: Option<&'a str>,
    /// The sampling rate of recordings that are arrays and do not say it.
    pub sample_rate: Option<u32>,
    /// The microphone of VCTK that is read; by default the first.
    pub microphone: Option<u8>,
    /// The order of the fields in a list.
    pub order: Option<&'a crate::list::Order>,
    /// Fields by other names than those of [`crate::fields::FIELDS`]: the field and its name in the data.
    pub renames: &'a [(String, String)],
    /// The folder of the images of users, as the recipe names it; without it that of the file of users.
    pub images: Option<&'a str>,
    /// Options of files of users.
    pub histories: HistoryOptions,
}

impl ReadOptions<'_> {
    /// Returns whether rows may have more than utterances have.
    pub(crate) fn asks_for_more(&self) -> bool {
        let other_media = self.media.iter().any(|role| *role != Role::Audio);
        other_media || !self.references.is_empty() || !self.columns.is_empty()
    }
}
