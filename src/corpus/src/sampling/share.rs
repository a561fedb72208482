//! The selection of an epoch's utterances.
//!
//! A part that is not used completely in every epoch is an endless sequence of passes. Every pass contains all
//! utterances once, in its own order, and an epoch takes the next piece. So no utterance is left out for long, and no
//! state is kept between epochs.

use std::ops::Range;

use super::Corpus;
use super::hash::Key;

/// An utterance of an epoch: its number, and above it the number of its earlier occurrences in the same epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Drawn(u64);

impl Drawn {
    fn new(item: u32, before: u32) -> Self {
        Self(u64::from(before) << 32 | u64::from(item))
    }

    /// Creates an utterance that occurs once.
    pub(super) fn once(item: u32) -> Self {
        Self::new(item, 0)
    }

    /// Returns the number of the utterance.
    pub(super) fn item(self) -> u32 {
        self.0 as u32
    }
}

impl From<Drawn> for u64 {
    fn from(drawn: Drawn) -> u64 {
        drawn.0
    }
}

/// Returns the number of utterances that each part contributes to an epoch: the total is the number of all
/// utterances, shared by weight (largest remainders first).
pub(super) fn quotas(corpus: Corpus<'_>) -> Vec<u64> {
    let total = corpus.costs.len() as u64;
    if corpus.parts.is_empty() {
        return vec![total];
    }
    let weight = |index: usize| if corpus.parts[index].utterances > 0 { corpus.parts[index].weight } else { 0.0 };
    let sum: f64 = (0..corpus.parts.len()).map(weight).sum();
    let exact: Vec<f64> =
        (0..corpus.parts.len()).map(|index| total as f64 * weight(index) / sum.max(f64::MIN_POSITIVE)).collect();
    let mut quotas: Vec<u64> = exact.iter().map(|share| *share as u64).collect();
    let mut by_remainder: Vec<usize> = (0..exact.len()).filter(|&index| weight(index) > 0.0).collect();
    by_remainder.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(a.cmp(&b)));
    let missing = total.saturating_sub(quotas.iter().sum());
    by_remainder
        .iter()
        .cycle()
        .take(if by_remainder.is_empty() { 0 } else { missing as usize })
        .for_each(|&index| quotas[index] += 1);
    quotas
}

/// The utterances of a part in one epoch, in stored order.
pub(super) fn plain(items: Range<u32>, quota: u64, seed: u64, epoch: u64) -> Vec<Drawn> {
    let items: Vec<u32> = items.collect();
    let first = epoch.saturating_mul(quota);
    let mut taken: Vec<u32> = Vec::new();
    for piece in pieces(first..first.saturating_add(quota), items.len() as u64) {
        match piece.whole {
            true => taken.extend(&items),
            false => taken.extend(&pass(&items, seed, piece.pass)[piece.places]),
        }
    }
    taken.sort_unstable();
    let numbered =
        |same: &[u32]| same.iter().zip(0..).map(|(&item, before)| Drawn::new(item, before)).collect::<Vec<_>>();
    taken.chunk_by(|a, b| a == b).flat_map(numbered).collect()
}

/// Returns the utterances of a part in one epoch in rounds, each of which has one of every speaker.
pub(super) fn rounds(corpus: Corpus<'_>, items: Range<u32>, quota: u64, seed: u64, epoch: u64) -> Vec<Drawn> {
    let speakers = by_speaker(corpus, items);
    let count = speakers.len() as u64;
    let first = epoch.saturating_mul(quota);
    // Turn `n` of the endless rounds belongs to speaker `n % count`.
    let turns = |before: u64, speaker: u64| (before + count - 1 - speaker) / count;
    let mut placed = Vec::new();
    for (speaker, items) in speakers.iter().enumerate() {
        let range = turns(first, speaker as u64)..turns(first.saturating_add(quota), speaker as u64);
        let drawn = pieces(range.clone(), items.len() as u64)
            .into_iter()
            .flat_map(|piece| pass(items, seed, piece.pass)[piece.places].to_vec());
        placed.extend(range.zip(drawn).map(|(round, item)| (round, speaker as u64, item)));
    }
    let key = Key::new(seed, epoch, "speakers of a round");
    placed.sort_by_cached_key(|&(round, speaker, _)| (round, key.hash(speaker << 32 | (round & 0xffff_ffff)), speaker));
    numbered(&placed.into_iter().map(|(_, _, item)| item).collect::<Vec<_>>())
}

/// Returns the utterances of every speaker, with the speakers in the order of their numbers.
fn by_speaker(corpus: Corpus<'_>, items: Range<u32>) -> Vec<Vec<u32>> {
    let mut speakers = std::collections::BTreeMap::<u32, Vec<u32>>::new();
    for item in items {
        speakers.entry(corpus.speakers.get(item as usize).copied().unwrap_or(0)).or_default().push(item);
    }
    speakers.into_values().collect()
}

/// The piece of one pass that an epoch takes.
struct Piece {
    pass: u64,
    places: Range<usize>,
    whole: bool,
}

/// Cuts a run of the endless sequence of passes over `length` items where passes end.
fn pieces(run: Range<u64>, length: u64) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = run.start;
    while at < run.end && length > 0 {
        let offset = at % length;
        let count = (length - offset).min(run.end - at);
        let places = offset as usize..(offset + count) as usize;
        pieces.push(Piece { pass: at / length, places, whole: count == length });
        at += count;
    }
    pieces
}

/// The utterances in the order of a pass.
fn pass(items: &[u32], seed: u64, pass: u64) -> Vec<u32> {
    let mut order = items.to_vec();
    Key::new(seed, pass, "pass").sort(&mut order);
    order
}

/// Numbers the repetitions of each utterance.
fn numbered(items: &[u32]) -> Vec<Drawn> {
    let mut before = std::collections::HashMap::<u32, u32>::with_capacity(items.len());
    let mut number = |&item: &u32| {
        let count = before.entry(item).or_default();
        *count += 1;
        Drawn::new(item, *count - 1)
    };
    items.iter().map(&mut number).collect()
}
