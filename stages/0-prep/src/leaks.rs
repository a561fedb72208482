//! Videos in two splits: a clip that a model is tested on must not be one that it was trained on.

use std::collections::BTreeMap;

use flowmill_corpus::{Role, UtteranceRow, Utterances};
use flowmill_runner::PartWork;

use crate::collect::{Place, row};

/// A stretch of a video that a row of a split uses, in seconds.
#[derive(Clone, Copy)]
struct Use {
    split: usize,
    start: f64,
    end: f64,
}

impl Use {
    fn of(split: usize, row: &UtteranceRow<'_>) -> Self {
        Self { split, start: row.start.unwrap_or(0.0), end: row.end.unwrap_or(f64::INFINITY) }
    }

    fn overlaps(self, other: Self) -> bool {
        self.start + 1e-6 < other.end && other.start + 1e-6 < self.end
    }
}

/// Rejects rows whose video, or a part of it, is also in another split: the training split keeps its rows, then the others in the order of
/// their names.
pub fn resolve(splits: &mut Vec<(String, Vec<Place>)>, tables: &[Utterances], train: &str, work: &PartWork) {
    let mut order: Vec<usize> = (0..splits.len()).collect();
    order.sort_by_key(|split| splits[*split].0 != train);
    let names: Vec<String> = splits.iter().map(|(name, _)| name.clone()).collect();
    let mut used: BTreeMap<String, Vec<Use>> = BTreeMap::new();
    for split in order {
        splits[split].1.retain(|place| {
            let row = row(tables, place);
            let Some(video) = row.extra.and_then(|extra| extra.media.get(&Role::Video)?.first()) else { return true };
            let own = Use::of(split, &row);
            let uses = used.entry(video.0.clone()).or_default();
            match uses.iter().find(|other| other.split != split && other.overlaps(own)) {
                Some(other) => {
                    let name = &names[other.split];
                    let reason = format!("in another split: {} is also in {name}; use `split.unit: group`", video.0);
                    work.reject(row.utt, reason);
                    false
                }
                None => {
                    uses.push(own);
                    true
                }
            }
        });
    }
    splits.retain(|(_, places)| !places.is_empty());
}
