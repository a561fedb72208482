//! The LJSpeech layout: `metadata.csv` with `id|text|normalized text`, recordings in `wavs/`.
//!
//! The file is not CSV in the usual sense: fields are separated by `|` and quotes are ordinary characters.

mod columns;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use flowmill_audio::media;

use crate::delimited::Table;
use crate::folder::{self, Listing};
use crate::lines::TextFile;
use crate::paths::{joined, prefix_of};
use crate::reading::Candidate;
use crate::samples::{extension, left_out_warning, stem};
use crate::{CorpusError, ReadOptions, Reading, Rejection, ids, values};
use columns::Columns;

/// The speaker of a source that names none.
const SPEAKER: &str = "ljspeech";

/// Reads `dir/metadata.csv`. The text is the third field if it exists and is not empty, otherwise the second. Every
/// utterance has the given speaker. A first line that names the fields changes this ([`Columns`]).
///
/// The first field names the recording: `ID`, `ID.wav` or a path below the directory or its `wavs/`. It is the file
/// with exactly this name, or with this name and a recording's extension; of several, the one that comes first in
/// [`media::EXTENSIONS`]. If there is none, the row names `wavs/ID.wav`, so that the probe names the missing file.
///
/// # Errors
/// [`CorpusError::Structure`] when there is no `metadata.csv` with lines of its kind; [`CorpusError::Io`] when a file cannot be read.
pub fn read_directory(root: &Path, dir: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let dir = &directory(root, dir);
    let file = metadata(&root.join(dir))?;
    let lines = file.lines();
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
    // File names of lines that name no recording, with their counts.
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
            let name = name_in(columns.audio(&shown));
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
                    split: None,
                    extra: None,
                    place,
                });
            }
            Err(reason) => {
                let shown = file.lossy(line);
                reading.reject(columns.id(&shown).unwrap_or_else(|| name_of(name_in(columns.audio(&shown)))), reason);
            }
        }
    }
    let unlisted = unlisted(&listing, &rows, &reading, &prefix, &mut left_out, vague);
    reading.rejected.extend(unlisted);
    reading.warnings.extend(listing.folders_warning());
    reading.warnings.extend(left_out_warning(&left_out));
    Ok(reading.take(rows, texts, options, ""))
}

/// Returns the directory with `metadata.csv`: the named one, or the only one in it that has recordings, such as `LJSpeech-1.1`.
pub fn directory(root: &Path, dir: &str) -> String {
    if root.join(dir).join("metadata.csv").exists() {
        return dir.to_owned();
    }
    let Ok(listing) = folder::list(root, dir) else { return dir.to_owned() };
    let mut folders = listing.audio.iter().map(|path| path.split_once('/').map(|(folder, _)| folder));
    let Some(Some(first)) = folders.next() else { return dir.to_owned() };
    let is_only =
        folders.all(|folder| folder == Some(first)) && root.join(dir).join(first).join("metadata.csv").exists();
    if is_only { joined(&prefix_of(dir), first) } else { dir.to_owned() }
}

/// Returns the ids of the recordings of a directory. They are the rows of a directory that cannot be read as a whole.
pub fn ids(root: &Path, dir: &str) -> Vec<String> {
    let dir = &directory(root, dir);
    let listing = folder::list(root, dir).unwrap_or_default();
    listing.audio.iter().map(|path| ids::of_path(name_of(path))).collect()
}

/// Reads the metadata of a directory, which must contain a line.
fn metadata(folder: &Path) -> Result<TextFile, CorpusError> {
    const HOLDS: &str = "lines of `id|text|normalized text`";
    let packed = || match folder.join("metadata.csv.gz").exists() {
        true => "; there is a compressed one: decompress it once with `gunzip`",
        false => "",
    };
    let absent = || CorpusError::structure(folder, format!("has no `metadata.csv` ({HOLDS}){}", packed()));
    if !folder.is_dir() {
        return Err(CorpusError::structure(
            folder,
            "is not a directory; one with `metadata.csv` and `wavs/` is expected here",
        ));
    }
    let file = TextFile::open(folder, "metadata.csv")?.ok_or_else(absent)?;
    let first = match file.lines().first() {
        None => return Err(CorpusError::structure(&file.path, format!("is empty; it should contain {HOLDS}"))),
        Some(line) => file.lossy(line),
    };
    if first.starts_with('{') {
        let problem = "contains JSON; `format: manifest` reads it if `dir` names the file";
        return Err(CorpusError::structure(&file.path, problem));
    }
    if let Some(table) = Table::of(&first).filter(Table::is_csv) {
        let problem = format!("contains no lines of `id|text`: {}", table.advice("metadata.csv"));
        return Err(CorpusError::structure(&file.path, problem));
    }
    Ok(file)
}

/// Returns the first field without `./`, `wavs/` and a recording's extension.
fn name_of(name: &str) -> &str {
    let name = name.strip_prefix("./").unwrap_or(name);
    let name = name.strip_prefix("wavs/").unwrap_or(name);
    if media::rank(extension(name)).is_some() { stem(name) } else { name }
}

