//! Statistics of the mels of a split.

use serde::{Deserialize, Serialize};

/// The file of the statistics, in the folder of stage 3.
pub const MEL_STATISTICS_FILE: &str = "mel_statistics.json";

/// The content of [`MEL_STATISTICS_FILE`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MelStatistics {
    /// The split from which the statistics were computed.
    pub split: String,
    /// Number of frames.
    pub frames: u64,
    /// Mean of every bin.
    pub mean: Vec<f64>,
    /// Standard deviation of every bin (over all frames, not corrected for the sample).
    pub std: Vec<f64>,
}
