//! How sources are read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
}
