//! Finding the key that an error is about when serde has lost it.
//!
//! serde reads a choice by tag (`family: …` among its settings) through a buffer that knows no places, so an error in
//! it only says that something in the whole mapping is wrong. The key is found by leaving out one after the other: the
//! one without which the error is gone is to blame. Where another error comes instead, it may be a second mistake, or about
//! the very value that was left out: a tag may be required. It is a second mistake if leaving out one more value cures it.

use serde::de::DeserializeOwned;

use super::de::{Error, read};
use super::node::{Content, Node, Place};

/// More keys than this are not tried.
const MAX_TRIES: usize = 400;

/// A way from a node down to one of its values.
type Steps = Vec<usize>;

/// The place and dotted path of the value to blame for `error`, which reading `root` as a `T` gave; `vague` is the
/// path of the mapping or list it is somewhere in.
pub(super) fn find<T: DeserializeOwned>(
    root: &Node,
    path: &str,
    others: &[&str],
    vague: &str,
    error: &Error,
) -> Option<(Place, String)> {
    let mut candidates = Vec::new();
    collect(root, path, &mut Vec::new(), &mut candidates);
    candidates.retain(|candidate| is_below(&candidate.path, vague));
    if candidates.len() > MAX_TRIES {
        return None;
    }
    // The deepest first, for without a whole mapping every error in it is gone too.
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.steps.len()));
    let without = |left_out: &[&Candidate]| {
        let mut pruned = root.clone();
        // From the back, so that the steps to the others still hold.
        let mut left_out: Vec<&Steps> = left_out.iter().map(|candidate| &candidate.steps).collect();
        left_out.sort_by(|one, other| other.cmp(one));
        left_out.into_iter().for_each(|steps| remove(&mut pruned, steps));
        read::<T>(&pruned, path, others).err()
    };
    // What comes of leaving out each of them.
    let outcomes: Vec<(&Candidate, Option<Error>)> =
        candidates.iter().map(|candidate| (candidate, without(&[candidate]))).collect();
    let differs = |other: &Error| other.message != error.message && !other.missing;
    let cures = |(candidate, outcome): &&(&Candidate, Option<Error>)| match outcome {
        None => true,
        Some(other) => {
            let apart = |other: &&Candidate| !is_on_the_way(&candidate.steps, &other.steps);
            differs(other) && candidates.iter().filter(apart).any(|second| without(&[candidate, second]).is_none())
        }
    };
    let found = outcomes.iter().find(cures);
    // More than two mistakes; and the tag itself, which cannot be left out without being missed.
    let found = found.or_else(|| outcomes.iter().find(|(_, outcome)| outcome.as_ref().is_some_and(differs)));
    let found = found.or_else(|| outcomes.iter().find(|(_, other)| other.as_ref().is_some_and(|other| other.missing)));
    found.map(|(candidate, _)| (candidate.place.clone(), candidate.path.clone()))
}

/// Returns whether a path leads to something inside of another one.
fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| above.is_empty() || rest.starts_with(['.', '[']))
}

/// Returns whether one of two ways begins with the other.
fn is_on_the_way(one: &[usize], other: &[usize]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

struct Candidate {
    steps: Steps,
    place: Place,
    path: String,
}

fn collect(node: &Node, path: &str, steps: &mut Steps, found: &mut Vec<Candidate>) {
    let below: Vec<(String, &Place, &Node)> = match &node.content {
        Content::Scalar { .. } => return,
        Content::List(items) => {
            let items = items.iter().enumerate();
            items.map(|(at, item)| (format!("{path}[{at}]"), &item.place, item)).collect()
        }
        Content::Map(entries) => {
            entries.iter().map(|entry| (format!("{path}.{}", entry.key), &entry.key_place, &entry.node)).collect()
        }
    };
    for (at, (path, place, child)) in below.into_iter().enumerate() {
        steps.push(at);
        collect(child, &path, steps, found);
        found.push(Candidate { steps: steps.clone(), place: place.clone(), path });
        steps.pop();
    }
}

/// Takes the value at the end of `steps` out of the tree.
fn remove(node: &mut Node, steps: &[usize]) {
    let Some((&first, rest)) = steps.split_first() else {
        return;
    };
    match &mut node.content {
        Content::Scalar { .. } => {}
        Content::List(items) if rest.is_empty() => drop(items.remove(first)),
        Content::List(items) => remove(&mut items[first], rest),
        Content::Map(entries) if rest.is_empty() => drop(entries.remove(first)),
        Content::Map(entries) => remove(&mut entries[first].node, rest),
    }
}
