//! Finds the key that caused an error if serde has lost it.
//!
//! serde reads a choice by tag (`family: …` among its settings) through a buffer without places, so an error in it
//! only says that something in the whole mapping is wrong. The key is found by leaving out one key after the other:
//! the one without which the error disappears is the cause. If another error appears instead, it is either a second
//! mistake or about the value that was left out (a tag may be required). It is a second mistake if leaving out one
//! more value cures it.

use serde::de::DeserializeOwned;

use super::de::{Error, read};
use super::node::{Content, Node, Place};

/// The largest number of keys that are tried.
const MAX_TRIES: usize = 400;

/// A path from a node down to one of its values.
type Steps = Vec<usize>;

/// Returns the place and dotted path of the value that caused `error` when `root` was read as a `T`. `vague` is the
/// path of the mapping or list that contains it.
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
    // The deepest first: without a whole mapping, every error in it disappears too.
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.steps.len()));
    let without = |left_out: &[&Candidate]| {
        let mut pruned = root.clone();
        // From the back, so that the steps to the others remain valid.
        let mut left_out: Vec<&Steps> = left_out.iter().map(|candidate| &candidate.steps).collect();
        left_out.sort_by(|one, other| other.cmp(one));
        left_out.into_iter().for_each(|steps| remove(&mut pruned, steps));
        read::<T>(&pruned, path, others).err()
    };
    // The outcome of leaving out each of them.
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
    // There are more than two mistakes, or the tag itself is wrong, which cannot be left out without being missed.
    let found = found.or_else(|| outcomes.iter().find(|(_, outcome)| outcome.as_ref().is_some_and(differs)));
    let found = found.or_else(|| outcomes.iter().find(|(_, other)| other.as_ref().is_some_and(|other| other.missing)));
    found.map(|(candidate, _)| (candidate.place.clone(), candidate.path.clone()))
}

/// Returns whether a path is inside another one.
fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| above.is_empty() || rest.starts_with(['.', '[']))
}

/// Returns whether one of two paths begins with the other.
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

/// Removes the value at the end of `steps` from the tree.
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
