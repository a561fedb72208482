//! The assignment of utterances to splits.

use std::path::Path;

use crate::CorpusError;
use crate::lines::{TextFile, split_key};

/// Splits by shares of the corpus. The split of a row depends on a hash of its id (or of its speaker), so it does not
/// change when rows are added.
#[derive(Clone, Debug)]
pub struct Fractions {
    /// Name and upper bound in [0, 1] of every split, ascending; the last bound is 1.
    bounds: Vec<(String, f64)>,
}

/// Reason why shares are none of a corpus.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ShareError {
    /// A share is not between 0 and 1.
    #[error("the share of `{name}` is {share}; a share lies between 0 and 1")]
    Range {
        /// The split.
        name: String,
        /// The share.
        share: f64,
    },
    /// The shares leave nothing for the last split.
    #[error("the shares add up to {sum}, which leaves nothing for `{rest}`")]
    NothingLeft {
        /// Their sum.
        sum: f64,
        /// The last split.
        rest: String,
    },
}

impl Fractions {
    /// Creates splits: `shares` are cut off in the given order (`[("test", 0.1), ("dev", 0.1)]`), and `rest` takes
    /// the remainder.
    ///
    /// # Errors
    /// When a share is not in (0, 1) or they leave nothing.
    pub fn new(shares: &[(String, f64)], rest: &str) -> Result<Self, ShareError> {
        let mut bounds = Vec::with_capacity(shares.len() + 1);
        let mut bound = 0.0;
        for (name, share) in shares {
            if !(*share > 0.0 && *share < 1.0) {
                return Err(ShareError::Range { name: name.clone(), share: *share });
            }
            bound += share;
            bounds.push((name.clone(), bound));
        }
        if bound >= 1.0 {
            return Err(ShareError::NothingLeft { sum: bound, rest: rest.to_owned() });
        }
        bounds.push((rest.to_owned(), 1.0));
        Ok(Self { bounds })
    }

    /// The names of the splits, in the order of [`Fractions::assign`]'s indices.
    pub fn names(&self) -> Vec<String> {
        self.bounds.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The index of the split a key (an utterance's id or its speaker's) falls into.
    pub fn assign(&self, key: &str) -> usize {
        let place = unit_hash(key);
        self.bounds.iter().position(|(_, bound)| place < *bound).unwrap_or(self.bounds.len() - 1)
    }
}

/// Returns a number in [0, 1) that depends on the key alone: the first 53 bits of its BLAKE3 hash.
fn unit_hash(key: &str) -> f64 {
    let mut first = [0u8; 8];
    first.copy_from_slice(&blake3::hash(key.as_bytes()).as_bytes()[..8]);
    (u64::from_be_bytes(first) >> 11) as f64 / (1u64 << 53) as f64
}

/// The usual names of splits, each with the words for it in paths.
const WORDS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training", "trn"]),
    ("dev", &["dev", "devel", "development", "valid", "validation", "val"]),
    ("test", &["test", "tst", "eval", "evaluation"]),
];

/// Returns the usual name of a split that a corpus brings: `train` for `train-clean-100`, `dev` for `validation`. Other
/// names stay as they are.
pub fn usual_name(split: &str) -> &str {
    let word = split.split(['-', '_', '.']).next().unwrap_or(split).to_ascii_lowercase();
    WORDS.iter().find(|(_, words)| words.contains(&word.as_str())).map_or(split, |(name, _)| *name)
}

/// Returns the split that a path below a source names: the first part of the path that begins with the word of a split
/// (`train-clean-100`), or else that word in the file's name (`metadata_train.csv`).
pub(crate) fn of_path(path: &str) -> Option<&str> {
    let is_word = |word: &str| WORDS.iter().any(|(_, words)| words.contains(&word.to_ascii_lowercase().as_str()));
    let begins = |part: &&str| part.split(['-', '_', '.']).next().is_some_and(is_word);
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let of_name = || name.split(['-', '_', '.']).find(|word| is_word(word));
    folders.split('/').find(begins).or_else(of_name)
}

/// Splits by list files.
#[derive(Clone, Debug)]
pub struct Lists {
    names: Vec<String>,
    /// Every listed id with the index of its split, sorted by id.
    ids: Vec<(Box<str>, u32)>,
}

