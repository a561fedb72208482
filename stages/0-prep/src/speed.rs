//! Copies of training rows at other speeds (`prep.speed_perturb`): more voices for a small corpus.
//!
//! A copy at speed 1.1 is its recording played 10 % faster, so pitch and formants are higher too. This is the speed perturbation of Ko et al., "Audio
//! augmentation for speech recognition" (Interspeech 2015), with the ids of Kaldi's `perturb_data_dir_speed`. Only the training split gets copies.
//! Stage 0 writes their rows; later stages resample the recording when they decode it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use flowmill_corpus::{Role, UtteranceRow};
use flowmill_runner::PartWork;
use serde::Serialize;

use crate::collect::{Collection, Split};
use crate::{PrepConfig, filter};

/// The slowest and the fastest speed.
const RANGE: [f64; 2] = [0.5, 2.0];
/// Most speeds.
const MOST: usize = 100;

/// Returns the reason why the speeds of a recipe cannot be used, if any.
pub fn problem(config: &PrepConfig) -> Option<String> {
    let speeds = &config.speed_perturb;
    let [least, most] = RANGE;
    if let Some(wrong) = speeds.iter().find(|speed| !(least..=most).contains(*speed)) {
        return Some(format!("{wrong} is not a factor from {least} to {most}"));
    }
    if speeds.len() > MOST {
        return Some(format!("{} speeds are more than {MOST}", speeds.len()));
    }
    if speeds.iter().enumerate().any(|(at, speed)| speeds[..at].contains(speed)) {
        return Some("names a speed twice".to_owned());
    }
    let has_recordings = config.media.contains(&Role::Audio);
    (!speeds.is_empty() && !has_recordings).then(|| "needs rows with recordings (prep.media: [audio])".to_owned())
}

/// The speeds of copies, and the split that gets them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speeds {
    factors: Vec<f64>,
    split: String,
}

impl Speeds {
    /// Returns the speeds of a recipe whose training split is `split`. The rows themselves are the copies of speed 1.
    pub fn of(config: &PrepConfig, split: &str) -> Self {
        let factors = config.speed_perturb.iter().copied().filter(|speed| *speed != 1.0).collect();
        Self { factors, split: split.to_owned() }
    }

    /// Returns whether there are no copies.
    pub fn is_empty(&self) -> bool {
        self.factors.is_empty()
    }

    /// Returns the speeds at which the rows of a split are written; the first is that of the recordings.
    pub fn of_split(&self, name: &str) -> impl Iterator<Item = Option<f64>> {
        let factors: &[f64] = if name == self.split { &self.factors } else { &[] };
        std::iter::once(None).chain(factors.iter().copied().map(Some))
    }
}

/// The making of copies, with their counts.
pub struct Copies<'c> {
    config: &'c PrepConfig,
    /// Ids of the data that look like those of copies.
    taken: HashSet<&'c str>,
    tried: AtomicU64,
    made: AtomicU64,
}

/// The names of a copy.
struct Names {
    id: String,
    speaker: String,
}

/// The beginning of the ids of copies.
const PREFIX: &str = "sp";

impl<'c> Copies<'c> {
    /// Prepares the copies of rows.
    pub fn of(config: &'c PrepConfig, speeds: &Speeds, collection: &'c Collection) -> Self {
        let splits = collection.splits().filter(|_| !speeds.is_empty());
        let taken = splits.flat_map(|split| split.rows()).map(|row| row.utt).filter(|id| id.starts_with(PREFIX));
        Self { config, taken: taken.collect(), tried: AtomicU64::new(0), made: AtomicU64::new(0) }
    }

    /// Returns the number of copies that were tried, and of those that were made.
    pub fn counts(&self) -> (u64, u64) {
        (self.tried.load(Ordering::Relaxed), self.made.load(Ordering::Relaxed))
    }

    /// Calls `then` with copies of rows at a speed. Rows without a recording have none, and a copy whose id the data have, or whose known duration
    /// is refused, is rejected.
    pub fn with<R>(
        &self,
        split: &Split<'_>,
        speed: f64,
        work: &PartWork,
        then: impl FnOnce(&[UtteranceRow<'_>]) -> R,
    ) -> R {
        let rows: Vec<(UtteranceRow<'_>, Names)> = split
            .rows()
            .filter(|row| !row.wav.is_empty())
            .map(|row| {
                (
                    row,
                    Names {
                        id: format!("{PREFIX}{speed}-{}", row.utt),
                        speaker: format!("{PREFIX}{speed}-{}", row.spk),
                    },
                )
            })
            .collect();
        self.tried.fetch_add(rows.len() as u64, Ordering::Relaxed);
        let mut copies = Vec::with_capacity(rows.len());
        for (row, names) in &rows {
            let duration = row.duration.map(|seconds| seconds / speed);
            let refused = match self.taken.contains(names.id.as_str()) {
                true => {
                    Some("its id is that of a row of the data; leave such rows out, or prep.speed_perturb".to_owned())
                }
                // With probing, the second phase filters.
                false => filter::duration(self.config, duration.filter(|_| !self.config.probe)),
            };
            match refused {
                Some(reason) => work.reject(names.id.as_str(), reason),
                None => copies.push(UtteranceRow {
                    utt: &names.id,
                    spk: &names.speaker,
                    duration,
                    speed: Some(speed),
                    ..*row
                }),
            }
        }
        self.made.fetch_add(copies.len() as u64, Ordering::Relaxed);
        then(&copies)
    }
}
