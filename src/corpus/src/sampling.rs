//! Epochs and batches from lengths alone: which utterances, in which order, in which batches, before any data is read.
//!
//! The scheme is CosyVoice's (shuffle in a window, sort in a smaller one, batch until *longest × count* would pass a frame budget), with
//! every order a pure function of seed and epoch: keys are hashed, never drawn from a generator with a state.

use serde::{Deserialize, Serialize};

/// How epochs are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingOptions {
    /// The most frames a batch may have after padding: its longest utterance times its count.
    pub max_frames_in_batch: u32,
    /// The most utterances in a batch; 0: no limit but the frames.
    pub max_utterances_in_batch: u32,
    /// Utterances are shuffled within windows of this many (windows hold whole runs of neighbouring shards).
    pub shuffle_size: u32,
    /// Within shuffled windows, runs of this many are sorted by length so that a batch holds similar ones; 1: no sorting.
    pub sort_size: u32,
    /// The seed of every order.
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self { max_frames_in_batch: 10_000, max_utterances_in_batch: 0, shuffle_size: 10_000, sort_size: 500, seed: 0 }
    }
}

/// What there is to sample: one length per utterance, in stored order, and how many utterances each shard has.
#[derive(Clone, Copy, Debug)]
pub struct Corpus<'a> {
    /// Frames of every utterance.
    pub lengths: &'a [u32],
    /// Utterances per shard, in order; they add up to `lengths.len()`. Empty: one shard.
    pub shards: &'a [u32],
}

/// The order of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochPlan {
    /// Every utterance once.
    pub order: Vec<u32>,
}

/// The batches of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    /// Utterances of every batch, longest first (ties in stored order).
    pub batches: Vec<Vec<u32>>,
    /// Utterances longer than the frame budget; each is a batch of its own.
    pub oversized: Vec<u32>,
}

impl EpochPlan {
    /// Shuffles the shards, then the utterances within windows of `shuffle_size` along that order. Neighbours come from few shards,
    /// so that a reader touches few files at a time.
    pub fn new(corpus: Corpus<'_>, options: &SamplingOptions, epoch: u64) -> Self {
        let mut order = shard_order(corpus, options.seed, epoch);
        for window in order.chunks_mut(options.shuffle_size.max(1) as usize) {
            sort_by_hash(window, options.seed, epoch, "utterance");
        }
        Self { order }
    }
}

impl BatchPlan {
    /// Batches for training: the order of [`EpochPlan`], sorted by length within windows of `sort_size`, cut by the frame budget,
    /// the batches of a window shuffled again (so that training does not go from short to long over and over).
    pub fn training(corpus: Corpus<'_>, options: &SamplingOptions, epoch: u64) -> Self {
        let mut order = EpochPlan::new(corpus, options, epoch).order;
        let mut plan = Self { batches: Vec::new(), oversized: Vec::new() };
        for (number, window) in order.chunks_mut(options.sort_size.max(1) as usize).enumerate() {
            if options.sort_size > 1 {
                window.sort_by_key(|&item| length(corpus, item));
            }
            let first = plan.batches.len();
            plan.cut(corpus, window, options);
            shuffle_batches(&mut plan.batches[first..], options.seed, epoch, number as u64);
        }
        plan
    }

    /// Batches for validation: all utterances from short to long, the same every time.
    pub fn validation(corpus: Corpus<'_>, options: &SamplingOptions) -> Self {
        let mut order: Vec<u32> = (0..corpus.lengths.len() as u32).collect();
        order.sort_by_key(|&item| length(corpus, item));
        let mut plan = Self { batches: Vec::new(), oversized: Vec::new() };
        plan.cut(corpus, &order, options);
        plan
    }

    /// Cuts a run of utterances into batches.
    fn cut(&mut self, corpus: Corpus<'_>, run: &[u32], options: &SamplingOptions) {
        let budget = u64::from(options.max_frames_in_batch);
        let most = match options.max_utterances_in_batch {
            0 => usize::MAX,
            most => most as usize,
        };
        let mut batch: Vec<u32> = Vec::new();
        let mut longest = 0u64;
        for &item in run {
            let frames = u64::from(length(corpus, item));
            if frames > budget {
                self.oversized.push(item);
            }
            let padded = longest.max(frames) * (batch.len() as u64 + 1);
            if !batch.is_empty() && (padded > budget || batch.len() == most) {
                self.close(corpus, std::mem::take(&mut batch));
                longest = 0;
            }
            longest = longest.max(frames);
            batch.push(item);
        }
        if !batch.is_empty() {
            self.close(corpus, batch);
        }
    }

    /// Ends a batch: longest first, as padded sequences are usually fed.
    fn close(&mut self, corpus: Corpus<'_>, mut batch: Vec<u32>) {
        batch.sort_by_key(|&item| (std::cmp::Reverse(length(corpus, item)), item));
        self.batches.push(batch);
    }
}

/// The length of an utterance.
fn length(corpus: Corpus<'_>, item: u32) -> u32 {
    corpus.lengths[item as usize]
}

