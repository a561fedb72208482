//! Text files as keyed lines: `key value…`, parsed in parallel, stored as spans into one buffer.

use std::borrow::Cow;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rayon::prelude::*;

use crate::{CorpusError, encoding};

/// The approximate size of the pieces in which lines are parsed, in bytes.
const PIECE: usize = 1 << 20;

/// A text file in memory, without its byte-order mark.
#[derive(Debug)]
pub(crate) struct TextFile {
    /// The name for messages: the path below the data directory.
    pub(crate) name: String,
    /// The path of the file.
    pub(crate) path: PathBuf,
    bytes: Vec<u8>,
    /// The advice about bytes that are not UTF-8, computed when the first such bytes are found.
    advice: OnceLock<&'static str>,
}

impl TextFile {
    /// Reads `dir/name`; `None` if there is no such file.
    ///
    /// # Errors
    /// [`CorpusError::Io`] if it cannot be read, [`CorpusError::Structure`] if its content is not text.
    pub(crate) fn open(dir: &Path, name: &str) -> Result<Option<Self>, CorpusError> {
        let path = dir.join(name);
        match fs::read(&path) {
            Ok(bytes) => match encoding::no_text(&bytes) {
                Some(problem) => Err(CorpusError::structure(&path, problem)),
                None => Ok(Some(Self::from_bytes(name, path, bytes))),
            },
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(CorpusError::io("read", &path, e)),
        }
    }

    /// Creates a file from bytes that were read already. UTF-16 with a byte-order mark is converted.
    pub(crate) fn from_bytes(name: &str, path: PathBuf, mut bytes: Vec<u8>) -> Self {
        if let Cow::Owned(converted) = encoding::without_mark(&bytes) {
            bytes = converted;
        } else if bytes.starts_with(b"\xEF\xBB\xBF") {
            bytes.drain(..3);
        }
        Self { name: name.to_owned(), path, bytes, advice: OnceLock::new() }
    }

    /// The content as UTF-8, if it is.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file's length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns all lines that are not blank, each with its number (from 1), without the line end (LF, CRLF or CR
    /// alone) and surrounding blanks.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let pieces = self.pieces();
        let counts: Vec<u32> = pieces.par_iter().map(|&(from, to)| count_newlines(&self.bytes[from..to])).collect();
        let mut first = 1u32;
        let mut starts = Vec::with_capacity(pieces.len());
        for count in counts {
            starts.push(first);
            first = first.saturating_add(count);
        }
        let parts: Vec<Vec<Line>> =
            pieces.par_iter().zip(&starts).map(|(&(from, to), &number)| self.lines_of(from, to, number)).collect();
        let mut lines = Vec::with_capacity(parts.iter().map(Vec::len).sum());
        parts.into_iter().for_each(|part| lines.extend(part));
        lines
    }

    /// The text of a line, or "is not UTF-8: line 3 …".
    pub(crate) fn text(&self, line: &Line) -> Result<&str, String> {
        std::str::from_utf8(self.bytes_at(line.start, line.len)).map_err(|e| {
            let (byte, advice) = (e.valid_up_to() + 1, self.encoding_advice());
            format!("is not UTF-8: line {} breaks it at its byte {byte}; {advice}", line.number)
        })
    }

    /// Returns advice about bytes that are not UTF-8, based on the whole file.
    pub(crate) fn encoding_advice(&self) -> &'static str {
        self.advice.get_or_init(|| encoding::advice(&self.bytes))
    }

    /// Returns the bytes of a line for display, with replacements for bytes that are not UTF-8.
    pub(crate) fn lossy(&self, line: &Line) -> String {
        String::from_utf8_lossy(self.bytes_at(line.start, line.len)).into_owned()
    }

    /// Returns a stretch of the file. Panics beyond its end, like slice indexing.
    pub(crate) fn bytes_at(&self, start: usize, len: u32) -> &[u8] {
        &self.bytes[start..start + len as usize]
    }

    /// Returns stretches that end after a newline.
    fn pieces(&self) -> Vec<(usize, usize)> {
        let mut pieces = Vec::new();
        let mut from = 0;
        while from < self.bytes.len() {
            let target = (from + PIECE).min(self.bytes.len());
            let to =
                self.bytes[target..].iter().position(|&b| b == b'\n').map_or(self.bytes.len(), |at| target + at + 1);
            pieces.push((from, to));
            from = to;
        }
        pieces
    }

    /// Returns the lines of one piece.
    fn lines_of(&self, from: usize, to: usize, mut number: u32) -> Vec<Line> {
        let mut lines = Vec::with_capacity((to - from) / 64);
        let mut at = from;
        for raw in raw_lines(&self.bytes[from..to]) {
            let body = raw.trim_ascii();
            if !body.is_empty() {
                let lead = raw.len() - raw.trim_ascii_start().len();
                let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
                lines.push(Line { start: at + lead, len, number });
            }
            at += raw.len();
            number = number.saturating_add(1);
        }
        lines
    }
}

