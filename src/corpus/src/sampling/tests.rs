//! Properties that every order has, and the purpose of each.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn lengths() -> Vec<u32> {
    (0..1000u32).map(|n| 50 + (n * 7919) % 900).collect()
}

fn options(order: Order) -> SamplingOptions {
    SamplingOptions {
        size: BatchSize::Dynamic { budget: 4000, utterances: 0 },
        shuffle_size: 300,
        sort_size: 100,
        seed: 7,
        curriculum: vec![Phase { epochs: None, order }],
        ..SamplingOptions::default()
    }
}

/// A few speakers with very different numbers of utterances: half are of speaker 0.
fn speakers() -> Vec<u32> {
    (0..1000).map(|n: u32| if n.is_multiple_of(2) { 0 } else { 1 + (n % 50) / 10 }).collect()
}

fn plan(corpus: Corpus<'_>, options: &SamplingOptions, epoch: u64) -> Vec<Vec<u32>> {
    BatchPlan::training(corpus, options, epoch).batches
}

const ORDERS: [Order; 4] = [Order::Shuffled, Order::Bucketed, Order::Sorted, Order::BySpeaker];

/// The orders of published runs must not change: compares with a hash of the first release's orders for these
/// lengths.
#[test]
fn the_shuffled_order_is_that_of_the_first_release() {
    let lengths = lengths();
    let corpus = Corpus { costs: &lengths, shards: &[400, 250, 350], ..Corpus::default() };
    let mut hasher = blake3::Hasher::new();
    for epoch in 0..3 {
        hasher.update(format!("{:?}", plan(corpus, &options(Order::Shuffled), epoch)).as_bytes());
    }
    assert_eq!(&hasher.finalize().to_hex()[..16], "fc9b61a237c03ed4");
}

#[test]
fn no_batch_passes_the_budget_and_what_is_not_balanced_comes_once() {
    let (lengths, speakers) = (lengths(), speakers());
    let corpus = Corpus { costs: &lengths, shards: &[400, 250, 350], speakers: &speakers, ..Corpus::default() };
    for (order, epoch) in ORDERS.into_iter().flat_map(|order| [(order, 0), (order, 1), (order, 2)]) {
        let batches = plan(corpus, &options(order), epoch);
        let mut seen: Vec<u32> = batches.concat();
        assert_eq!(seen.len(), 1000, "{order:?}");
        seen.sort_unstable();
        assert!(order == Order::BySpeaker || seen == (0..1000).collect::<Vec<_>>(), "{order:?}");
        for batch in &batches {
            let longest = lengths[batch[0] as usize];
            assert!(longest * batch.len() as u32 <= 4000, "{order:?}");
            assert!(batch.windows(2).all(|pair| lengths[pair[0] as usize] >= lengths[pair[1] as usize]));
        }
    }
}

#[test]
fn every_order_is_a_function_of_seed_and_epoch() {
    let (lengths, speakers) = (lengths(), speakers());
    let parts = [Part { utterances: 400, weight: 3.0 }, Part { utterances: 600, weight: 1.0 }];
    let corpus = Corpus { costs: &lengths, shards: &[400, 600], speakers: &speakers, parts: &parts };
    for order in ORDERS {
        let options = options(order);
        assert_eq!(plan(corpus, &options, 3), plan(corpus, &options, 3), "{order:?}");
        assert_ne!(plan(corpus, &options, 3), plan(corpus, &options, 4), "{order:?}");
        assert_ne!(plan(corpus, &options, 3), plan(corpus, &SamplingOptions { seed: 8, ..options.clone() }, 3));
    }
}

#[test]
fn padding_stays_small_and_shuffled_batches_are_not_in_order_of_length() {
    let lengths = lengths();
    let corpus = Corpus { costs: &lengths, ..Corpus::default() };
    for order in [Order::Shuffled, Order::Bucketed] {
        let batches = plan(corpus, &options(order), 0);
        let padded: u32 = batches.iter().map(|b| lengths[b[0] as usize] * b.len() as u32).sum();
        let real: u32 = lengths.iter().sum();
        assert!(f64::from(padded) < 1.1 * f64::from(real), "{order:?}: {padded} {real}");
        let firsts: Vec<u32> = batches.iter().map(|b| lengths[b[0] as usize]).collect();
        assert!(firsts.windows(2).filter(|pair| pair[0] > pair[1]).count() > firsts.len() / 4, "{order:?}");
    }
}

