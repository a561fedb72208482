//! Epochs and batches from the costs of rows alone (their frames, tokens or pixels, as the family counts them): which utterances, in which order, in which batches, before any data is read.
//!
//! An epoch is planned in three steps, each a pure function of seed and epoch (keys are hashed, never drawn from a generator with
//! a state), so that neither loader threads nor the number of ranks change it and resuming needs no replay:
//!
//! 1. which utterances it has: all of them, or of several corpora their shares, or of every speaker as many (`share`);
//! 2. in which order they come: what the [`curriculum`] says for that epoch (`order`);
//! 3. how the order is cut into batches of a [`BatchSize`] ([`BatchPlan`]), which [`rank_share`] deals out to ranks.
//!
//! The shuffled order is CosyVoice's: shuffle in a window, sort in a smaller one, batch until *longest × count* would pass a
//! budget.

mod batches;
pub mod curriculum;
mod hash;
mod order;
mod rank;
mod share;
#[cfg(test)]
mod tests;

pub use batches::{BatchPlan, BatchSize};
pub use curriculum::{Order, Phase};
pub use rank::rank_share;

/// How epochs are made.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// How large batches are.
    pub size: BatchSize,
    /// Utterances are shuffled within windows of this many (windows hold whole runs of neighbouring shards).
    pub shuffle_size: u32,
    /// Within shuffled windows, runs of this many are sorted by length so that a batch holds similar ones; 1: no sorting.
    pub sort_size: u32,
    /// Width of the buckets of [`Order::Bucketed`] in units of cost, at least 1.
    pub bucket_width: u32,
    /// The order of every epoch; see [`curriculum::check`].
    pub curriculum: Vec<Phase>,
    /// The seed of every order.
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            size: BatchSize::default(),
            shuffle_size: 10_000,
            sort_size: 500,
            bucket_width: 50,
            curriculum: vec![Phase::default()],
            seed: 0,
        }
    }
}

/// The utterances to sample, in stored order: the cost of every utterance, and how they are grouped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Corpus<'a> {
    /// The cost of every utterance, in whatever unit the budget is.
    pub costs: &'a [u32],
    /// Utterances per shard, in order; they add up to `costs.len()`. Empty: every part is one shard.
    pub shards: &'a [u32],
    /// Number of every utterance's speaker, for [`Order::BySpeaker`]; of different parts they are different speakers. Empty: one speaker.
    pub speakers: &'a [u32],
    /// The corpora that are mixed, in order: whole shards. Empty: one.
    pub parts: &'a [Part],
}

/// One of several corpora that are mixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// How many utterances it has.
    pub utterances: u32,
    /// Its share of an epoch's utterances, relative to the others' weights.
    pub weight: f64,
}

impl Corpus<'_> {
    /// The utterances of every part, as ranges of numbers.
    fn ranges(&self) -> Vec<std::ops::Range<u32>> {
        if self.parts.is_empty() {
            return std::iter::once(0..self.costs.len() as u32).collect();
        }
        let mut start = 0;
        self.parts
            .iter()
            .map(|part| {
                start += part.utterances;
                start - part.utterances..start
            })
            .collect()
    }

    /// The cost of an utterance.
    fn cost(&self, draw: share::Drawn) -> u32 {
        self.costs[draw.item() as usize]
    }
}
