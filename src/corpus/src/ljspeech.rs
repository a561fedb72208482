//! The LJSpeech layout: `metadata.csv` with `id|text|normalised text`, recordings in `wavs/`.
//!
//! The file is not CSV in the usual sense: fields are parted by `|` and quotes are ordinary characters.

mod columns;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use flowmill_audio::media;

use crate::folder::{self, Listing};
use crate::lines::TextFile;
use crate::paths::{joined, prefix_of};
use crate::reading::Candidate;
use crate::samples::{extension, left_out_warning, stem};
use crate::{CorpusError, ReadOptions, Reading, Rejection, ids};
use columns::Columns;

/// The speaker of a source that names none.
const SPEAKER: &str = "ljspeech";

/// Reads `dir/metadata.csv`. The text is the third field where it is there and not empty, else the second; every utterance has the
/// one speaker given. A first line that names the fields says otherwise ([`Columns`]).
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
    let first = lines.first().and_then(|line| file.text(line).ok()).unwrap_or_default();
    let header = Columns::of_header(first, |name| recordings.find(name, "").is_ok_and(|(found, _)| found.is_none()));
    let header = header.map_err(|problem| CorpusError::structure(&file.path, problem))?;
    let has_header = header.is_some();
    let columns = header.unwrap_or_default();
    reading.warnings.extend(columns.unread_warning());
    // File names of lines that name no recording, each with how often.
    let mut vague: BTreeMap<String, usize> = BTreeMap::new();
    for line in lines.iter().skip(usize::from(has_header)) {
        let place = format!("metadata.csv:{}", line.number);
        let row = file.text(line).map_err(|problem| format!("metadata.csv {problem}")).and_then(|text| {
            texts |= columns.texts(text).next().is_some();
            columns.parse(text).map_err(|problem| format!("bad line in metadata.csv: line {} {problem}", line.number))
        });
        let found = row.and_then(|row| Ok((recordings.find(row.audio, &place)?, row)));
        if !matches!(found, Ok(((Some(_), _), _))) {
            let shown = file.lossy(line);
            let name = columns.audio(&shown);
            if recordings.find(name, &place).is_ok_and(|(found, _)| found.is_none()) {
                *vague.entry(vague_name(name)).or_default() += 1;
            }
        }
        match found {
            Ok(((recording, others), row)) => {
                let path = recording.map_or_else(|| missing(row.audio), str::to_owned);
                left_out.extend(others.iter().map(|other| ((*other).to_owned(), path.clone())));
                let origin = row.id.unwrap_or_else(|| name_of(row.audio));
                let given = row.id.is_some();
                rows.push(Candidate {
                    id: if given { origin.to_owned() } else { ids::of_path(origin) },
                    origin: (!given).then(|| origin.to_owned()),
                    speaker: Some(row.speaker.or(options.speaker).unwrap_or(SPEAKER).to_owned()),
                    text: row
                        .text
                        .map_err(|problem| format!("bad line in metadata.csv: line {} {problem}", line.number)),
                    language: row.language.map(str::to_owned),
                    wav: joined(&prefix, &path),
                    start: None,
                    end: None,
                    duration: None,
                    place,
                });
            }
            Err(reason) => {
                let shown = file.lossy(line);
                reading.reject(columns.id(&shown).unwrap_or_else(|| name_of(columns.audio(&shown))), reason);
            }
        }
    }
    let unlisted = unlisted(&listing, &rows, &reading, &prefix, &left_out, vague);
    reading.rejected.extend(unlisted);
    reading.warnings.extend(listing.folders_warning());
    reading.warnings.extend(left_out_warning(&left_out));
    Ok(reading.take(rows, texts, options, ""))
}

/// The first field without `./`, `wavs/` and a recording's extension.
fn name_of(name: &str) -> &str {
    let name = name.strip_prefix("./").unwrap_or(name);
    let name = name.strip_prefix("wavs/").unwrap_or(name);
    if media::rank(extension(name)).is_some() { stem(name) } else { name }
}

/// A recording's name as a line may mean it that writes it otherwise: without folders (also those of Windows), quotes, extension
/// and case.
fn vague_name(name: &str) -> String {
    let name = name.trim_matches(['"', '\'']).replace('\\', "/");
    name_of(name.rsplit('/').next().unwrap_or_default()).to_lowercase()
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
    mut vague: BTreeMap<String, usize>,
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
        // A line that seems to mean a recording is rejected already: the two are one utterance.
        .filter(|(path, _)| match vague.get_mut(&vague_name(path)) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        })
        .map(|(path, reason)| Rejection { id: ids::of_path(name_of(path)), reason })
        .collect()
}
