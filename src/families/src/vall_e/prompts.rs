//! Prompts: the utterances of the same speaker that show the network a voice.
//!
//! The rule is that of the public VALL-E trainer (`Dataset.sample_prompts`): a length of 3 to 6 seconds is drawn, then other utterances of the
//! speaker until they are that long, at most three; the first frames of their sequence are the prompt. An utterance is the most similar one with
//! probability 0.75 if similarities are known, and otherwise any. A speaker with one utterance has no prompt.

use std::collections::BTreeMap;
use std::path::Path;

use flowmill_corpus::id_of_path;
use flowmill_nn::random::RngKey;
use serde_json::Value;

use crate::FileError;

/// Random numbers of a prompt's length.
const OF_LENGTH: u64 = 1;
/// Random numbers of an utterance of a prompt.
const PER_UTTERANCE: u64 = 2;

/// The rule by which prompts are drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptRule {
    /// The shortest and the longest prompt, in seconds. With a longest of 0, a prompt is one whole utterance.
    pub seconds: [f64; 2],
    /// The largest number of utterances of a prompt.
    pub utterances: usize,
    /// The probability of a similar utterance, where similarities are known.
    pub similar: f64,
    /// The number of most similar utterances among which one is drawn.
    pub similar_among: usize,
    /// The number of most similar utterances that are passed over.
    pub similar_after: usize,
}

impl PromptRule {
    /// Creates a rule with the public trainer's preference of similar utterances.
    pub fn new(seconds: [f64; 2], utterances: usize) -> Self {
        Self { seconds, utterances, ..Self::default() }
    }
}

impl Default for PromptRule {
    /// Returns the public trainer's rule.
    fn default() -> Self {
        Self { seconds: [3.0, 6.0], utterances: 3, similar: 0.75, similar_among: 1, similar_after: 0 }
    }
}

/// A row of a split, as far as prompts depend on it.
#[derive(Debug, Clone, Copy)]
pub struct PromptRow<'r> {
    /// The id.
    pub id: &'r str,
    /// The number of the speaker, counted from 0 in the order of their first rows.
    pub speaker: u32,
    /// The number of frames of its codes.
    pub frames: usize,
}

/// The first frames of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excerpt {
    /// The row's index in the split.
    pub row: usize,
    /// The number of frames.
    pub frames: usize,
}

/// The prompts of a split's rows.
#[derive(Debug, Clone)]
pub struct Prompts {
    rule: PromptRule,
    /// Frames per second.
    rate: f64,
    rows: Vec<Row>,
    /// The rows of each speaker, in order.
    speakers: Vec<Vec<u32>>,
    /// The most similar rows of each row, the nearest first.
    similar: BTreeMap<u32, Vec<u32>>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    speaker: u32,
    frames: usize,
}

/// The number of speakers without a prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WithoutPrompt {
    /// Speakers with one utterance, which are as many rows.
    pub speakers: usize,
    /// All speakers.
    pub of_speakers: usize,
}

impl Prompts {
    /// Creates the prompts of these rows, with `rate` frames per second.
    pub fn new<'r>(
        rows: impl IntoIterator<Item = PromptRow<'r>>,
        rate: f64,
        rule: PromptRule,
        similarities: Option<&Similarities>,
    ) -> Self {
        let mut places = BTreeMap::new();
        let (mut own, mut speakers): (Vec<Row>, Vec<Vec<u32>>) = (Vec::new(), Vec::new());
        for PromptRow { id, speaker, frames } in rows {
            let place = own.len() as u32;
            let number = speaker as usize;
            speakers.resize(speakers.len().max(number + 1), Vec::new());
            speakers[number].push(place);
            own.push(Row { speaker, frames });
            if similarities.is_some() {
                places.insert(id, place);
            }
        }
        let mut similar = BTreeMap::new();
        for (id, near) in similarities.into_iter().flat_map(|similarities| &similarities.0) {
            let Some(&place) = places.get(id.as_str()) else { continue };
            // Those of other splits are not there.
            let near = near.iter().filter_map(|id| places.get(id.as_str()).copied()).filter(|near| *near != place);
            similar.insert(place, near.collect());
        }
        Self { rule, rate, rows: own, speakers, similar }
    }

    /// Draws the prompt of a row: the excerpts in their order, empty for a speaker with one utterance.
    ///
    /// The same key gives the same prompt, so a key names the epoch, the step and the sample.
    pub fn draw(&self, row: usize, rng_key: RngKey) -> Vec<Excerpt> {
        let Some(target) = self.rows.get(row) else { return Vec::new() };
        let speaker = &self.speakers[target.speaker as usize];
        if speaker.len() < 2 {
            return Vec::new();
        }
        let rng_key = rng_key.purpose("prompt");
        let [least, most] = self.rule.seconds;
        let whole = most <= 0.0;
        let seconds = least + (most - least) * f64::from(rng_key.uniform_at(0));
        let length = if whole { 1 } else { ((seconds * self.rate) as usize).max(1) };
        let (mut prompt, mut frames) = (Vec::new(), 0);
        for draw in 0..self.rule.utterances.max(1) as u64 {
            let at = OF_LENGTH + draw * PER_UTTERANCE;
            let chosen = match f64::from(rng_key.uniform_at(at)) < self.rule.similar {
                true => self.similar_of(row, rng_key, at + 1),
                false => None,
            };
            let chosen = chosen.unwrap_or_else(|| another(speaker, row, rng_key, at + 1));
            let own = self.rows[chosen].frames;
            let taken = if whole { own } else { own.min(length - frames) };
            prompt.push(Excerpt { row: chosen, frames: taken });
            frames += taken;
            if frames >= length {
                break;
            }
        }
        prompt
    }

    /// Returns how many speakers have no prompt, for a warning.
    pub fn without_prompt(&self) -> WithoutPrompt {
        let speakers = self.speakers.iter().filter(|rows| rows.len() < 2).count();
        WithoutPrompt { speakers, of_speakers: self.speakers.len() }
    }

    /// Returns the number of rows with similar ones.
    pub fn with_similar(&self) -> usize {
        self.similar.values().filter(|near| !near.is_empty()).count()
    }

    /// One of the most similar rows; `None` if none is known.
    fn similar_of(&self, row: usize, rng_key: RngKey, at: u64) -> Option<usize> {
        let near = self.similar.get(&(row as u32))?;
        let near = near.get(self.rule.similar_after..).filter(|near| !near.is_empty()).unwrap_or(near);
        let among = near.len().min(self.rule.similar_among.max(1));
        near.get(rng_key.below_at(at, among as u32) as usize).map(|near| *near as usize)
    }
}

