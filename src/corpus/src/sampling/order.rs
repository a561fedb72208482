//! The order of an epoch's utterances.

use std::ops::Range;

use super::hash::Key;
use super::share::{self, Drawn};
use super::{Corpus, Order, SamplingOptions};

/// Returns the utterances of an epoch in order, as runs that are batched separately.
pub(super) fn runs(corpus: Corpus<'_>, options: &SamplingOptions, order: Order, epoch: u64) -> Vec<Vec<Drawn>> {
    let (seed, ranges, quotas) = (options.seed, corpus.ranges(), share::quotas(corpus));
    let parts = ranges.into_iter().zip(quotas);
    match order {
        Order::Shuffled => {
            let shuffled = |(range, quota): (Range<u32>, u64)| {
                let drawn = share::plain(range.clone(), quota, seed, epoch);
                shuffled(corpus, range, &drawn, options, epoch)
            };
            windows(corpus, merged(parts.map(shuffled).collect()), options)
        }
        Order::BySpeaker => {
            let rounds = parts.map(|(range, quota)| share::rounds(corpus, range, quota, seed, epoch)).collect();
            windows(corpus, merged(rounds), options)
        }
        Order::Sorted | Order::Bucketed => {
            let mut all: Vec<Drawn> =
                parts.flat_map(|(range, quota)| share::plain(range, quota, seed, epoch)).collect();
            Key::new(seed, epoch, "utterance").sort(&mut all);
            let width = options.bucket_width.max(1);
            if order == Order::Sorted {
                all.sort_by_key(|&drawn| corpus.cost(drawn));
                return vec![all];
            }
            all.sort_by_key(|&drawn| corpus.cost(drawn) / width);
            let same = |a: &Drawn, b: &Drawn| corpus.cost(*a) / width == corpus.cost(*b) / width;
            all.chunk_by(same).map(<[Drawn]>::to_vec).collect()
        }
    }
}

/// Shuffles a part's shards, then its utterances within windows of `shuffle_size` along that order. Neighboring
/// utterances come from few shards, so that a reader opens few files at a time.
fn shuffled(
    corpus: Corpus<'_>,
    range: Range<u32>,
    drawn: &[Drawn],
    options: &SamplingOptions,
    epoch: u64,
) -> Vec<Drawn> {
    let mut order: Vec<Drawn> = Vec::with_capacity(drawn.len());
    for shard in shards(corpus, range, options.seed, epoch) {
        let first = drawn.partition_point(|drawn| drawn.item() < shard.start);
        let last = drawn.partition_point(|drawn| drawn.item() < shard.end);
        order.extend(&drawn[first..last]);
    }
    let key = Key::new(options.seed, epoch, "utterance");
    order.chunks_mut(options.shuffle_size.max(1) as usize).for_each(|window| key.sort(window));
    order
}

/// Returns the shards of a part as ranges of utterances, in a hashed order.
fn shards(corpus: Corpus<'_>, range: Range<u32>, seed: u64, epoch: u64) -> Vec<Range<u32>> {
    if corpus.shards.is_empty() {
        return vec![range];
    }
    let mut start = 0u32;
    let all: Vec<Range<u32>> = corpus
        .shards
        .iter()
        .map(|&size| {
            start += size;
            start - size..start
        })
        .collect();
    let mut numbers: Vec<u32> = (0..all.len() as u32).collect();
    numbers.retain(|&number| range.contains(&all[number as usize].start) && !all[number as usize].is_empty());
    Key::new(seed, epoch, "shard").sort(&mut numbers);
    numbers.into_iter().map(|number| all[number as usize].clone()).collect()
}

/// Merges several orders into one in which each is spread evenly.
fn merged(mut orders: Vec<Vec<Drawn>>) -> Vec<Drawn> {
    if orders.len() == 1 {
        return orders.remove(0);
    }
    let total = orders.iter().map(Vec::len).sum();
    let mut next = vec![0usize; orders.len()];
    let mut merged = Vec::with_capacity(total);
    while merged.len() < total {
        let open = (0..orders.len()).filter(|&index| next[index] < orders[index].len());
        // Item k of n is placed at (2k + 1) / 2n of the whole.
        let place = |index: usize| (2 * next[index] as u128 + 1, orders[index].len() as u128);
        let Some(first) = open.min_by(|&a, &b| {
            let ((a, of_a), (b, of_b)) = (place(a), place(b));
            (a * of_b).cmp(&(b * of_a))
        }) else {
            break;
        };
        merged.push(orders[first][next[first]]);
        next[first] += 1;
    }
    merged
}

/// Returns windows of `sort_size`, sorted by length.
fn windows(corpus: Corpus<'_>, order: Vec<Drawn>, options: &SamplingOptions) -> Vec<Vec<Drawn>> {
    let size = options.size.whole_batches(options.sort_size.max(1) as usize);
    let window = |window: &[Drawn]| {
        let mut window = window.to_vec();
        if options.sort_size > 1 {
            window.sort_by_key(|&drawn| corpus.cost(drawn));
        }
        window
    };
    order.chunks(size).map(window).collect()
}
