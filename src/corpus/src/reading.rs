//! What reading a data source gives, and the last steps that most readers share.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::ids::{self, Named};
use crate::utterances::Extra;
use crate::{CorpusError, ReadOptions, UtteranceRow, Utterances};

/// A row that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The utterance's id, as far as it could be read.
    pub id: String,
    /// What is wrong with it, with file and line where there is one.
    pub reason: String,
}

/// The outcome of reading one data source. Nothing is lost: `lines == utterances.len() + rejected.len()`.
#[derive(Debug, Default)]
pub struct Reading {
    /// The good rows, sorted by id in C (byte) order.
    pub utterances: Utterances,
    /// The rows left out, each with its reason.
    pub rejected: Vec<Rejection>,
    /// Oddities that cost no row: an unsorted file, ids without their speaker as prefix …
    pub warnings: Vec<String>,
    /// Candidate rows: every id met, plus one for every id that is repeated.
    pub lines: u64,
    /// The index files that were read (optional ones only when they exist); not the recordings.
    pub files: Vec<PathBuf>,
    /// Whether the source as a whole cannot be read: then there is no good row, and every row that could be named is rejected for it.
    pub unreadable: bool,
}

/// A row on its way into a [`Reading`].
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) id: String,
    /// What the id was made of, when the data give none.
    pub(crate) origin: Option<String>,
    /// Without one, the id is the speaker.
    pub(crate) speaker: Option<String>,
    /// The transcript on one line; without one, why.
    pub(crate) text: Result<String, String>,
    pub(crate) language: Option<String>,
    pub(crate) wav: String,
    pub(crate) start: Option<f64>,
    pub(crate) end: Option<f64>,
    pub(crate) duration: Option<f64>,
    pub(crate) extra: Option<Extra>,
    /// Where it was found, to show: `m.jsonl:12`.
    pub(crate) place: String,
}

impl Named for Candidate {
    fn id(&self) -> &str {
        &self.id
    }

    fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    fn rename(&mut self, id: String) {
        self.id = id;
    }
}

/// What is said of a source in which no row has a transcript.
pub(crate) const NO_TRANSCRIPTS: &str =
    "no row has a transcript: all are kept without text, which token-to-mel flows and codecs do not read";

/// What can be done about single rows without a transcript.
pub(crate) const KEEP_WITHOUT_TEXT: &str = "prep.min_text: 0 keeps rows without text";

impl Reading {
    /// The reading of a source that cannot be read as a whole: every id of a row is rejected with that problem. Where no row can be
    /// named, the source itself is one, called `source`.
    pub fn unreadable(problem: &CorpusError, root: &Path, source: &str, mut ids: Vec<String>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            ids.push(source.to_owned());
        }
        let reason = format!("source cannot be read: {}", problem.below(root));
        let rejected = ids.into_iter().map(|id| Rejection { id, reason: reason.clone() }).collect();
        Self { rejected, unreadable: true, ..Self::default() }.counted()
    }

    /// Sets `lines` from the rows held; the last step of every reader.
    pub(crate) fn counted(mut self) -> Self {
        self.lines = (self.utterances.len() + self.rejected.len()) as u64;
        self
    }

    /// Records a rejected row.
    pub(crate) fn reject(&mut self, id: &str, reason: impl Into<String>) {
        self.rejected.push(Rejection { id: id.to_owned(), reason: reason.into() });
    }

    /// Takes in candidates in the order in which they were found: made-up ids are made unique, of the same id only the first is kept
    /// (`help` says what to do about the others), and rows without a transcript are kept or not. `texts` says whether any row of
    /// the source had a transcript, good or bad.
    pub(crate) fn take(mut self, mut rows: Vec<Candidate>, texts: bool, options: &ReadOptions<'_>, help: &str) -> Self {
        ids::tell_apart(&mut rows);
        rows.par_sort_by(|a, b| a.id.cmp(&b.id));
        let keep_all = options.rows_without_text || !texts;
        // What has no recording needs no transcript.
        if !texts && rows.iter().any(|row| !row.wav.is_empty()) {
            self.warnings.push(NO_TRANSCRIPTS.into());
        }
        let mut first: Option<&Candidate> = None;
        for row in &rows {
            if let Some(first) = first.filter(|first| first.id == row.id) {
                self.reject(&row.id, format!("repeated id: {} has the id of {}{help}", row.place, first.place));
                continue;
            }
            first = Some(row);
            match &row.text {
                Err(why) if !keep_all && !row.wav.is_empty() => {
                    self.reject(&row.id, format!("no transcript: {why}; {KEEP_WITHOUT_TEXT}"))
                }
                text => {
                    self.utterances.push(UtteranceRow {
                        utt: &row.id,
                        spk: row.speaker.as_deref().unwrap_or(&row.id),
                        text: text.as_deref().unwrap_or_default(),
                        lang: row.language.as_deref(),
                        wav: &row.wav,
                        start: row.start,
                        end: row.end,
                        duration: row.duration,
                        extra: row.extra.as_ref(),
                        ..UtteranceRow::default()
                    });
                    if row.origin.is_some() {
                        self.utterances.mark_made_up();
                    }
                }
            }
        }
        self.counted()
    }
}
