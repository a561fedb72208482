//! The stage when embeddings are imported: one part looks up all rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use flowmill_corpus::Utterance;
use flowmill_corpus::shard::speech;
use flowmill_extract::extractors::import::{Choice, Files, ImportConfig, SpeakerFiles, read_embeddings};
use flowmill_runner::{PartReport, PartWork, StageError};
use flowmill_stage_extract::{lacks, look_up};
use flowmill_stage_prep::rows::Table;

use crate::{SPEAKERS, table};

/// Looks up the rows of all tables, and writes the tables and the embeddings of speakers.
pub(crate) fn run(
    work: &PartWork,
    import: &ImportConfig,
    root: &Path,
    tables: &[Table],
) -> Result<PartReport, StageError> {
    let embeddings = read_embeddings(&import.embeddings.below(root), import.dimensions).map_err(StageError::other)?;
    warn_of_zeros(work, "utterances", &embeddings);
    let speakers = (!import.speakers.is_empty()).then(|| SpeakerFiles::read(import, root)).transpose();
    let speakers = speakers.map_err(StageError::other)?;
    for (_, embeddings) in speakers.iter().flat_map(SpeakerFiles::iter) {
        warn_of_zeros(work, "speakers", embeddings);
    }
    let column = speech::UTT_EMBEDDING;
    let mut used = UsedSpeakers::default();
    let report = look_up(
        work,
        tables,
        embeddings,
        |table, row, value| {
            let Some(value) = value else { return Ok(Err(not_imported(&import.embeddings, "it"))) };
            let Some(speakers) = &speakers else { return Ok(Ok((value, Speaker::Mean))) };
            Ok(match speakers.of_row(&row.spk, &row.utt, &table.split).map_err(StageError::other)? {
                Choice::None => Err(not_imported(&import.speakers, &format!("its speaker {}", row.spk))),
                Choice::Same(speaker) => Ok((value, Speaker::Same(speaker))),
                Choice::OfSplit(speaker) => Ok((value, Speaker::OfSplit(speaker))),
            })
        },
        |table, kept| {
            let row = |(row, (value, _)): &(Utterance, Kept)| (row.utt.clone(), row.spk.clone(), value.clone());
            let rows: Vec<table::UtteranceEmbedding> = kept.iter().map(row).collect();
            kept.iter().for_each(|(row, (_, speaker))| used.add(&table.split, &row.spk, *speaker));
            // Where the value of a speaker depends on the split, every row keeps its own.
            let differ = kept.iter().any(|(_, (_, speaker))| matches!(speaker, Speaker::OfSplit(_)));
            let speakers: Option<Vec<&[f32]>> = kept.iter().map(|(_, (_, speaker))| speaker.values()).collect();
            let path = work.output(&format!("{}.parquet", table.key))?;
            table::write(&path, column, &rows, speakers.filter(|_| differ).as_deref())
        },
    )?;
    let Some(speakers) = &speakers else { return Ok(report) };
    let names = used.names();
    let unused = speakers.speakers().iter().filter(|speaker| !names.contains(**speaker)).count();
    if let Some(told) = used.told() {
        work.message(told);
    }
    used.write(&work.output(SPEAKERS)?)?;
    Ok(report.fact("speakers of no utterance", unused))
}

/// The embedding of an utterance and of its speaker.
type Kept<'s> = (Vec<f32>, Speaker<'s>);

/// The embedding of a row's speaker.
#[derive(Clone, Copy)]
enum Speaker<'s> {
    /// The mean of the speaker's utterances, which a later phase takes.
    Mean,
    /// The embedding that is the same in all files with the speaker.
    Same(&'s [f32]),
    /// The embedding of the row's split, where files differ.
    OfSplit(&'s [f32]),
}

impl<'s> Speaker<'s> {
    fn values(self) -> Option<&'s [f32]> {
        match self {
            Self::Mean => None,
            Self::Same(values) | Self::OfSplit(values) => Some(values),
        }
    }
}

/// The embeddings of the speakers that rows have: each once, or once per split where these differ.
#[derive(Default)]
struct UsedSpeakers<'s> {
    same: BTreeMap<String, &'s [f32]>,
    /// Embeddings by split and speaker. A split that was made of several others may have several.
    of_split: BTreeMap<(String, String), Vec<&'s [f32]>>,
}

impl<'s> UsedSpeakers<'s> {
    fn add(&mut self, split: &str, speaker: &str, value: Speaker<'s>) {
        match value {
            Speaker::Mean => {}
            Speaker::Same(values) => {
                self.same.insert(speaker.to_owned(), values);
            }
            Speaker::OfSplit(values) => {
                let known = self.of_split.entry((split.to_owned(), speaker.to_owned())).or_default();
                if !known.contains(&values) {
                    known.push(values);
                }
            }
        }
    }

    fn names(&self) -> BTreeSet<&str> {
        self.same.keys().chain(self.of_split.keys().map(|(_, speaker)| speaker)).map(String::as_str).collect()
    }

    /// A line for the log when speakers have several embeddings.
    fn told(&self) -> Option<String> {
        let speakers: BTreeSet<&str> = self.of_split.keys().map(|(_, speaker)| speaker.as_str()).collect();
        let first = speakers.first()?;
        Some(format!(
            "{} speakers have different embeddings in the files of splits; rows have that of their own split (first: {first})",
            speakers.len()
        ))
    }

    /// Writes the table of speakers; with the column `split` when a speaker has several embeddings.
    fn write(&self, path: &Path) -> Result<(), StageError> {
        let every = self.same.iter().map(|(speaker, values)| (String::new(), speaker.clone(), *values));
        let split = |((split, speaker), several): (&(String, String), &Vec<&'s [f32]>)| {
            several.iter().map(|values| (split.clone(), speaker.clone(), *values)).collect::<Vec<_>>()
        };
        if self.of_split.is_empty() {
            let rows: Vec<(String, Vec<f32>)> = every.map(|(_, speaker, values)| (speaker, values.to_vec())).collect();
            return flowmill_corpus::table::write_embeddings(path, "spk", "spk_embedding", &rows)
                .map_err(StageError::other);
        }
        let mut rows: Vec<_> = every.chain(self.of_split.iter().flat_map(split)).collect();
        rows.sort_by(|one, other| (&one.1, &one.0).cmp(&(&other.1, &other.0)));
        table::write_speakers_of_splits(path, &rows)
    }
}

/// The reason of a row that no file knows.
fn not_imported(files: &Files, what: &str) -> String {
    format!("not imported: {}", lacks(files, what))
}

/// Tells of embeddings that say nothing: what a failed extraction often leaves.
fn warn_of_zeros(work: &PartWork, whose: &str, embeddings: &BTreeMap<String, Vec<f32>>) {
    let mut zero = embeddings.iter().filter(|(_, values)| values.iter().all(|value| *value == 0.0)).map(|(id, _)| id);
    if let Some(first) = zero.next() {
        let count = 1 + zero.count();
        work.message(format!("warning: the imported embeddings of {count} {whose} are all zero (first: {first})"));
    }
}
