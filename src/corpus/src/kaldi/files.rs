//! The files of a Kaldi directory as sorted lists of keyed entries.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::checks::Problem;
use crate::lines::TextFile;
use crate::{CorpusError, ReadOptions};

/// One `key value` line as spans into its file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    key_start: usize,
    value_start: usize,
    key_len: u32,
    value_len: u32,
    /// Counted from 1.
    pub(super) line: u32,
}

/// A file's entries, sorted by key in C order and then by line.
#[derive(Debug)]
pub(super) struct Keyed {
    file: TextFile,
    pub(super) entries: Vec<Entry>,
    /// The first line whose key is smaller than the key before it.
    pub(super) unsorted_at: Option<u32>,
}

impl Keyed {
    /// Reads `dir/name`, one entry per line.
    fn open(dir: &Path, name: &str) -> Result<Option<Self>, CorpusError> {
        Ok(TextFile::open(dir, name)?.map(|file| {
            let lines = file.lines();
            let entries = lines
                .par_iter()
                .map(|line| {
                    let bytes = file.bytes_at(line.start, line.len);
                    let (key_len, gap) = key_and_gap(bytes);
                    Entry {
                        key_start: line.start,
                        value_start: line.start + key_len + gap,
                        key_len: key_len as u32,
                        value_len: trimmed_len(&bytes[key_len + gap..]) as u32,
                        line: line.number,
                    }
                })
                .collect();
            Self::sorted(file, entries)
        }))
    }

    /// Reads `spk2utt` inverted: one entry per utterance, whose value is the speaker.
    fn open_inverted(dir: &Path, name: &str) -> Result<Option<Self>, CorpusError> {
        let Some(lines) = Self::open(dir, name)? else { return Ok(None) };
        let Keyed { file, entries: speakers, unsorted_at } = lines;
        let mut entries = Vec::new();
        for speaker in &speakers {
            let value = file.bytes_at(speaker.value_start, speaker.value_len);
            let mut at = speaker.value_start;
            for word in value.split(|b| matches!(b, b' ' | b'\t')) {
                if !word.is_empty() {
                    entries.push(Entry {
                        key_start: at,
                        value_start: speaker.key_start,
                        key_len: word.len() as u32,
                        value_len: speaker.key_len,
                        line: speaker.line,
                    });
                }
                at += word.len() + 1;
            }
        }
        let mut inverted = Self::sorted(file, entries);
        inverted.unsorted_at = unsorted_at;
        Ok(Some(inverted))
    }

    /// Sorts entries given in line order.
    fn sorted(file: TextFile, mut entries: Vec<Entry>) -> Self {
        let key = |e: &Entry| file.bytes_at(e.key_start, e.key_len);
        let unsorted_at = entries.windows(2).find(|pair| key(&pair[0]) > key(&pair[1])).map(|pair| pair[1].line);
        if unsorted_at.is_some() {
            entries.par_sort_unstable_by(|a, b| key(a).cmp(key(b)).then(a.line.cmp(&b.line)));
        }
        Self { file, entries, unsorted_at }
    }

    /// An entry's key, as bytes.
    pub(super) fn key(&self, entry: &Entry) -> &[u8] {
        self.file.bytes_at(entry.key_start, entry.key_len)
    }

    /// An entry's value, as bytes.
    pub(super) fn value_bytes(&self, entry: &Entry) -> &[u8] {
        self.file.bytes_at(entry.value_start, entry.value_len)
    }

    /// Returns an entry's value as text if its bytes are UTF-8.
    pub(super) fn value(&self, entry: &Entry) -> Result<&str, Problem> {
        utf8(self.value_bytes(entry)).map_err(|byte| Problem {
            kind: Some("is not UTF-8".into()),
            detail: format!("has the byte 0x{byte:02X}; {}", self.file.encoding_advice()),
        })
    }

    /// Returns advice about bytes that are not UTF-8.
    pub(super) fn encoding_advice(&self) -> &'static str {
        self.file.encoding_advice()
    }

    /// "text:12": the file and line of an entry.
    pub(super) fn place(&self, entry: &Entry) -> String {
        format!("{}:{}", self.file.name, entry.line)
    }

    /// The file's name below the directory.
    pub(super) fn name(&self) -> &str {
        &self.file.name
    }

    /// The file's length in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.file.len()
    }

    /// Returns the entries with this key. The search starts at `from`, which is moved past them.
    pub(super) fn take(&self, from: &mut usize, key: &[u8]) -> &[Entry] {
        while self.entries.get(*from).is_some_and(|entry| self.key(entry) < key) {
            *from += 1;
        }
        let start = *from;
        while self.entries.get(*from).is_some_and(|entry| self.key(entry) == key) {
            *from += 1;
        }
        &self.entries[start..*from]
    }

    /// Returns the entries with this key, anywhere in the file.
    pub(super) fn find(&self, key: &[u8]) -> &[Entry] {
        let start = self.entries.partition_point(|entry| self.key(entry) < key);
        self.take(&mut start.clone(), key)
    }
}