impl Lists {
    /// Reads list files with one id per line. The rest of a line is ignored, so that a `text` or `utt2spk` can be
    /// used too.
    ///
    /// # Errors
    /// [`CorpusError::Structure`] if a file is missing or is not UTF-8, an id is listed twice, or two lists share an
    /// id.
    pub fn read(lists: &[(String, &Path)]) -> Result<Self, CorpusError> {
        let mut ids = Vec::new();
        for (index, (name, path)) in lists.iter().enumerate() {
            let parent = path.parent().unwrap_or(Path::new(""));
            let file = path.file_name().map(|f| f.to_string_lossy().into_owned()).unwrap_or_default();
            let file = TextFile::open(parent, &file)?.ok_or_else(|| {
                CorpusError::structure(path, format!("does not exist; it should list the ids of `{name}`"))
            })?;
            for line in file.lines() {
                let text = file.text(&line).map_err(|problem| CorpusError::structure(path, problem))?;
                ids.push((Box::from(split_key(text).0), index as u32));
            }
        }
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let (id, (first, second)) = (&pair[0].0, (pair[0].1 as usize, pair[1].1 as usize));
            let problem = match first == second {
                true => format!("lists `{id}` twice"),
                false => format!("lists `{id}`, which {} lists too; splits may not overlap", lists[first].1.display()),
            };
            return Err(CorpusError::structure(lists[second].1, problem));
        }
        Ok(Self { names: lists.iter().map(|(name, _)| name.clone()).collect(), ids })
    }

    /// The names of the splits, in the order of [`Lists::assign`]'s indices.
    pub fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    /// The index of the split that lists this id.
    pub fn assign(&self, utt: &str) -> Option<usize> {
        let at = self.ids.binary_search_by(|(id, _)| id.as_ref().cmp(utt)).ok()?;
        Some(self.ids[at].1 as usize)
    }

    /// Returns all listed ids with the index of their split, in C order.
    pub fn ids(&self) -> impl Iterator<Item = (&str, usize)> {
        self.ids.iter().map(|(id, split)| (id.as_ref(), *split as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_hold_and_are_stable() {
        let split = Fractions::new(&[("test".into(), 0.05), ("dev".into(), 0.1)], "train").unwrap();
        let mut counts = [0; 3];
        for n in 0..20_000 {
            counts[split.assign(&format!("utterance-{n}"))] += 1;
        }
        assert!((900..1100).contains(&counts[0]), "{counts:?}");
        assert!((1850..2150).contains(&counts[1]), "{counts:?}");
        // A fixed value: the split of an id may never change between versions.
        assert_eq!(unit_hash("1688-142285-0000"), unit_hash("1688-142285-0000"));
        assert!((unit_hash("") - f64::from(0xaf13_49b9u32) / 4_294_967_296.0).abs() < 1e-9);
    }

    #[test]
    fn shares_that_leave_nothing_are_refused() {
        let refused = |shares: &[(String, f64)]| Fractions::new(shares, "train").unwrap_err();
        let nothing = ShareError::NothingLeft { sum: 1.0, rest: "train".into() };
        assert_eq!(refused(&[("dev".into(), 0.6), ("test".into(), 0.4)]), nothing);
        assert_eq!(refused(&[("dev".into(), 0.0)]), ShareError::Range { name: "dev".into(), share: 0.0 });
    }

    #[test]
    fn lists_may_not_overlap() {
        let dir = tempfile::tempdir().unwrap();
        let (train, dev) = (dir.path().join("train.list"), dir.path().join("dev.list"));
        std::fs::write(&train, "a\r\nb extra\n\n").unwrap();
        std::fs::write(&dev, "c\n").unwrap();
        let files = [("train".to_owned(), train.as_path()), ("dev".to_owned(), dev.as_path())];
        let lists = Lists::read(&files).unwrap();
        assert_eq!(
            [lists.assign("a"), lists.assign("b"), lists.assign("c"), lists.assign("d")],
            [Some(0), Some(0), Some(1), None]
        );
        std::fs::write(&dev, "c\nb\n").unwrap();
        assert!(Lists::read(&files).unwrap_err().to_string().contains("`b`"));
    }
}
