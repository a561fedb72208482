//! Files of lines that are compressed with gzip, read in batches.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::CorpusError;

/// The approximate size of a batch, in bytes.
const BATCH: usize = 8 << 20;
/// The longest line that is read, in bytes.
const LONGEST_LINE: usize = 256 << 20;

/// The batches of whole lines of a file, each with the number of lines before it.
pub(crate) struct Batches {
    path: PathBuf,
    file: MultiGzDecoder<BufReader<File>>,
    /// The beginning of a line that the next batch ends.
    rest: Vec<u8>,
    lines: u32,
    done: bool,
}

/// Opens a compressed file of lines. A batch is at most a few MiB, unless a line is longer.
///
/// # Errors
/// [`CorpusError::Io`]; each batch may be an error too.
pub(crate) fn batches(path: &Path) -> Result<Batches, CorpusError> {
    let file = File::open(path).map_err(|e| CorpusError::io("read", path, e))?;
    let file = MultiGzDecoder::new(BufReader::new(file));
    Ok(Batches { path: path.to_path_buf(), file, rest: Vec::new(), lines: 0, done: false })
}

impl Batches {
    fn step(&mut self) -> Result<Option<(u32, Vec<u8>)>, CorpusError> {
        let mut bytes = std::mem::take(&mut self.rest);
        loop {
            let before = bytes.len();
            let read = (&mut self.file).take(BATCH as u64).read_to_end(&mut bytes);
            let read = read.map_err(|e| {
                CorpusError::structure(
                    &self.path,
                    format!("is not gzip, or is truncated (after {} lines): {e}", self.lines),
                )
            })?;
            let end = bytes[before..].iter().rposition(|byte| *byte == b'\n').map(|at| before + at + 1);
            let end = match end {
                _ if read == 0 => {
                    self.done = true;
                    bytes.len()
                }
                Some(end) => end,
                None if bytes.len() > LONGEST_LINE => {
                    let problem = format!("line {} is longer than {LONGEST_LINE} bytes", self.lines.saturating_add(1));
                    return Err(CorpusError::structure(&self.path, problem));
                }
                None => continue,
            };
            self.rest = bytes.split_off(end);
            let first = self.lines;
            let count = bytes.iter().filter(|byte| **byte == b'\n').count();
            self.lines = self.lines.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
            return Ok((!bytes.is_empty()).then_some((first, bytes)));
        }
    }
}

impl Iterator for Batches {
    type Item = Result<(u32, Vec<u8>), CorpusError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let batch = self.step().transpose();
        self.done |= !matches!(batch, Some(Ok(_)));
        batch
    }
}