/// Converts bytes to text; the error is the first byte that is not UTF-8.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, u8> {
    std::str::from_utf8(bytes).map_err(|e| bytes.get(e.valid_up_to()).copied().unwrap_or_default())
}

/// Returns the length of a line's key and of the white space after it. Unicode's white space separates them too, as
/// in Python tools.
fn key_and_gap(line: &[u8]) -> (usize, usize) {
    let ascii = line.iter().position(|b| matches!(b, b' ' | b'\t')).unwrap_or(line.len());
    let key = if line[..ascii].is_ascii() { ascii } else { first_white_space(line).unwrap_or(ascii) };
    let rest = &line[key..];
    let gap = match std::str::from_utf8(rest) {
        Ok(text) => text.len() - text.trim_start().len(),
        Err(_) => rest.len() - rest.trim_ascii_start().len(),
    };
    (key, gap)
}

/// Returns the length of a value without Unicode's white space at its end.
fn trimmed_len(value: &[u8]) -> usize {
    match std::str::from_utf8(value) {
        Ok(text) => text.trim_end().len(),
        Err(_) => value.trim_ascii_end().len(),
    }
}

/// Returns the position of the first white space of a text, as far as it is UTF-8.
fn first_white_space(line: &[u8]) -> Option<usize> {
    let valid = std::str::from_utf8(line).or_else(|e| std::str::from_utf8(&line[..e.valid_up_to()])).ok()?;
    let found = valid.find(char::is_whitespace);
    found.or_else(|| line.iter().position(|b| matches!(b, b' ' | b'\t')))
}

/// Returns the ids of utterances in any file of a directory, as far as the files can be read, for a directory that
/// cannot be read as a whole. Ids of recordings count if there are no segments.
pub(super) fn ids(dir: &Path) -> Vec<String> {
    let read = |name: &str| Keyed::open(dir, name).ok().flatten();
    let placing = read("segments").or_else(|| read("wav.scp"));
    let files = [placing, read("text"), read("utt2spk")];
    let keys = files.iter().flatten().flat_map(|keyed| keyed.entries.iter().map(|entry| keyed.key(entry)));
    keys.map(|key| String::from_utf8_lossy(key).into_owned()).collect()
}

/// The files of one directory.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) wav_scp: Keyed,
    /// None if the data have no transcripts.
    pub(super) text: Option<Keyed>,
    /// None if one speaker is given for all utterances.
    pub(super) utt2spk: Option<Keyed>,
    pub(super) segments: Option<Keyed>,
    pub(super) utt2lang: Option<Keyed>,
    /// Inverted: keyed by utterance.
    pub(super) spk2utt: Option<Keyed>,
    /// Files that hold the columns that the recipe names: `instruct`.
    pub(super) columns: Vec<Keyed>,
}

impl Files {
    /// Reads the files of `dir`, as the recipe in the folder `root` names it. The options give the speaker of all
    /// utterances if there is no `utt2spk`.
    pub(super) fn open(root: &Path, dir: &str, options: &ReadOptions<'_>) -> Result<Self, CorpusError> {
        let path = &root.join(dir);
        if !path.is_dir() {
            return Err(CorpusError::structure(path, "is not a directory; a Kaldi data directory is expected here"));
        }
        if !path.join("wav.scp").exists() {
            split_folders(path, dir)?;
        }
        Ok(Self {
            wav_scp: required(path, "wav.scp", "one line per recording: its id and its path")?,
            text: transcripts(path)?,
            utt2spk: speakers(path, dir, options.speaker)?,
            segments: Keyed::open(path, "segments")?,
            utt2lang: Keyed::open(path, "utt2lang")?,
            spk2utt: Keyed::open_inverted(path, "spk2utt")?,
            columns: columns(path, options)?,
        })
    }

