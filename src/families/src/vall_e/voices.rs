//! The prompts of a split: the codes of other recordings of a row's speaker.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use flowmill_corpus::shard::{ShardIndex, Shards};
use flowmill_corpus::{ColumnSpec, Row};
use flowmill_family::BoxError;
use flowmill_networks::vall_e::Codes;
use flowmill_nn::random::RngKey;

use super::prompts::{Excerpt, PromptRow, PromptRule, Prompts, Similarities, WithoutPrompt};
use super::rows;

/// Memory for the codes of prompts: those of a small corpus as a whole, of a large one the latest.
const CACHE_BYTES: usize = 128 << 20;

/// The rows of a split by speaker, with access to their codes.
pub struct Voices {
    shards: Shards,
    prompts: Prompts,
    /// The position of every row in the split, by its id.
    places: HashMap<String, usize>,
    rate: f64,
}

impl Voices {
    /// Opens the split whose index is in the file `path`; `codes` is the column of the codes.
    ///
    /// # Errors
    /// Returns an error if a shard cannot be read, or the index has no lengths of codes.
    pub fn open(
        path: &Path,
        index: &ShardIndex,
        codes: ColumnSpec,
        rule: PromptRule,
        similarities: Option<&Similarities>,
    ) -> Result<Self, BoxError> {
        let rate = rate_of(index)?;
        let shards = Shards::with_index(path, index.clone(), &[codes], CACHE_BYTES)?;
        let speakers = shards.groups()?;
        let sizes = shards.sizes().map(|sizes| sizes.axis(rows::FRAME).unwrap_or(0) as usize);
        let of_rows = (0..).zip(speakers.iter().zip(sizes));
        let of_rows = of_rows.map(|(at, (&speaker, frames))| PromptRow { id: shards.id(at), speaker, frames });
        let prompts = Prompts::new(of_rows, rate, rule, similarities);
        let places = (0..speakers.len()).map(|at| (shards.id(at as u32).to_owned(), at)).collect();
        Ok(Self { shards, prompts, places, rate })
    }

    /// Returns the frames of codes per second: their mean over the split.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Returns the speakers without a prompt.
    pub fn without_prompt(&self) -> WithoutPrompt {
        self.prompts.without_prompt()
    }

    /// Returns the number of rows with similar ones.
    pub fn with_similar(&self) -> usize {
        self.prompts.with_similar()
    }

    /// Draws the prompt of a row; none for a speaker with a single utterance.
    ///
    /// # Errors
    /// Returns an error if a row cannot be read or is damaged.
    pub fn prompt(&self, row: &Row, rng_key: RngKey) -> Result<Option<Codes>, BoxError> {
        let Some(&place) = self.places.get(&row.id) else { return Ok(None) };
        let excerpts = self.prompts.draw(place, rng_key);
        let numbers = excerpts.iter().map(|excerpt| u32::try_from(excerpt.row)).collect::<Result<Vec<u32>, _>>()?;
        let mut pieces = Vec::new();
        for (row, Excerpt { frames, .. }) in self.shards.fetch(&numbers)?.iter().zip(excerpts) {
            let codes = rows::codes(row).map_err(|fault| format!("utterance {}: {fault}", row.id))?;
            pieces.push(codes.cut(0..frames));
        }
        Ok(joined(pieces)?)
    }
}

/// Joins excerpts to a prompt; none without a frame.
///
/// # Errors
/// Returns an error if they have different numbers of levels.
pub fn joined(pieces: Vec<Codes>) -> flowmill_networks::vall_e::Result<Option<Codes>> {
    let mut pieces = pieces.into_iter().filter(|codes| codes.frames() > 0);
    let Some(first) = pieces.next() else { return Ok(None) };
    pieces.try_fold(first, |joined, piece| joined.append(&piece)).map(Some)
}

/// Draws a prompt from the codes of a speaker's recordings, like that of a row that is none of them.
///
/// # Errors
/// Returns an error if they have different numbers of levels.
pub fn prompt_from(
    recordings: &[&Codes],
    rate: f64,
    rule: &PromptRule,
    rng_key: RngKey,
) -> flowmill_networks::vall_e::Result<Option<Codes>> {
    let row = |frames| PromptRow { id: "", speaker: 0, frames };
    let rows = recordings.iter().map(|codes| row(codes.frames())).chain([row(0)]);
    let excerpts = Prompts::new(rows, rate, rule.clone(), None).draw(recordings.len(), rng_key);
    joined(excerpts.into_iter().map(|Excerpt { row, frames }| recordings[row].cut(0..frames)).collect())
}

/// Returns the frames of codes per second of a split.
fn rate_of(index: &ShardIndex) -> Result<f64, BoxError> {
    let frames = index.shards.iter().filter_map(|shard| shard.axes.get(rows::FRAME)).flatten();
    let frames: f64 = frames.map(|&frames| f64::from(frames)).sum();
    match index.rows {
        0 => Ok(1.0),
        _ if frames > 0.0 && index.seconds > 0.0 => Ok(frames / index.seconds),
        _ => Err("the index has no frames of codes: stage 2 needs an extractor of codes (tokens.extractor), and pack.columns `codes` \
                  and `duration`"
            .into()),
    }
}

/// Returns the file of similar utterances, or all files of a folder of such files, in order.
pub fn similarity_files(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![path.to_owned()] };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        // Links to folders may lead back.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files.extend(similarity_files(&entry.path()));
        } else if entry.path().extension().is_some_and(|extension| extension == "json") {
            files.push(entry.path());
        }
    }
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(first: u32, frames: u32) -> Codes {
        let level: Vec<u32> = (first..first + frames).collect();
        Codes::from_levels(&[level.clone(), level]).unwrap()
    }

    #[test]
    fn a_prompt_is_made_of_the_beginnings_of_recordings() {
        let recordings = [codes(0, 10), codes(100, 10)];
        let recordings: Vec<&Codes> = recordings.iter().collect();
        let rule = PromptRule { seconds: [1.5, 1.5], utterances: 2, ..PromptRule::default() };
        for sample in 0..20 {
            let prompt = prompt_from(&recordings, 10.0, &rule, RngKey::new(1).sample(sample)).unwrap().unwrap();
            assert_eq!((prompt.levels(), prompt.frames()), (2, 15));
            assert!([0, 100].contains(&prompt.level(1)[0]) && [0, 100].contains(&prompt.level(0)[10]));
        }
        assert_eq!(prompt_from(&[], 10.0, &rule, RngKey::new(1)).unwrap(), None);
        assert_eq!(joined(vec![codes(0, 0)]).unwrap(), None);
    }
}
