//! The result of reading a data source, and the last steps that most readers share.

use std::path::{Path, PathBuf};

use crate::ids::{self, Named};
use crate::utterances::Extra;
use crate::{CorpusError, ReadOptions, UtteranceRow, Utterances};

/// A rejected row with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The utterance's id, as far as it could be read.
    pub id: String,
    /// The problem, with file and line if there is one.
    pub reason: String,
}

/// The result of reading one data source. No row is lost: `lines == utterances.len() + rejected.len()`.
#[derive(Debug, Default)]
pub struct Reading {
    /// The good rows, sorted by id in C (byte) order.
    pub utterances: Utterances,
    /// The rejected rows, each with its reason.
    pub rejected: Vec<Rejection>,
    /// Problems that cost no row: an unsorted file, ids without their speaker as prefix …
    pub warnings: Vec<String>,
    /// The number of candidate rows: every id, plus one for every id that is repeated.
    pub lines: u64,
    /// The index files that were read (optional ones only if they exist), without the recordings.
    pub files: Vec<PathBuf>,
    /// True if the source as a whole cannot be read. There is no good row then, and every row that could be named is
    /// rejected for it.
    pub unreadable: bool,
}

/// A row on its way into a [`Reading`].
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) id: String,
    /// The text from which the id was made, if the data have none.
    pub(crate) origin: Option<String>,
    /// The speaker. If there is none, the id is the speaker.
    pub(crate) speaker: Option<String>,
    /// The transcript on one line, or the reason why there is none.
    pub(crate) text: Result<String, String>,
    pub(crate) language: Option<String>,
    pub(crate) wav: String,
    pub(crate) start: Option<f64>,
    pub(crate) end: Option<f64>,
    pub(crate) duration: Option<f64>,
    /// The split that the source puts the row in, if it brings splits.
    pub(crate) split: Option<String>,
    pub(crate) extra: Option<Box<Extra>>,
    /// The place where it was found, for messages: `m.jsonl:12`.
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

/// The warning about a source in which no row has a transcript.
pub(crate) const NO_TRANSCRIPTS: &str =
    "no row has a transcript: all are kept without text, which token-to-mel flows and codecs do not read";

/// The advice about single rows without a transcript.
pub(crate) const KEEP_WITHOUT_TEXT: &str = "prep.min_text: 0 keeps rows without text";

impl Reading {
    /// Returns the reading of a source that cannot be read as a whole: every row's id is rejected with that problem.
    /// If no row can be named, the source itself is one rejected row, called `source`.
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

    /// Sets `lines` from the stored rows; the last step of every reader.
    pub(crate) fn counted(mut self) -> Self {
        self.lines = (self.utterances.len() + self.rejected.len()) as u64;
        self
    }

    /// Records a rejected row.
    pub(crate) fn reject(&mut self, id: &str, reason: impl Into<String>) {
        self.rejected.push(Rejection { id: id.to_owned(), reason: reason.into() });
    }

    /// Adds candidates in the order in which they were found. Generated ids are made unique, only the first row of
    /// several with the same id is kept (`help` is the advice for the others), and rows without a transcript are kept
    /// or rejected. `texts` is true if any row of the source had a transcript, good or bad.
    pub(crate) fn take(mut self, mut rows: Vec<Candidate>, texts: bool, options: &ReadOptions<'_>, help: &str) -> Self {
        ids::tell_apart(&mut rows);
        let keep_all = options.rows_without_text || !texts;
        // Rows without a recording need no transcript.
        if !texts && rows.iter().any(|row| !row.wav.is_empty()) {
            self.warnings.push(NO_TRANSCRIPTS.into());
        }
        let mut first: Option<&Candidate> = None;
        for at in ids::in_order(&rows) {
            let row = &rows[at];
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
                        split: row.split.as_deref(),
                        extra: row.extra.as_deref(),
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