    /// Returns all existing files.
    pub(super) fn present(&self) -> impl Iterator<Item = &Keyed> {
        let others = [&self.text, &self.utt2spk, &self.segments, &self.utt2lang, &self.spk2utt];
        std::iter::once(&self.wav_scp).chain(others.into_iter().flatten()).chain(&self.columns)
    }

    /// Returns the paths of these files.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.present().map(|keyed| keyed.file.path.clone()).collect()
    }
}

/// Reads the files of columns. One that every row needs must exist.
fn columns(path: &Path, options: &ReadOptions<'_>) -> Result<Vec<Keyed>, CorpusError> {
    let mut found = Vec::new();
    for column in options.columns {
        match Keyed::open(path, &column.name)? {
            Some(keyed) => found.push(keyed),
            None if column.required => {
                let problem = format!("has no file `{}`, which prep.columns names", column.name);
                return Err(CorpusError::structure(path, problem));
            }
            None => {}
        }
    }
    Ok(found)
}

/// Reads `text`, which is optional.
fn transcripts(path: &Path) -> Result<Option<Keyed>, CorpusError> {
    if !path.join("text").exists() && !path.join("text.gz").exists() {
        return Ok(None);
    }
    required(path, "text", "one line per utterance: its id and its transcript (delete it if there are no transcripts)")
        .map(Some)
}

/// Kaldi's own files whose information about utterances is redundant.
const FOLLOWS: [&str; 8] =
    ["utt2dur", "reco2dur", "utt2num_frames", "feats.scp", "cmvn.scp", "vad.scp", "frame_shift", "spk2gender"];

/// Returns other files of a data directory that may describe utterances, sorted: those without an extension, like
/// Kaldi's own.
pub(super) fn not_read(path: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let files = entries.filter_map(Result::ok).filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let about =
        |name: &str| ["readme", "license", "copying"].iter().any(|word| name.to_ascii_lowercase().starts_with(word));
    let read =
        |name: &str| super::FILES.contains(&name) || super::OPTIONAL_FILES.contains(&name) || FOLLOWS.contains(&name);
    names.retain(|name| !name.contains('.') && !read(name) && !about(name));
    names.sort_unstable();
    names
}

/// Reads `utt2spk`, which is optional only if one speaker is given.
fn speakers(path: &Path, dir: &str, speaker: Option<&str>) -> Result<Option<Keyed>, CorpusError> {
    if path.join("utt2spk").exists() {
        return required(path, "utt2spk", "one line per utterance: its id and its speaker").map(Some);
    }
    match speaker {
        Some(_) => Ok(None),
        None => Err(CorpusError::structure(
            path,
            format!(
                "has no file `utt2spk` (one line per utterance: its id and its speaker); write one, or name one speaker for all \
                 its utterances: prep.data: [{{dir: {dir}, speaker: NAME}}]"
            ),
        )),
    }
}

/// Returns an error for a folder of data directories, such as `data` with `data/train` and `data/dev`, that says how
/// to name them.
fn split_folders(path: &Path, dir: &str) -> Result<(), CorpusError> {
    let entries = std::fs::read_dir(path).map_err(|error| CorpusError::io("list", path, error))?;
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("wav.scp").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    if names.is_empty() {
        return Ok(());
    }
    let dir = dir.trim_end_matches('/');
    let sources: Vec<String> = names.iter().map(|name| format!("{{dir: {dir}/{name}, split: {name}}}")).collect();
    Err(CorpusError::structure(
        path,
        format!(
            "has no file `wav.scp`, but {} of its folders have one; name each with its split: --set 'prep.data=[{}]' --set \
             prep.split.by=given",
            names.len(),
            sources.join(", ")
        ),
    ))
}

/// Reads a file that must exist and must not be empty.
fn required(dir: &Path, name: &str, holds: &str) -> Result<Keyed, CorpusError> {
    let absent = || CorpusError::structure(dir, format!("has no file `{name}` ({holds}){}", packed(dir, name)));
    let keyed = Keyed::open(dir, name)?.ok_or_else(absent)?;
    if keyed.entries.is_empty() {
        return Err(CorpusError::structure(&dir.join(name), format!("is empty; it should contain {holds}")));
    }
    Ok(keyed)
}

/// Returns advice for a file that exists only in compressed form.
fn packed(dir: &Path, name: &str) -> &'static str {
    if dir.join(format!("{name}.gz")).exists() {
        "; there is a compressed one: decompress it once with `gunzip`"
    } else {
        ""
    }
}
