//! Kaldi data directories: `wav.scp`, `text`, `utt2spk`, and optionally `segments`, `utt2lang` and `spk2utt`.
//!
//! Everything Kaldi's own `validate_data_dir.sh` and `validate_text.pl` look at in these files is checked. What they refuse wholesale
//! is settled row by row here: a row with a problem is rejected with the file and line ("bad line in text: line 12 has an id but no text"), the others stay; an unsorted file is sorted and
//! mentioned. Paths in `wav.scp` may hold blanks and are relative to the directory. Files may have CRLF line ends, a byte-order
//! mark and blank lines.

mod checks;
mod files;
mod join;

use std::path::Path;

use files::Files;

use crate::{CorpusError, Reading};

/// How to read a Kaldi data directory.
#[derive(Clone, Copy, Debug, Default)]
pub struct KaldiOptions<'a> {
    /// Whether entries that are commands (`sox … |`) are taken. Running them later runs whatever the file says.
    pub allow_pipes: bool,
    /// The speaker of all utterances where there is no `utt2spk`.
    pub speaker: Option<&'a str>,
}

/// The transcript checks, for the other formats.
pub(crate) fn check_transcript(text: &str) -> Result<&str, String> {
    checks::transcript(text)
}

/// The check of ids, for the other formats.
pub(crate) fn check_id(id: &str) -> Result<(), String> {
    checks::id(id)
}

/// Index files of a directory that [`read_directory`] reads when they exist; the first two must, and `utt2spk` unless one speaker is given.
pub const FILES: [&str; 3] = ["wav.scp", "text", "utt2spk"];
/// The files that a directory may have besides.
pub const OPTIONAL_FILES: [&str; 3] = ["segments", "utt2lang", "spk2utt"];

/// Reads and validates a Kaldi data directory.
///
/// `root` is the recipe's folder and `dir` the directory as the recipe names it; the paths of the result are relative to `root` unless
/// `dir` or the entry itself is absolute.
///
/// # Errors
/// [`CorpusError::Structure`] when a required file is missing or empty; [`CorpusError::Io`] when one cannot be read.
/// Problems of single rows are in the result's `rejected`.
pub fn read_directory(root: &Path, dir: &str, options: &KaldiOptions<'_>) -> Result<Reading, CorpusError> {
    let files = Files::open(root, dir, options.speaker)?;
    Ok(join::join(&files, dir, options))
}