/// All utterances, shard by shard, the shards in a hashed order.
fn shard_order(corpus: Corpus<'_>, seed: u64, epoch: u64) -> Vec<u32> {
    let whole = [corpus.lengths.len() as u32];
    let sizes = if corpus.shards.is_empty() { &whole[..] } else { corpus.shards };
    let mut shards: Vec<u32> = (0..sizes.len() as u32).collect();
    sort_by_hash(&mut shards, seed, epoch, "shard");
    let mut starts = Vec::with_capacity(sizes.len());
    let mut start = 0u32;
    for size in sizes {
        starts.push(start);
        start += size;
    }
    shards.iter().flat_map(|&s| starts[s as usize]..starts[s as usize] + sizes[s as usize]).collect()
}

/// Puts numbers into the order of their hashes.
fn sort_by_hash(items: &mut [u32], seed: u64, epoch: u64, purpose: &str) {
    let key = order_key(seed, epoch, purpose);
    items.sort_by_cached_key(|&item| (hashed(&key, u64::from(item)), item));
}

/// Puts batches into a hashed order.
fn shuffle_batches(batches: &mut [Vec<u32>], seed: u64, epoch: u64, window: u64) {
    let key = order_key(seed, epoch, "batch");
    let number = |index: usize| hashed(&key, (window << 32) | index as u64);
    let mut keyed: Vec<(u64, Vec<u32>)> =
        batches.iter_mut().enumerate().map(|(index, batch)| (number(index), std::mem::take(batch))).collect();
    keyed.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    for (place, (_, batch)) in batches.iter_mut().zip(keyed) {
        *place = batch;
    }
}

/// A hash key for one kind of order in one epoch.
fn order_key(seed: u64, epoch: u64, purpose: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("flowmill 2026 sampling order");
    hasher.update(&seed.to_le_bytes()).update(&epoch.to_le_bytes()).update(purpose.as_bytes());
    *hasher.finalize().as_bytes()
}

/// The first 64 bits of the keyed hash of a number.
fn hashed(key: &[u8; 32], number: u64) -> u64 {
    let mut first = [0u8; 8];
    first.copy_from_slice(&blake3::keyed_hash(key, &number.to_le_bytes()).as_bytes()[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths() -> Vec<u32> {
        (0..1000u32).map(|n| 50 + (n * 7919) % 900).collect()
    }

    fn options() -> SamplingOptions {
        SamplingOptions { max_frames_in_batch: 4000, shuffle_size: 300, sort_size: 100, seed: 7, ..Default::default() }
    }

    #[test]
    fn every_utterance_comes_once_and_no_batch_passes_the_budget() {
        let (lengths, options) = (lengths(), options());
        let corpus = Corpus { lengths: &lengths, shards: &[400, 250, 350] };
        for epoch in 0..3 {
            let plan = BatchPlan::training(corpus, &options, epoch);
            let mut seen: Vec<u32> = plan.batches.concat();
            seen.sort_unstable();
            assert_eq!(seen, (0..1000).collect::<Vec<_>>());
            for batch in &plan.batches {
                let longest = lengths[batch[0] as usize];
                assert!(longest * batch.len() as u32 <= 4000);
                assert!(batch.windows(2).all(|pair| lengths[pair[0] as usize] >= lengths[pair[1] as usize]));
            }
        }
    }

    #[test]
    fn the_order_is_a_function_of_seed_and_epoch() {
        let (lengths, options) = (lengths(), options());
        let corpus = Corpus { lengths: &lengths, shards: &[] };
        let plan = |options: &SamplingOptions, epoch| BatchPlan::training(corpus, options, epoch);
        assert_eq!(plan(&options, 3), plan(&options, 3));
        assert_ne!(plan(&options, 3), plan(&options, 4));
        assert_ne!(plan(&options, 3), plan(&SamplingOptions { seed: 8, ..options.clone() }, 3));
    }

    #[test]
    fn padding_stays_small_and_batches_are_not_in_order_of_length() {
        let (lengths, options) = (lengths(), options());
        let plan = BatchPlan::training(Corpus { lengths: &lengths, shards: &[] }, &options, 0);
        let padded: u32 = plan.batches.iter().map(|b| lengths[b[0] as usize] * b.len() as u32).sum();
        let real: u32 = lengths.iter().sum();
        assert!(f64::from(padded) < 1.1 * f64::from(real), "{padded} {real}");
        let firsts: Vec<u32> = plan.batches.iter().map(|b| lengths[b[0] as usize]).collect();
        assert!(firsts.windows(2).filter(|pair| pair[0] > pair[1]).count() > firsts.len() / 4);
    }

    #[test]
    fn an_utterance_beyond_the_budget_is_alone_and_named() {
        let lengths = [100, 9000, 100];
        let corpus = Corpus { lengths: &lengths, shards: &[] };
        let plan = BatchPlan::validation(corpus, &options());
        assert_eq!(plan.batches, [vec![0, 2], vec![1]]);
        assert_eq!(plan.oversized, [1]);
    }
}
