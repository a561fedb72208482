//! Epochs and batches, planned from the costs of rows alone (frames, tokens or pixels, as the family counts them)
//! before any data is read.
//!
//! An epoch is planned in three steps, each a pure function of seed and epoch (keys are hashed, never drawn from a
//! generator with a state). So neither loader threads nor the number of ranks change the plan, and resuming needs no
//! replay:
//!
//! 1. its utterances: all of them, a share of each of several corpora, or as many from every speaker (`share`);
//! 2. their order: the one that the [`curriculum`] has for that epoch (`order`);
//! 3. its batches: the order is cut by a [`BatchSize`] ([`BatchPlan`]), and [`rank_share`] distributes them to ranks.
//!
//! The shuffled order is CosyVoice's: shuffle in a window, sort in a smaller one, and batch until *longest × count*
//! would exceed a budget.

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

/// The options of sampling.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// The size of batches.
    pub size: BatchSize,
    /// The size of the windows in which utterances are shuffled (windows contain whole runs of neighboring shards).
    pub shuffle_size: u32,
    /// The size of the runs that are sorted by length within shuffled windows, so that a batch has similar ones; 1
    /// for no sorting.
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

/// The utterances to sample, in stored order: their costs and their grouping.
#[derive(Clone, Copy, Debug, Default)]
pub struct Corpus<'a> {
    /// The cost of every utterance, in the unit of the budget.
    pub costs: &'a [u32],
    /// The number of utterances per shard, in order; they add up to `costs.len()`. If empty, every part is one shard.
    pub shards: &'a [u32],
    /// The number of every utterance's speaker, for [`Order::BySpeaker`]. Speakers of different parts are different.
    /// If empty, there is one speaker.
    pub speakers: &'a [u32],
    /// The mixed corpora, in order, as whole shards. If empty, there is one.
    pub parts: &'a [Part],
}

/// One of several corpora that are mixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// The number of its utterances.
    pub utterances: u32,
    /// The share of an epoch's utterances, relative to the others' weights.
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