/// One line that is not blank.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) start: usize,
    pub(crate) len: u32,
    /// The number, from 1.
    pub(crate) number: u32,
}

/// Returns the lines with their ends: LF, CRLF, or CR alone as on old systems.
fn raw_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let end = match rest.iter().position(|b| matches!(b, b'\n' | b'\r'))? {
            at if rest[at..].starts_with(b"\r\n") => at + 2,
            at => at + 1,
        };
        let (line, behind) = rest.split_at(end);
        rest = behind;
        Some(line)
    })
    .chain(last_line(bytes))
}

/// Returns the bytes after the last line end; `None` if there are none.
fn last_line(bytes: &[u8]) -> Option<&[u8]> {
    let from = bytes.iter().rposition(|b| matches!(b, b'\n' | b'\r')).map_or(0, |at| at + 1);
    (from < bytes.len()).then(|| &bytes[from..])
}

/// Returns the number of line ends.
fn count_newlines(bytes: &[u8]) -> u32 {
    let end = |at: usize| bytes[at] == b'\n' || (bytes[at] == b'\r' && bytes.get(at + 1) != Some(&b'\n'));
    u32::try_from((0..bytes.len()).filter(|&at| end(at)).count()).unwrap_or(u32::MAX)
}

/// Splits `key rest` at the first blank. The rest is trimmed and may be empty.
pub(crate) fn split_key(line: &str) -> (&str, &str) {
    match line.find([' ', '\t']) {
        Some(at) => (&line[..at], line[at..].trim_matches([' ', '\t'])),
        None => (line, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> TextFile {
        TextFile::from_bytes("text", PathBuf::from("text"), bytes.to_vec())
    }

    #[test]
    fn marks_blank_lines_and_line_ends_disappear_but_numbers_stay() {
        let file = file(b"\xEF\xBB\xBFa 1\r\n\r\n  b 2 \n\n\nc 3");
        let lines: Vec<(u32, String)> =
            file.lines().iter().map(|l| (l.number, file.text(l).unwrap().to_owned())).collect();
        assert_eq!(lines, [(1, "a 1".into()), (3, "b 2".into()), (6, "c 3".into())]);
    }

    #[test]
    fn carriage_returns_alone_end_lines_too() {
        let file = file(b"a 1\rb 2\r\rc 3\r\nd 4");
        let lines: Vec<(u32, String)> =
            file.lines().iter().map(|l| (l.number, file.text(l).unwrap().to_owned())).collect();
        assert_eq!(lines, [(1, "a 1".into()), (2, "b 2".into()), (4, "c 3".into()), (5, "d 4".into())]);
        assert_eq!(count_newlines(b"a 1\rb 2\r\rc 3\r\nd 4"), 4);
    }

    #[test]
    fn numbers_hold_across_pieces() {
        let text: String = (1..=200_000).map(|n| format!("utterance-{n} {n}\n")).collect();
        let file = file(text.as_bytes());
        assert!(file.pieces().len() > 2);
        let lines = file.lines();
        assert_eq!(lines.len(), 200_000);
        for line in lines.iter().step_by(997) {
            assert_eq!(split_key(file.text(line).unwrap()).1, line.number.to_string());
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_named() {
        let file = file(b"a ok\nb caf\xE9\n");
        let lines = file.lines();
        assert!(file.text(&lines[0]).is_ok());
        let error = file.text(&lines[1]).unwrap_err();
        assert!(error.contains("line 2 ") && error.contains("byte 6"), "{error}");
    }
}
