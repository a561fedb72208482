//! Leakage: utterances that are in the validation split and in the training data. It happens when corpora are mixed
//! that were split separately.
//!
//! An utterance is identified by its id and its length in mel frames. The same id with another length is most likely
//! another recording, because many corpora number theirs from 1; this only causes a warning.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use flowmill_corpus::shard::ShardIndex;
use flowmill_runner::StageError;

use crate::mixture::INDEX;

/// The number of ids that are named for each corpus.
const SHOWN: usize = 5;

/// A split by its index.
#[derive(Clone, Copy)]
pub struct Indexed<'a> {
    /// `index.json`.
    pub path: &'a Path,
    /// The content.
    pub index: &'a ShardIndex,
}

/// A sample of many ids.
#[derive(Default)]
struct Ids<'a> {
    count: usize,
    first: Vec<&'a str>,
}

impl<'a> Ids<'a> {
    fn add(&mut self, id: &'a str) {
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push(id);
        }
    }

    fn told(&self) -> String {
        let more = self.count - self.first.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", self.first.join(", "))
    }
}

/// The utterances that a training corpus shares with a held-out split.
struct Common<'a> {
    corpus: &'a Path,
    /// Utterances with the same id and the same length.
    utterances: Ids<'a>,
    /// Utterances with the same id and another length.
    namesakes: Ids<'a>,
}

/// Checks that validation data are not also training data. Warns about ids of recordings with different lengths, and
/// about other splits in the training data, whose indexes are in `beside`.
///
/// # Errors
/// Returns an error with the number and ids of utterances in both, or if an index cannot be read.
pub fn check(
    validation: Option<Indexed<'_>>,
    training: &[Indexed<'_>],
    beside: &[PathBuf],
    tell: &dyn Fn(String),
) -> Result<(), StageError> {
    for common in validation.iter().flat_map(|split| common(split.index, training)) {
        let path = validation.map_or(Path::new(""), |split| split.path);
        if common.utterances.count > 0 {
            return Err(StageError::new(format!(
                "{}: the validation loss would measure memorization. Remove them from that corpus (prep.split of its recipe), or validate on others \
                 (train.validation_split)",
                both(path, &common)
            )));
        }
        warn_of_namesakes(path, &common, tell);
    }
    for path in beside {
        let index = ShardIndex::read(path).map_err(StageError::other)?;
        for common in common(&index, training) {
            if common.utterances.count > 0 {
                tell(format!("WARNING: {}: scores on that split would measure memorization", both(path, &common)));
            }
            warn_of_namesakes(path, &common, tell);
        }
    }
    Ok(())
}

/// Returns the indexes of the splits next to that of `index`, without those in `but`.
///
/// # Errors
/// Returns an error if the folder cannot be read.
pub fn splits_beside(index: &Path, but: &[&Path]) -> Result<Vec<PathBuf>, StageError> {
    let Some(folder) = index.parent().and_then(Path::parent).filter(|folder| folder.is_dir()) else {
        return Ok(Vec::new());
    };
    // Different spellings of a path are the same.
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let but: Vec<PathBuf> = but.iter().map(|path| real(path)).collect();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| StageError::file(folder, error))? {
        let path = entry.map_err(|error| StageError::file(folder, error))?.path().join(INDEX);
        if path.is_file() && !but.contains(&real(&path)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the utterances that each corpus shares with a split. Only the split's ids are looked up.
fn common<'a>(held_out: &ShardIndex, training: &[Indexed<'a>]) -> Vec<Common<'a>> {
    let lengths: HashMap<&str, u32> = rows(held_out).collect();
    let compare = |corpus: &Indexed<'a>| {
        let mut common = Common { corpus: corpus.path, utterances: Ids::default(), namesakes: Ids::default() };
        for (id, length) in rows(corpus.index) {
            match lengths.get(id) {
                Some(other) if *other == length => common.utterances.add(id),
                Some(_) => common.namesakes.add(id),
                None => {}
            }
        }
        common
    };
    training.iter().map(compare).collect()
}

/// Returns every utterance's id and length.
fn rows(index: &ShardIndex) -> impl Iterator<Item = (&str, u32)> {
    index.shards.iter().flat_map(|shard| shard.utterances.iter().map(String::as_str).zip(shard.frames.iter().copied()))
}

fn both(held_out: &Path, common: &Common<'_>) -> String {
    let Common { corpus, utterances, .. } = common;
    format!(
        "{} utterances held out in {} are also training data, in {} ({})",
        utterances.count,
        held_out.display(),
        corpus.display(),
        utterances.told()
    )
}

fn warn_of_namesakes(held_out: &Path, common: &Common<'_>, tell: &dyn Fn(String)) {
    let Common { corpus, namesakes, .. } = common;
    if namesakes.count > 0 {
        tell(format!(
            "WARNING: {} ids of {} also exist in {} with other lengths ({}): make sure that they are not the same recordings",
            namesakes.count,
            held_out.display(),
            corpus.display(),
            namesakes.told()
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use flowmill_corpus::shard::ShardEntry;
    use serde_json::Value;

    use super::*;

    fn index(split: &str, utterances: impl Iterator<Item = (String, u32)>) -> ShardIndex {
        let (utterances, frames): (Vec<String>, Vec<u32>) = utterances.unzip();
        let (file, rows) = ("shard-00000.parquet".to_owned(), frames.len() as u64);
        ShardIndex::new(
            split,
            Value::Null,
            vec![ShardEntry { file, rows, utterances, frames, ..ShardEntry::default() }],
        )
    }

    #[test]
    fn a_few_among_many_are_counted_and_the_first_are_named() {
        let many = index("train", (0..200_000).map(|number| (format!("u{number}"), number % 700)));
        let held_out = index("dev", (0..20).map(|number| (format!("u{}", 9_000 * number), 9_000 * number % 700)));
        let other = index("dev", (0..3).map(|number| (format!("u{number}"), 999)));
        let [corpus, split] = ["a/train/index.json", "b/dev/index.json"].map(Path::new);
        let training = [Indexed { path: corpus, index: &many }];
        let said = RefCell::new(Vec::new());
        let check = |held_out: &ShardIndex| {
            let split = Indexed { path: split, index: held_out };
            check(Some(split), &training, &[], &|text| said.borrow_mut().push(text))
        };
        let error = check(&held_out).unwrap_err().to_string();
        for words in ["20 utterances", "a/train/index.json", "b/dev/index.json", "u0, u9000, u18000,", "and 15 more"] {
            assert!(error.contains(words), "{words}: {error}");
        }
        assert_eq!(said.borrow().len(), 0);
        check(&other).unwrap();
        let warning = said.borrow()[0].clone();
        assert!(warning.contains("3 ids of b/dev") && warning.contains("u0, u1, u2)"), "{warning}");
    }
}