/// Another row of a speaker, each with the same probability.
fn another(speaker: &[u32], row: usize, rng_key: RngKey, at: u64) -> usize {
    let own = speaker.partition_point(|place| (*place as usize) < row);
    let others = speaker.len() - 1;
    let drawn = rng_key.below_at(at, others as u32) as usize;
    speaker[if drawn < own { drawn } else { drawn + 1 }] as usize
}

/// The most similar utterances of each, by ids of rows.
///
/// Files of the public trainer (`vall_e.emb.similar`) have one of two forms, JSON per speaker: its metadata, where `similar` of an utterance
/// has the positions of others in the same file; or `similarities.json`, with a list of `[position, name, score]` for each utterance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Similarities(BTreeMap<String, Vec<String>>);

impl Similarities {
    /// Reads a file whose names are ids of rows, or a folder `metadata` as the trainer has it: `GROUP/SPEAKER.json`. The ids of rows are then
    /// those of the format `codes`: `GROUP-SPEAKER-NAME`.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let mut all = BTreeMap::new();
        if path.is_dir() {
            read_folder(path, "", &mut all)?;
        } else {
            read_file(path, "", &mut all)?;
        }
        Ok(Self(all))
    }
}

/// Reads the files below a folder; `prefix` is the path of the folder below the first, with a slash at its end.
fn read_folder(folder: &Path, prefix: &str, all: &mut BTreeMap<String, Vec<String>>) -> Result<(), FileError> {
    let io = |source| FileError::Io { path: folder.to_owned(), source };
    let mut entries: Vec<_> = std::fs::read_dir(folder).map_err(io)?.collect::<Result<_, _>>().map_err(io)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        // Links to folders may lead back.
        if entry.file_type().map_err(io)?.is_dir() {
            read_folder(&path, &format!("{prefix}{name}/"), all)?;
        } else if let Some(speaker) = name.strip_suffix(".json") {
            read_file(&path, &format!("{prefix}{speaker}/"), all)?;
        }
    }
    Ok(())
}

/// Reads a file; `prefix` comes before its names.
fn read_file(path: &Path, prefix: &str, all: &mut BTreeMap<String, Vec<String>>) -> Result<(), FileError> {
    let text = std::fs::read(path).map_err(|source| FileError::Io { path: path.to_owned(), source })?;
    let format = |problem: String| FileError::Format { path: path.to_owned(), problem };
    let entries: serde_json::Map<String, Value> =
        serde_json::from_slice(&text).map_err(|error| format(format!("no dictionary of utterances: {error}")))?;
    let names: Vec<&str> = entries.keys().map(String::as_str).collect();
    let id = |name: &str| id_of_path(&format!("{prefix}{name}"));
    for (name, entry) in &entries {
        let similar = match entry {
            Value::Array(items) => items,
            Value::Object(metadata) => match metadata.get("similar") {
                None | Some(Value::Null) => continue,
                Some(Value::Array(items)) => items,
                Some(_) => return Err(format(format!("`similar` of `{}` is no list", name.escape_debug()))),
            },
            _ => return Err(format(format!("`{}` is neither metadata nor a list", name.escape_debug()))),
        };
        let near = similar.iter().map(|item| named(item, &names).map(id)).collect::<Option<Vec<String>>>();
        let near =
            near.ok_or_else(|| format(format!("`{}` has similar ones that are not there", name.escape_debug())))?;
        all.insert(id(name), near);
    }
    Ok(())
}

