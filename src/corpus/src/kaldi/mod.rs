//! Kaldi data directories: `wav.scp`, `text`, `utt2spk`, and optionally `segments`, `utt2lang` and `spk2utt`.
//!
//! All conditions on these files that Kaldi's own `validate_data_dir.sh` and `validate_text.pl` check are checked
//! here too. Instead of refusing a whole directory, a row with a problem is rejected with the file and line ("bad
//! line in text: line 12 has an id but no text"), and the others stay. An unsorted file is sorted, with a warning.
//! Paths in `wav.scp` may contain blanks and are relative to the directory. Files may have CRLF line ends, a
//! byte-order mark and blank lines. One id is one utterance: all its problems, in any number of files, are one
//! rejection, and all lines that repeat it are one more.

mod checks;
mod files;
mod join;

use std::path::Path;

use files::Files;

use crate::{CorpusError, ReadOptions, Reading};

/// The index files of a directory. `wav.scp` is required, and `utt2spk` unless one speaker is given.
pub const FILES: [&str; 3] = ["wav.scp", "text", "utt2spk"];
/// Optional files of a directory.
pub const OPTIONAL_FILES: [&str; 3] = ["segments", "utt2lang", "spk2utt"];

/// Reads and validates a Kaldi data directory.
///
/// `root` is the recipe's folder and `dir` the directory as the recipe names it; the paths of the result are relative to `root` unless
/// `dir` or the entry itself is absolute.
///
/// # Errors
/// [`CorpusError::Structure`] when a required file is missing or empty; [`CorpusError::Io`] when one cannot be read.
/// Problems of single rows are in the result's `rejected`.
pub fn read_directory(root: &Path, dir: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let files = Files::open(root, dir, options)?;
    Ok(join::join(&files, root, dir, options))
}

/// Returns the ids of utterances in any file of a directory, as far as the files can be read. They are the rows of a
/// directory that cannot be read as a whole.
pub fn ids(root: &Path, dir: &str) -> Vec<String> {
    files::ids(&root.join(dir))
}