#[test]
fn sorted_goes_from_short_to_long_and_a_bucket_holds_similar_lengths() {
    let lengths = lengths();
    let corpus = Corpus { costs: &lengths, ..Corpus::default() };
    let length = |item: &u32| lengths[*item as usize];
    let sorted = plan(corpus, &options(Order::Sorted), 0);
    for pair in sorted.windows(2) {
        assert!(pair[0].iter().map(length).max() <= pair[1].iter().map(length).min());
    }
    for batch in plan(corpus, &options(Order::Bucketed), 0) {
        let buckets: BTreeSet<u32> = batch.iter().map(|item| length(item) / 50).collect();
        assert_eq!(buckets.len(), 1);
    }
}

#[test]
fn speakers_come_equally_often_and_in_turn_whatever_they_recorded() {
    let (lengths, speakers) = (lengths(), speakers());
    let corpus = Corpus { costs: &lengths, speakers: &speakers, ..Corpus::default() };
    let mut options = options(Order::BySpeaker);
    options.sort_size = 1;
    options.size = BatchSize::Static(6);
    let mut seen = BTreeSet::new();
    for epoch in 0..4 {
        let batches = plan(corpus, &options, epoch);
        let mut counts = BTreeMap::<u32, u32>::new();
        batches.iter().flatten().for_each(|&item| *counts.entry(speakers[item as usize]).or_default() += 1);
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (166..=167).contains(count)), "{counts:?}");
        let mixed =
            |batch: &&Vec<u32>| batch.iter().map(|&item| speakers[item as usize]).collect::<BTreeSet<_>>().len() >= 3;
        assert_eq!(batches.iter().filter(|batch| batch.len() == 6).filter(|batch| !mixed(batch)).count(), 0);
        seen.extend(batches.concat());
    }
    assert_eq!(seen.len(), 1000, "500 utterances of one speaker are through after four epochs at 167 each");
}

#[test]
fn a_mixture_has_its_shares_everywhere_and_leaves_nothing_out_for_long() {
    let lengths = lengths();
    let parts = [Part { utterances: 200, weight: 3.0 }, Part { utterances: 800, weight: 1.0 }];
    let corpus = Corpus { costs: &lengths, shards: &[200, 500, 300], parts: &parts, ..Corpus::default() };
    let (mut options, mut counts) = (options(Order::Shuffled), vec![0; 1000]);
    options.sort_size = 1;
    options.size = BatchSize::Static(100);
    for epoch in 0..4 {
        for batch in plan(corpus, &options, epoch) {
            let first = batch.iter().filter(|&&item| item < 200).count();
            assert!((74..=76).contains(&first), "{first} of {}", batch.len());
            batch.iter().for_each(|&item| counts[item as usize] += 1);
        }
    }
    assert!(counts[..200].iter().all(|&count| count == 15), "3000 draws from 200");
    assert!(counts[200..].iter().all(|count| (1..=2).contains(count)), "1000 draws from 800");
    for order in ORDERS {
        let items =
            plan(corpus, &SamplingOptions { curriculum: vec![Phase { epochs: None, order }], ..options.clone() }, 1);
        let first = items.concat().into_iter().filter(|&item| item < 200).count();
        assert_eq!(first, 750, "{order:?}");
    }
}

#[test]
fn weights_by_size_are_one_corpus() {
    let lengths = lengths();
    let parts = [Part { utterances: 400, weight: 0.4 }, Part { utterances: 600, weight: 0.6 }];
    let corpus = Corpus { costs: &lengths, parts: &parts, ..Corpus::default() };
    let mut items = plan(corpus, &options(Order::Shuffled), 2).concat();
    items.sort_unstable();
    assert_eq!(items, (0..1000).collect::<Vec<_>>());
}

#[test]
fn static_batches_have_their_size() {
    let lengths = lengths();
    let corpus = Corpus { costs: &lengths, ..Corpus::default() };
    let static_size = SamplingOptions { size: BatchSize::Static(7), ..options(Order::Shuffled) };
    let batches = plan(corpus, &static_size, 0);
    assert_eq!(batches.iter().filter(|batch| batch.len() != 7).map(Vec::len).collect::<Vec<_>>(), [1000 % 7]);
}

#[test]
fn an_utterance_beyond_the_budget_is_alone_and_named() {
    let lengths = [100, 9000, 100];
    let corpus = Corpus { costs: &lengths, ..Corpus::default() };
    let plan = BatchPlan::validation(corpus, &options(Order::Shuffled));
    assert_eq!(plan.batches, [vec![0, 2], vec![1]]);
    assert_eq!(plan.oversized, [1]);
}