/// Returns the name of an entry: a position among `names`, a name, or `[position, name, score]`.
fn named<'a>(item: &'a Value, names: &[&'a str]) -> Option<&'a str> {
    match item {
        Value::Number(place) => names.get(usize::try_from(place.as_u64()?).ok()?).copied(),
        Value::String(name) => Some(name),
        Value::Array(parts) => parts.get(1)?.as_str(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const RATE: f64 = 75.0;

    fn rows() -> Vec<PromptRow<'static>> {
        let row = |id, speaker, frames| PromptRow { id, speaker, frames };
        vec![
            row("a-1", 0, 600),
            row("b-1", 1, 600),
            row("a-2", 0, 600),
            row("a-3", 0, 100),
            row("c-1", 2, 80),
            row("c-2", 2, 80),
        ]
    }

    fn prompts(similarities: Option<&Similarities>) -> Prompts {
        Prompts::new(rows(), RATE, PromptRule::default(), similarities)
    }

    fn key(sample: u64) -> RngKey {
        RngKey::keyed(1, "test", 0, 0, sample)
    }

    #[test]
    fn prompts_are_other_utterances_of_the_speaker_of_three_to_six_seconds() {
        let prompts = prompts(None);
        let (mut used, mut lengths) = (BTreeSet::new(), BTreeSet::new());
        for sample in 0..200 {
            let prompt = prompts.draw(0, key(sample));
            assert_eq!(prompt, prompts.draw(0, key(sample)));
            assert!(prompt.iter().all(|excerpt| [2, 3].contains(&excerpt.row)), "{prompt:?}");
            let frames: usize = prompt.iter().map(|excerpt| excerpt.frames).sum();
            // Three times the short one are less than the longest prompt.
            assert!((225..450).contains(&frames), "{prompt:?}");
            used.extend(prompt.iter().map(|excerpt| excerpt.row));
            lengths.insert(frames);
        }
        assert_eq!(used, BTreeSet::from([2, 3]));
        assert!(lengths.len() > 100);
        // Three utterances at most, even if they are too short together.
        assert_eq!(prompts.draw(4, key(0)), [5, 5, 5].map(|row| Excerpt { row, frames: 80 }));
    }

    #[test]
    fn a_speaker_with_one_utterance_has_no_prompt() {
        let prompts = prompts(None);
        assert_eq!(prompts.draw(1, key(0)), []);
        assert_eq!(prompts.draw(99, key(0)), []);
        assert_eq!(prompts.without_prompt(), WithoutPrompt { speakers: 1, of_speakers: 3 });
    }

    #[test]
    fn without_a_longest_the_prompt_is_a_whole_utterance() {
        let rule = PromptRule { seconds: [0.0, 0.0], ..PromptRule::default() };
        let prompts = Prompts::new(rows(), RATE, rule, None);
        assert_eq!(prompts.draw(4, key(0)), [Excerpt { row: 5, frames: 80 }]);
    }

    #[test]
    fn similar_utterances_are_preferred() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        // Positions in the file, and one of another split.
        write(
            "metadata/a.json",
            r#"{"1": {"duration": 8.0, "similar": [3, 1]}, "2": {}, "3": {"similar": null}, "9": {}}"#,
        );
        let similarities = Similarities::read(&folder.path().join("metadata")).unwrap();
        let prompts = prompts(Some(&similarities));
        assert_eq!((similarities.0.len(), prompts.with_similar()), (1, 1));
        let first = |sample| prompts.draw(0, key(sample))[0].row;
        let near = (0..400).filter(|sample| first(*sample) == 2).count();
        // 0.75, and half of the rest: 350 of 400.
        assert!((325..375).contains(&near), "{near}");
        let named = write("similarities.json", r#"{"a-1": [[1, "a-2", 0.9], [2, "a-3", 0.8]], "a-2": ["a-1"]}"#);
        assert_eq!(Similarities::read(&named).unwrap().0["a-1"], ["a-2", "a-3"]);
        for bad in
            ["[]", r#"{"a": 1}"#, r#"{"a": {"similar": 1}}"#, r#"{"a": {"similar": [1]}}"#, r#"{"a": [[0]]}"#, "{"]
        {
            let error = Similarities::read(&write("bad.json", bad)).unwrap_err();
            assert!(matches!(error, FileError::Format { .. }), "{bad}");
        }
        assert!(matches!(Similarities::read(Path::new("/no/such")), Err(FileError::Io { .. })));
    }
}
