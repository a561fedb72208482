//! Cutting of an order into batches.

use super::hash::Key;
use super::share::Drawn;
use super::{Corpus, Order, SamplingOptions, curriculum, order};

/// The size of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// A number of utterances, whatever their cost. The last batch of a run may have fewer.
    Static(u32),
    /// As many utterances as fit into a budget.
    Dynamic {
        /// The largest cost of a batch after padding: its most expensive utterance times its number of utterances.
        budget: u32,
        /// The largest number of utterances; 0 for no limit except the budget.
        utterances: u32,
    },
}

impl Default for BatchSize {
    fn default() -> Self {
        Self::Dynamic { budget: 10_000, utterances: 0 }
    }
}

impl BatchSize {
    /// Returns the largest cost of a batch after padding, and the largest number of utterances.
    fn limits(self) -> (u64, usize) {
        match self {
            Self::Static(utterances) => (u64::MAX, utterances.max(1) as usize),
            Self::Dynamic { budget, utterances: 0 } => (u64::from(budget), usize::MAX),
            Self::Dynamic { budget, utterances } => (u64::from(budget), utterances as usize),
        }
    }

    /// Rounds a number of utterances so that batches of a fixed size fill it.
    pub(super) fn whole_batches(self, utterances: usize) -> usize {
        match self {
            Self::Static(size) => (utterances / size.max(1) as usize).max(1) * size.max(1) as usize,
            Self::Dynamic { .. } => utterances,
        }
    }
}

/// The batches of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    /// The utterances of every batch, longest first (ties in stored order).
    pub batches: Vec<Vec<u32>>,
    /// Utterances that cost more than the budget; each is in a batch of its own.
    pub oversized: Vec<u32>,
}

impl BatchPlan {
    /// Returns the batches for training, in the order of the curriculum for this epoch. Batches of a shuffled window,
    /// or of all buckets, are shuffled again, so that training does not repeatedly go from short to long.
    pub fn training(corpus: Corpus<'_>, options: &SamplingOptions, epoch: u64) -> Self {
        let order = curriculum::order_of(&options.curriculum, epoch);
        let mut plan = Self { batches: Vec::new(), oversized: Vec::new() };
        for (number, run) in order::runs(corpus, options, order, epoch).iter().enumerate() {
            let first = plan.batches.len();
            plan.cut(corpus, run, options.size);
            if matches!(order, Order::Shuffled | Order::BySpeaker) {
                shuffle_batches(&mut plan.batches[first..], options.seed, epoch, number as u64);
            }
        }
        if order == Order::Bucketed {
            shuffle_batches(&mut plan.batches, options.seed, epoch, 0);
        }
        plan
    }

    /// Returns the batches for validation: all utterances from short to long, always the same.
    pub fn validation(corpus: Corpus<'_>, options: &SamplingOptions) -> Self {
        let mut order: Vec<Drawn> = (0..corpus.costs.len() as u32).map(Drawn::once).collect();
        order.sort_by_key(|&drawn| corpus.cost(drawn));
        let mut plan = Self { batches: Vec::new(), oversized: Vec::new() };
        plan.cut(corpus, &order, options.size);
        plan
    }

    /// Cuts a run of utterances into batches.
    fn cut(&mut self, corpus: Corpus<'_>, run: &[Drawn], size: BatchSize) {
        let (budget, most) = size.limits();
        let mut batch: Vec<Drawn> = Vec::new();
        let mut most_expensive = 0u64;
        for &drawn in run {
            let cost = u64::from(corpus.cost(drawn));
            if cost > budget {
                self.oversized.push(drawn.item());
            }
            let padded = most_expensive.max(cost) * (batch.len() as u64 + 1);
            if !batch.is_empty() && (padded > budget || batch.len() == most) {
                self.close(corpus, std::mem::take(&mut batch));
                most_expensive = 0;
            }
            most_expensive = most_expensive.max(cost);
            batch.push(drawn);
        }
        if !batch.is_empty() {
            self.close(corpus, batch);
        }
    }

    /// Ends a batch. The longest utterance comes first, the usual order for padded sequences.
    fn close(&mut self, corpus: Corpus<'_>, mut batch: Vec<Drawn>) {
        batch.sort_by_key(|&drawn| (std::cmp::Reverse(corpus.cost(drawn)), drawn.item()));
        self.batches.push(batch.into_iter().map(Drawn::item).collect());
    }
}

/// Puts batches into a hashed order.
fn shuffle_batches(batches: &mut [Vec<u32>], seed: u64, epoch: u64, window: u64) {
    let key = Key::new(seed, epoch, "batch");
    let number = |index: usize| key.hash((window << 32) | index as u64);
    let mut keyed: Vec<(u64, Vec<u32>)> =
        batches.iter_mut().enumerate().map(|(index, batch)| (number(index), std::mem::take(batch))).collect();
    keyed.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    for (place, (_, batch)) in batches.iter_mut().zip(keyed) {
        *place = batch;
    }
}
