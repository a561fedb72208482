//! Mean and deviation of the mels of the training split, as stage 3 measured them.

use std::path::PathBuf;

use flowmill_corpus::shard::{MEL_STATISTICS_FILE, MelStatistics};
use flowmill_family::{Artifacts, BoxError};
use flowmill_networks::flow::MelNormalization;

use super::example::check_bins;

/// Returns the path of the statistics.
pub fn file(artifacts: &Artifacts) -> PathBuf {
    artifacts.packed.join(MEL_STATISTICS_FILE)
}

/// Returns the normalization that follows from the statistics, for mels of `bins` bins.
///
/// # Errors
/// Returns an error if there are none, they cannot be read, or they are for another split or number of bins.
pub fn normalization(artifacts: &Artifacts, bins: usize) -> Result<MelNormalization, BoxError> {
    let (path, split) = (file(artifacts), &artifacts.train_split);
    let shown = path.display();
    let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!(
            "{shown} does not exist: stage 3 computes the statistics for normalization from the stored mels of train.train_split (`{split}`); without \
             them, set train.normalise_mel: false"
        ),
        _ => format!("{shown}: {error}"),
    })?;
    let statistics: MelStatistics = serde_json::from_str(&text).map_err(|error| format!("{shown}: {error}"))?;
    if statistics.split != *split {
        return Err(format!(
            "{shown}: the statistics are those of the split `{}`, but train.train_split is `{split}`: run stage 3 again (--stage pack), which \
             computes them for that split",
            statistics.split
        )
        .into());
    }
    check_bins(statistics.mean.len(), bins)?;
    let single = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
    Ok(MelNormalization { mean: single(&statistics.mean), deviation: single(&statistics.std) })
}
