//! The LJSpeech layout: `metadata.csv` with `id|text|normalised text`, recordings in `wavs/`.
//!
//! The file is not CSV in the usual sense: fields are parted by `|` and quotes are ordinary characters.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use flowmill_audio::media;

use crate::fields::is_name_of;
use crate::folder::{self, Listing};
use crate::lines::TextFile;
use crate::paths::{joined, prefix_of};
use crate::reading::Candidate;
use crate::samples::{extension, left_out_warning, stem};
use crate::{CorpusError, ReadOptions, Reading, Rejection, ids, values};

/// The speaker of a source that names none.
const SPEAKER: &str = "ljspeech";

/// Reads `dir/metadata.csv`. The text is the third field where it is there and not empty, else the second; every utterance has the
/// one speaker given.
///
/// The first field names the recording: `ID`, `ID.wav` or a path below the directory or its `wavs/`. It is the file of exactly this
/// name, or of this name and a recording's extension; of several the one that comes first in [`media::EXTENSIONS`]. Where there is
/// none, the row names `wavs/ID.wav`, so that the probe names the missing file.
///
/// # Errors
/// [`CorpusError::Structure`] when there is no `metadata.csv` or it is empty.
pub fn read_directory(root: &Path, dir: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let folder = root.join(dir);
    let file = TextFile::open(&folder, "metadata.csv")?
        .ok_or_else(|| CorpusError::structure(&folder, "has no `metadata.csv` (lines of `id|text|normalised text`)"))?;
    let lines = file.lines();
    if lines.is_empty() {
        return Err(CorpusError::structure(&file.path, "is empty; it should hold lines of `id|text|normalised text`"));
    }
    let listing = folder::list(root, dir)?;
    let recordings = Recordings::of(&listing.audio);
    let mut reading = Reading { files: vec![file.path.clone()], ..Reading::default() };
    let (mut rows, mut left_out, mut texts) = (Vec::with_capacity(lines.len()), Vec::new(), false);
    let prefix = prefix_of(dir);
    for line in &lines {
        let place = format!("metadata.csv:{}", line.number);
        if line.number == 1 && file.text(line).is_ok_and(is_header) {
            continue;
        }
        let row = file.text(line).map_err(|problem| format!("metadata.csv {problem}")).and_then(|text| {
            texts |= text.split('|').skip(1).any(|field| !field.trim().is_empty());
            parse(text).map_err(|problem| format!("bad line in metadata.csv: line {} {problem}", line.number))
        });
        let found = row.and_then(|(name, text)| Ok((recordings.find(name, &place)?, name, text)));
        match found {
            Ok(((recording, others), name, text)) => {
                let path = recording.map_or_else(|| missing(name), str::to_owned);
                left_out.extend(others.iter().map(|other| ((*other).to_owned(), path.clone())));
                let origin = name_of(name);
                rows.push(Candidate {
                    id: ids::of_path(origin),
                    origin: Some(origin.to_owned()),
                    speaker: Some(options.speaker.unwrap_or(SPEAKER).to_owned()),
                    text: text.map_err(|problem| format!("bad line in metadata.csv: line {} {problem}", line.number)),
                    language: None,
                    wav: joined(&prefix, &path),
                    start: None,
                    end: None,
                    duration: None,
                    place,
                });
            }
            Err(reason) => {
                let shown = file.lossy(line);
                reading.reject(name_of(shown.split('|').next().unwrap_or_default().trim()), reason);
            }
        }
    }
    let unlisted = unlisted(&listing, &rows, &reading, &prefix, &left_out);
    reading.rejected.extend(unlisted);
    reading.warnings.extend(left_out_warning(&left_out));
    Ok(reading.take(rows, texts, options, ""))
}

/// Whether a line names the fields, as some tools write it first.
fn is_header(line: &str) -> bool {
    let mut fields = line.split('|').map(|field| field.trim().to_ascii_lowercase());
    let first = fields.next().is_some_and(|name| is_name_of("audio", &name) || is_name_of("id", &name));
    first && fields.next().is_some_and(|name| is_name_of("text", &name))
}

/// A line's id, and its text or why there is none.
type Parsed<'a> = (&'a str, Result<String, String>);

