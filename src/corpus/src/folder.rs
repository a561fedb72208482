//! A folder of recordings with their transcripts beside them: `x.wav` with `x.txt` or `x.lab`.
//!
//! Subfolders are searched too. The id is the path below the folder without its extension, `/` replaced by `-`; the speaker is the
//! name of the subfolder the recording lies in, or the folder's own name.

use std::fs;
use std::path::Path;

use rayon::prelude::*;

use crate::paths::{joined, prefix_of};
use crate::{CorpusError, Reading, Row};

/// Extensions taken for audio, in lower case.
pub const AUDIO_EXTENSIONS: [&str; 14] =
    ["wav", "flac", "mp3", "ogg", "opus", "m4a", "mp4", "aac", "aif", "aiff", "caf", "mkv", "webm", "mp2"];

/// Extensions of transcripts, in the order they are looked for.
pub const TEXT_EXTENSIONS: [&str; 2] = ["txt", "lab"];

/// Recordings and transcripts found below a folder, as sorted paths relative to it with `/` between their parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Paths of recordings.
    pub audio: Vec<String>,
    /// Paths of transcripts.
    pub text: Vec<String>,
}

/// Lists a folder and its subfolders. Names that are not UTF-8 are shown with replacement characters; hidden ones are skipped.
///
/// # Errors
/// [`CorpusError::Structure`] when it is no directory, [`CorpusError::Io`] when it cannot be listed.
pub fn list(root: &Path, dir: &str) -> Result<Listing, CorpusError> {
    let folder = root.join(dir);
    if !folder.is_dir() {
        return Err(CorpusError::structure(&folder, "is no directory; a folder of recordings is expected here"));
    }
    let mut listing = Listing::default();
    let mut waiting = vec![String::new()];
    while let Some(below) = waiting.pop() {
        let place = folder.join(&below);
        for entry in fs::read_dir(&place).map_err(|e| CorpusError::io("list", &place, e))? {
            let entry = entry.map_err(|e| CorpusError::io("list", &place, e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            let path = format!("{below}{name}");
            let kind = entry.file_type().map_err(|e| CorpusError::io("list", &entry.path(), e))?;
            // Links to files count as files; links to folders are not followed, so that no listing runs in circles.
            if kind.is_dir() {
                waiting.push(format!("{path}/"));
            } else if has_extension(&path, &AUDIO_EXTENSIONS) {
                listing.audio.push(path);
            } else if has_extension(&path, &TEXT_EXTENSIONS) {
                listing.text.push(path);
            }
        }
    }
    listing.audio.sort_unstable();
    listing.text.sort_unstable();
    Ok(listing)
}

/// Reads a folder of recordings with transcripts beside them.
///
/// `root` is the recipe's folder and `dir` the folder as the recipe names it; the paths of the result are relative to `root`.
///
/// # Errors
/// As [`list`], and [`CorpusError::Structure`] when there is no recording.
pub fn read_directory(root: &Path, dir: &str) -> Result<Reading, CorpusError> {
    let listing = list(root, dir)?;
    if listing.audio.is_empty() {
        let extensions = AUDIO_EXTENSIONS.join(" ");
        return Err(CorpusError::structure(&root.join(dir), format!("holds no recording (looked for: {extensions})")));
    }
    let folder = root.join(dir);
    let prefix = prefix_of(dir);
    let own_name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "speaker".into());
    let mut ids: Vec<(String, &String)> =
        listing.audio.iter().map(|path| (stem(path).replace('/', "-"), path)).collect();
    ids.sort_unstable();
    let texts: Vec<Result<(String, String), String>> =
        ids.par_iter().map(|(_, path)| transcript(&folder, &listing.text, path)).collect();
    let mut reading = Reading::default();
    let mut previous: Option<&str> = None;
    for ((id, path), text) in ids.iter().zip(texts) {
        if previous == Some(id) {
            reading.reject(id, format!("repeated id: {path} has the id of another recording; rename one"));
            continue;
        }
        previous = Some(id);
        match text {
            Err(reason) => reading.reject(id, reason),
            Ok((text_path, text)) => {
                let spk = path.rsplit('/').nth(1).unwrap_or(&own_name);
                let wav = joined(&prefix, path);
                reading.utterances.push(Row { utt: id, spk, text: &text, wav: &wav, ..empty_row() });
                reading.files.push(folder.join(text_path));
            }
        }
    }
    let orphans = listing.text.iter().filter(|text| !has_audio(&listing.audio, text)).count();
    if orphans > 0 {
        reading.warnings.push(format!("{orphans} transcripts in {dir} have no recording beside them"));
    }
    Ok(reading.counted())
}

/// A row without anything in it, to fill.
pub(crate) fn empty_row() -> Row<'static> {
    Row {
        utt: "",
        spk: "",
        text: "",
        lang: None,
        wav: "",
        start: None,
        end: None,
        duration: None,
        sample_rate: None,
        channels: None,
        decoder: None,
    }
}

/// The transcript beside a recording: its path below the folder and its text on one line.
fn transcript(folder: &Path, texts: &[String], audio: &str) -> Result<(String, String), String> {
    let beside = TEXT_EXTENSIONS
        .iter()
        .map(|extension| format!("{}.{extension}", stem(audio)))
        .find(|path| texts.binary_search(path).is_ok())
        .ok_or_else(|| format!("no transcript: {audio} has no {}.txt or .lab beside it", stem(audio)))?;
    let bytes = fs::read(folder.join(&beside)).map_err(|e| format!("bad transcript: {beside} cannot be read: {e}"))?;
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF".as_slice()).unwrap_or(&bytes);
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = bytes[..e.valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
        format!("bad transcript: {beside}:{line} is not valid UTF-8; convert the file, for example with iconv")
    })?;
    let text = one_line(text);
    if text.is_empty() { Err(format!("bad transcript: {beside} is empty")) } else { Ok((beside, text)) }
}

/// A text's words, one blank between them.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a recording lies beside a transcript.
fn has_audio(audio: &[String], text: &str) -> bool {
    let start = format!("{}.", stem(text));
    let at = audio.partition_point(|path| path.as_str() < start.as_str());
    audio[at..].iter().take_while(|path| path.starts_with(&start)).any(|path| stem(path) == stem(text))
}

/// A path without its extension.
fn stem(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(stem, _)| stem)
}

/// Whether a path ends in one of the extensions, whatever their case.
fn has_extension(path: &str, extensions: &[&str]) -> bool {
    path.rsplit_once('.').is_some_and(|(_, found)| extensions.iter().any(|e| found.eq_ignore_ascii_case(e)))
}
