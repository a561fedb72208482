//! Finding the key that an error is about when serde has lost it.
//!
//! serde reads a choice by tag (`family: …` among its settings) through a buffer that knows no places, so an error in
//! it only says that something in the whole mapping is wrong. The key is found by leaving out one after the other: the
//! one without which the error is gone is to blame.

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
    candidates.retain(|candidate| candidate.path.starts_with(vague) && candidate.path != vague);
    if candidates.len() > MAX_TRIES {
        return None;
    }
    // The deepest first, for without a whole mapping every error in it is gone too.
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.steps.len()));
    let without = |candidate: &Candidate| {
        let mut pruned = root.clone();
        remove(&mut pruned, &candidate.steps);
        read::<T>(&pruned, path, others).err()
    };
    let cures = |candidate: &&Candidate| match without(candidate) {
        None => true,
        Some(other) => other.message != error.message && !other.missing,
    };
    // The tag itself cannot be left out without being missed.
    let is_missed = |candidate: &&Candidate| without(candidate).is_some_and(|other| other.missing);
    let found = candidates.iter().find(cures).or_else(|| candidates.iter().find(is_missed));
    found.map(|candidate| (candidate.place.clone(), candidate.path.clone()))
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