/// Splits a line into its id and its text.
fn parse(line: &str) -> Result<Parsed<'_>, String> {
    let mut fields = line.split('|').map(str::trim);
    let id = fields.next().unwrap_or_default();
    let (raw, normalised) = (fields.next(), fields.next());
    if id.is_empty() {
        return Err("has no id before the first `|`".into());
    }
    if fields.next().is_some() {
        return Err("has more than three fields (id|text|normalised text)".into());
    }
    let Some(raw) = raw else {
        let problem = "has no `|`; a line is `id|text|normalised text`";
        let words = id.contains([',', '\t', ' ']);
        return if words { Err(problem.into()) } else { values::id(id).map(|()| (id, Err(problem.into()))) };
    };
    values::path(id).map_err(|problem| format!("has a bad path: {problem}"))?;
    values::id(id)?;
    let text = normalised.filter(|text| !text.is_empty()).unwrap_or(raw);
    let text = values::transcript(text)?.map(Cow::into_owned);
    Ok((id, text.ok_or_else(|| "has an id but no text".into())))
}

/// The first field without `./`, `wavs/` and a recording's extension.
fn name_of(name: &str) -> &str {
    let name = name.strip_prefix("./").unwrap_or(name);
    let name = name.strip_prefix("wavs/").unwrap_or(name);
    if media::rank(extension(name)).is_some() { stem(name) } else { name }
}

/// Where the recording of a row without one should be.
fn missing(name: &str) -> String {
    let extension = if media::rank(extension(name)).is_some() { "" } else { ".wav" };
    let folder = if name.contains('/') { "" } else { "wavs/" };
    format!("{folder}{name}{extension}")
}

/// The recordings below a directory, found by their names.
struct Recordings<'a> {
    /// Path without extension to the paths.
    by_stem: BTreeMap<&'a str, Vec<&'a str>>,
}

/// A recording, if there is one, and those that are left out for it.
type Found<'a> = (Option<&'a str>, Vec<&'a str>);

impl<'a> Recordings<'a> {
    fn of(paths: &'a [String]) -> Self {
        let mut by_stem: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for path in paths {
            by_stem.entry(stem(path)).or_default().push(path);
        }
        Self { by_stem }
    }

    /// The recording that a line names: a file of exactly this name, or of this name and an extension.
    fn find(&self, name: &str, place: &str) -> Result<Found<'a>, String> {
        let name = name.strip_prefix("./").unwrap_or(name);
        for path in [format!("wavs/{name}"), name.to_owned()] {
            let exact = self.by_stem.get(stem(&path)).and_then(|paths| paths.iter().find(|found| **found == path));
            if let Some(exact) = exact {
                return Ok((Some(exact), Vec::new()));
            }
            if let Some(paths) = self.by_stem.get(path.as_str()) {
                return preferred(paths, place);
            }
        }
        Ok((None, Vec::new()))
    }
}

/// The first of several recordings of one name in the order of [`media::EXTENSIONS`]; two of one extension cannot be told apart.
fn preferred<'a>(paths: &[&'a str], place: &str) -> Result<Found<'a>, String> {
    let rank = |path: &str| media::rank(extension(path)).unwrap_or(usize::MAX);
    let mut paths = paths.to_vec();
    paths.sort_by_key(|path| (rank(path), *path));
    match paths.as_slice() {
        [one, two, ..] if rank(one) == rank(two) => Err(format!(
            "two recordings: {place} may mean {one} or {two}; write the one that is meant, with its extension"
        )),
        [one, others @ ..] => Ok((Some(one), others.to_vec())),
        [] => Ok((None, Vec::new())),
    }
}

/// Rejections of recordings in `wavs/` that no line names, good or bad.
fn unlisted(
    listing: &Listing,
    rows: &[Candidate],
    reading: &Reading,
    prefix: &str,
    left_out: &[(String, String)],
) -> Vec<Rejection> {
    let named = rows.iter().map(|row| stem(row.wav.strip_prefix(prefix).unwrap_or(&row.wav)));
    let left = left_out.iter().map(|(path, _)| stem(path));
    let bad: Vec<String> = reading.rejected.iter().map(|rejection| format!("wavs/{}", rejection.id)).collect();
    let named: BTreeSet<&str> = named.chain(left).chain(bad.iter().map(String::as_str)).collect();
    let reason = |path: &String| format!("not in metadata.csv: {path} is named by no line");
    let audio = listing.audio.iter().filter(|path| !named.contains(stem(path))).map(|path| (path, reason(path)));
    let unusable = listing.unusable.iter().map(|(path, reason)| (path, reason.clone()));
    audio
        .chain(unusable)
        .filter(|(path, _)| path.starts_with("wavs/"))
        .map(|(path, reason)| Rejection { id: ids::of_path(name_of(path)), reason })
        .collect()
}
