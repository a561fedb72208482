//! Statistics of the mels of a split.

use serde::{Deserialize, Serialize};

/// What `mel_statistics.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MelStatistics {
    /// The split it was taken over.
    pub split: String,
    /// How many frames.
    pub frames: u64,
    /// Mean of every bin.
    pub mean: Vec<f64>,
    /// Standard deviation of every bin (over all frames, not corrected for the sample).
    pub std: Vec<f64>,
}
