//! Embeddings of speakers, one per split that a speaker is in: CosyVoice's recipes average over the utterances of a split, so that a
//! speaker of two splits has two embeddings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::file::{read_file, read_ids};
use super::{ImportConfig, ImportError};

/// The embeddings of speakers by file, and the facts that decide which file is that of a row.
pub struct SpeakerFiles {
    files: Vec<SpeakerFile>,
    /// The ids of each file of utterances; empty when no speaker has two embeddings.
    utterances: Vec<(PathBuf, BTreeSet<String>)>,
}

struct SpeakerFile {
    path: PathBuf,
    /// The split that the recipe says it is of.
    split: Option<String>,
    embeddings: BTreeMap<String, Vec<f32>>,
}

/// The embedding of a row's speaker.
#[derive(Debug, PartialEq)]
pub enum Choice<'a> {
    /// The speaker is in no file.
    None,
    /// The value that is the same in all files with the speaker.
    Same(&'a [f32]),
    /// Other files say otherwise; this one is of the row's split.
    OfSplit(&'a [f32]),
}

impl SpeakerFiles {
    /// Reads the speakers of an import whose files are below `root`.
    ///
    /// # Errors
    /// When a file cannot be read or an id has a value that is none.
    pub fn read(import: &ImportConfig, root: &Path) -> Result<Self, ImportError> {
        let mut splits = import.speakers.splits().into_iter();
        let mut files = Vec::new();
        for path in import.speakers.below(root) {
            let embeddings = read_file(&path, import.dimensions)?;
            files.push(SpeakerFile { path, split: splits.next().map(str::to_owned), embeddings });
        }
        let mut read = Self { files, utterances: Vec::new() };
        if read.has_speakers_of_two() {
            for path in import.embeddings.below(root) {
                let ids = read_ids(&path)?;
                read.utterances.push((path, ids));
            }
        }
        Ok(read)
    }

    /// Returns true if some speaker has different embeddings in two files.
    fn has_speakers_of_two(&self) -> bool {
        let mut first: BTreeMap<&str, &[f32]> = BTreeMap::new();
        let all = self.files.iter().flat_map(|file| &file.embeddings);
        all.into_iter().any(|(speaker, values)| *first.entry(speaker).or_insert(values) != values.as_slice())
    }

    /// The speakers of all files, each once.
    pub fn speakers(&self) -> BTreeSet<&str> {
        self.files.iter().flat_map(|file| file.embeddings.keys()).map(String::as_str).collect()
    }

    /// Files with their embeddings by speaker.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &BTreeMap<String, Vec<f32>>)> {
        self.files.iter().map(|file| (file.path.as_path(), &file.embeddings))
    }

    /// The embedding that the speaker of a row has. Where files differ, it is that of the file which is of the row's split: by the
    /// recipe, by its folder, which it shares with the file that has the utterance, by the name of the split in its path, or by its
    /// place in a list as long as that of the utterances' files.
    ///
    /// # Errors
    /// [`ImportError::Ambiguous`] when none of these decides.
    pub fn of_row(&self, speaker: &str, utterance: &str, split: &str) -> Result<Choice<'_>, ImportError> {
        let mut left: Vec<usize> =
            (0..self.files.len()).filter(|index| self.files[*index].embeddings.contains_key(speaker)).collect();
        let all_have = |left: &[usize]| {
            let mut values = left.iter().filter_map(|index| self.files[*index].embeddings.get(speaker));
            let first = values.next()?;
            values.all(|other| other == first).then_some(first.as_slice())
        };
        if self.files.iter().any(|file| file.split.is_some()) {
            left.retain(|index| self.files[*index].split.as_deref() == Some(split));
            return Ok(all_have(&left).map_or(Choice::None, |values| match self.utterances.is_empty() {
                true => Choice::Same(values),
                false => Choice::OfSplit(values),
            }));
        }
        if left.is_empty() {
            return Ok(Choice::None);
        }
        if let Some(values) = all_have(&left) {
            return Ok(Choice::Same(values));
        }
        let origins: Vec<usize> =
            (0..self.utterances.len()).filter(|index| self.utterances[*index].1.contains(utterance)).collect();
        let same_folder = |index: usize| {
            let folder = self.files[index].path.parent();
            origins.iter().any(|origin| self.utterances[*origin].0.parent() == folder)
        };
        let same_place = |index: usize| self.files.len() == self.utterances.len() && origins.contains(&index);
        let named = |index: usize| names_split(&self.files[index].path, split);
        let rules: [&dyn Fn(usize) -> bool; 3] = [&same_folder, &named, &same_place];
        for rule in rules {
            let narrowed: Vec<usize> = left.iter().copied().filter(|index| rule(*index)).collect();
            if narrowed.is_empty() {
                continue;
            }
            if let Some(values) = all_have(&narrowed) {
                return Ok(Choice::OfSplit(values));
            }
            left = narrowed;
        }
        let files = left.into_iter().map(|index| self.files[index].path.clone()).collect();
        Err(ImportError::Ambiguous { speaker: speaker.to_owned(), split: split.to_owned(), files })
    }
}

