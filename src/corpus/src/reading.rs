//! What reading a data source gives.

use std::path::PathBuf;

use crate::Utterances;

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
    /// Candidate rows: every id met, plus one for every repeated line.
    pub lines: u64,
    /// The index files that were read (optional ones only when they exist); not the recordings.
    pub files: Vec<PathBuf>,
}

impl Reading {
    /// Sets `lines` from the rows held; the last step of every reader.
    pub(crate) fn counted(mut self) -> Self {
        self.lines = (self.utterances.len() + self.rejected.len()) as u64;
        self
    }

    /// Records a rejected row.
    pub(crate) fn reject(&mut self, id: &str, reason: impl Into<String>) {
        self.rejected.push(Rejection { id: id.to_owned(), reason: reason.into() });
    }
}