/// Returns the name in the first field of a line, even if the fields are not separated by `|`.
fn name_in(field: &str) -> &str {
    let name = field.split([',', ';', '\t']).next().unwrap_or_default().trim();
    if name.is_empty() { field } else { name }
}

/// Simplifies a recording's name for comparison with lines that write it differently: removes folders (also those of
/// Windows), quotes and the extension, and ignores case.
fn vague_name(name: &str) -> String {
    let name = name.trim_matches(['"', '\'']).replace('\\', "/");
    name_of(name.rsplit('/').next().unwrap_or_default()).to_lowercase()
}

/// Returns the path that the recording of a row without one should have.
fn missing(name: &str) -> String {
    let extension = if media::rank(extension(name)).is_some() { "" } else { ".wav" };
    let folder = if name.contains('/') { "" } else { "wavs/" };
    format!("{folder}{name}{extension}")
}

/// The recordings below a directory, found by their names.
struct Recordings<'a> {
    /// Path without extension to the paths.
    by_stem: BTreeMap<&'a str, Vec<&'a str>>,
    /// Paths by name, for names with letters beyond ASCII, in one Unicode form and without extension and `wavs/`.
    by_form: BTreeMap<String, Vec<&'a str>>,
}

/// A recording, if there is one, and those that are left out in favor of it.
type Found<'a> = (Option<&'a str>, Vec<&'a str>);

impl<'a> Recordings<'a> {
    fn of(paths: &'a [String]) -> Self {
        let mut by_stem: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut by_form: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for path in paths {
            by_stem.entry(stem(path)).or_default().push(path);
            if !path.is_ascii() {
                by_form.entry(values::one_form(name_of(path)).into_owned()).or_default().push(path);
            }
        }
        Self { by_stem, by_form }
    }

    /// Returns the recording that a line names: a file with exactly this name, or with this name and an extension.
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
        if name.is_ascii() {
            return Ok((None, Vec::new()));
        }
        // The same name in another Unicode form.
        let form = values::one_form(name_of(name));
        self.by_form.get(form.as_ref()).map_or(Ok((None, Vec::new())), |paths| preferred(paths, place))
    }
}

/// Returns the first of several recordings with one name in the order of [`media::EXTENSIONS`]. Two with one
/// extension are an error.
fn preferred<'a>(paths: &[&'a str], place: &str) -> Result<Found<'a>, String> {
    let rank = |path: &str| media::rank(extension(path)).unwrap_or(usize::MAX);
    let mut paths = paths.to_vec();
    paths.sort_by_key(|path| (rank(path), *path));
    match paths.as_slice() {
        [one, two, ..] if rank(one) == rank(two) => {
            Err(format!("two recordings: {place} may mean {one} or {two}; write the intended one with its extension"))
        }
        [one, others @ ..] => Ok((Some(one), others.to_vec())),
        [] => Ok((None, Vec::new())),
    }
}

/// Returns rejections of recordings that no line names, good or bad, and recordings that are left out for another
/// format of the same utterance, each with the one that is taken.
fn unlisted(
    listing: &Listing,
    rows: &[Candidate],
    reading: &Reading,
    prefix: &str,
    left_out: &mut Vec<(String, String)>,
    mut vague: BTreeMap<String, usize>,
) -> Vec<Rejection> {
    let taken: BTreeSet<&str> = rows.iter().map(|row| row.wav.strip_prefix(prefix).unwrap_or(&row.wav)).collect();
    let by_stem: BTreeMap<&str, &str> = taken.iter().map(|path| (stem(path), *path)).collect();
    let bad: BTreeSet<String> = reading.rejected.iter().map(|rejection| format!("wavs/{}", rejection.id)).collect();
    let known: BTreeSet<String> = left_out.iter().map(|(path, _)| path.clone()).collect();
    let mut rejected = Vec::new();
    for path in listing.audio.iter().filter(|path| !taken.contains(path.as_str()) && !known.contains(*path)) {
        if let Some(taken) = by_stem.get(stem(path)) {
            // A row with a missing recording is rejected for that.
            if listing.audio.binary_search_by(|there| there.as_str().cmp(taken)).is_ok() {
                left_out.push((path.clone(), (*taken).to_owned()));
            }
        } else if !bad.contains(stem(path)) {
            rejected.push((path, format!("not in metadata.csv: {path} is named by no line")));
        }
    }
    let unusable = listing.unusable.iter().map(|(path, reason)| (path, reason.clone()));
    // A line that seems to mean a recording is rejected already; the two are one utterance.
    let mut is_meant = |path: &str| match vague.get_mut(&vague_name(path)) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    };
    rejected.extend(unusable);
    rejected.retain(|(path, _)| !is_meant(path));
    rejected.into_iter().map(|(path, reason)| Rejection { id: ids::of_path(name_of(path)), reason }).collect()
}