/// Returns true if the last folder of a file or a part of its name is the split's name.
fn names_split(path: &Path, split: &str) -> bool {
    let folder = path.parent().and_then(Path::file_name).is_some_and(|folder| folder == split);
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    folder || stem.split(|character: char| !character.is_alphanumeric()).any(|part| part == split)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of speaker `s` with these values, and files of utterances with these ids.
    fn files(speakers: &[(&str, Option<&str>, f32)], utterances: &[(&str, &[&str])]) -> SpeakerFiles {
        let file = |(path, split, value): &(&str, Option<&str>, f32)| SpeakerFile {
            path: path.into(),
            split: split.map(str::to_owned),
            embeddings: [("s".to_owned(), vec![*value])].into(),
        };
        let ids = |(path, ids): &(&str, &[&str])| (path.into(), ids.iter().map(ToString::to_string).collect());
        SpeakerFiles { files: speakers.iter().map(file).collect(), utterances: utterances.iter().map(ids).collect() }
    }

    #[test]
    fn the_file_of_the_rows_split_is_found() {
        let of = |files: &SpeakerFiles, utterance: &str, split: &str| match files.of_row("s", utterance, split) {
            Ok(Choice::OfSplit(values) | Choice::Same(values)) => Some(values[0]),
            Ok(Choice::None) => None,
            Err(_) => Some(f32::NAN),
        };
        let ids: [(&str, &[&str]); 2] = [("d/train/utt.pt", &["u"]), ("d/dev/utt.pt", &["v"])];
        // By folder, whatever the order and whatever the splits are called here.
        let folders = files(&[("d/dev/spk.pt", None, 2.0), ("d/train/spk.pt", None, 1.0)], &ids);
        assert_eq!((of(&folders, "u", "other"), of(&folders, "v", "other")), (Some(1.0), Some(2.0)));
        // By name, from one file of all utterances.
        let named = files(&[("spk_dev.pt", None, 2.0), ("spk_train.pt", None, 1.0)], &[("utt.pt", &["u", "v"])]);
        assert_eq!((of(&named, "u", "train"), of(&named, "v", "dev")), (Some(1.0), Some(2.0)));
        assert!(of(&named, "u", "test").unwrap().is_nan());
        // By place.
        let placed = files(&[("a.pt", None, 1.0), ("b.pt", None, 2.0)], &[("c.pt", &["u"]), ("d.pt", &["v"])]);
        assert_eq!((of(&placed, "u", "x"), of(&placed, "v", "x")), (Some(1.0), Some(2.0)));
        // By the recipe, and by nothing else then.
        let told = files(&[("a.pt", Some("dev"), 2.0), ("b.pt", Some("train"), 1.0)], &ids);
        assert_eq!(
            (of(&told, "u", "train"), of(&told, "u", "dev"), of(&told, "u", "test")),
            (Some(1.0), Some(2.0), None)
        );
        // An utterance of both files.
        let both = files(&[("a.pt", None, 1.0), ("b.pt", None, 2.0)], &[("c.pt", &["u"]), ("d.pt", &["u"])]);
        let error = both.of_row("s", "u", "x").unwrap_err();
        assert!(matches!(error, ImportError::Ambiguous { files, .. } if files.len() == 2));
    }
}
