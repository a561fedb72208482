//! The JSON of a row.

use serde::{Deserialize, Serialize};

use crate::shard::ShardRow;

/// A row but for its recording and its mel. The first five names are those that WebDataset readers of speech know (and stage 0 reads).
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sidecar {
    id: String,
    speaker: String,
    text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    duration: f64,
    sample_rate: u32,
    wav: String,
    utt_embedding: Vec<f32>,
    spk_embedding: Vec<f32>,
    speech_token: Vec<i64>,
}

impl From<&ShardRow> for Sidecar {
    fn from(row: &ShardRow) -> Self {
        Self {
            id: row.utt.clone(),
            speaker: row.spk.clone(),
            text: row.text.clone(),
            language: row.lang.clone(),
            duration: row.duration,
            sample_rate: row.sample_rate,
            wav: row.wav.clone(),
            utt_embedding: row.utt_embedding.clone(),
            spk_embedding: row.spk_embedding.clone(),
            speech_token: row.speech_token.clone(),
        }
    }
}

impl From<Sidecar> for ShardRow {
    fn from(sidecar: Sidecar) -> Self {
        Self {
            utt: sidecar.id,
            spk: sidecar.speaker,
            text: sidecar.text,
            lang: sidecar.language,
            duration: sidecar.duration,
            sample_rate: sidecar.sample_rate,
            wav: sidecar.wav,
            utt_embedding: sidecar.utt_embedding,
            spk_embedding: sidecar.spk_embedding,
            speech_token: sidecar.speech_token,
            ..Self::default()
        }
    }
}
