//! Prepared data of neural codecs, as the public VALL-E trainer keeps them: rows without recordings.
//!
//! | form | content |
//! |---|---|
//! | `GROUP/SPEAKER/NAME.enc`, `.dac` (or `.nem`) | a folder of NumPy files, each a dictionary of codes and metadata |
//! | `data.h5` | one HDF5 file with a group `training/GROUP/SPEAKER/NAME` for each |
//!
//! A row has the medium [`Role::Codes`](crate::Role), and text, language and duration from the metadata. Its id is the path with `-` between the
//! parts, its speaker the path of its folder. An extractor reads the codes.

mod artifact;
mod hdf5;
mod lzf;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Map, Value};

pub use artifact::{Artifact, Codes};

use crate::fields::Object;
use crate::manifest::columns;
use crate::paths::{joined, prefix_of};
use crate::reading::Candidate;
use crate::samples::{extension, stem};
use crate::utterances::Extra;
use crate::walk::{Walk, walk};
use crate::{CorpusError, MediaRef, ReadOptions, Reading, Role, ids, values};

/// The endings of files of codes: of EnCodec, of the Descript codec, of NeMo's.
pub const EXTENSIONS: [&str; 3] = ["enc", "dac", "nem"];

/// The separator between an HDF5 file and a group in it.
const IN_FILE: [&str; 2] = [".h5#", ".hdf5#"];

/// The first bytes of a file of codes.
const MAGIC: &[u8] = b"\x93NUMPY";

/// A group of an HDF5 file, written as `data.h5#training/GROUP/SPEAKER/NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hdf5Group<'a> {
    /// The file's path, relative to the recipe's folder or absolute.
    pub file: &'a str,
    /// The group's path.
    pub group: &'a str,
}

impl<'a> Hdf5Group<'a> {
    /// Parses the group that a text names, if it names one.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (at, separator) = IN_FILE.iter().filter_map(|separator| Some((text.find(separator)?, separator))).min()?;
        let end = at + separator.len();
        Some(Self { file: &text[..end - 1], group: &text[end..] })
    }

    /// Reads the codes of the utterance as a NumPy file.
    ///
    /// # Errors
    /// When the file cannot be read, or the utterance is not there.
    pub(crate) fn read(&self, root: &Path) -> Result<Vec<u8>, CorpusError> {
        hdf5::read(&root.join(self.file), self.group)
    }
}

/// Returns whether a file with these first bytes holds codes.
pub fn is_codes(head: &[u8]) -> bool {
    head.starts_with(MAGIC) || head.starts_with(hdf5::MAGIC)
}

/// The files of a source.
#[derive(Debug, Default)]
pub struct Listing {
    /// Paths of files of codes below the folder; the HDF5 file itself of a source that is one.
    pub files: Vec<PathBuf>,
    /// The paths of files in a folder as text, relative to the folder.
    paths: Vec<String>,
    /// Files whose names make them unusable, each with the reason.
    unusable: Vec<(String, String)>,
    /// The number of other files by kind.
    others: BTreeMap<String, u64>,
}

/// Returns the HDF5 file and the group that a source names, if it names a file: `data.h5`, or `data.h5#training`.
fn container(dir: &str) -> Option<Hdf5Group<'_>> {
    let is_file = |dir: &str| ["h5", "hdf5"].contains(&extension(dir).to_ascii_lowercase().as_str());
    Hdf5Group::parse(dir).or_else(|| is_file(dir).then_some(Hdf5Group { file: dir, group: "" }))
}

/// Returns the folder or the file of a source, without the group that it may name.
pub fn place(dir: &str) -> &str {
    container(dir).map_or(dir, |group| group.file)
}

/// Lists the files of a source; `root` is the recipe's folder and `dir` the source as the recipe names it.
///
/// # Errors
/// [`CorpusError::Structure`] when it is neither a folder nor an HDF5 file, [`CorpusError::Io`] when it cannot be listed.
pub fn list(root: &Path, dir: &str) -> Result<Listing, CorpusError> {
    if let Some(group) = container(dir) {
        let path = root.join(group.file);
        return match path.is_file() {
            true => Ok(Listing { files: vec![path], ..Listing::default() }),
            false => Err(CorpusError::structure(&path, "is not a file; an HDF5 file of codes is expected here")),
        };
    }
    let folder = root.join(dir);
    if !folder.is_dir() {
        let problem = "is not a directory; a folder of .enc or .dac files, or an HDF5 file (data.h5) is expected here";
        return Err(CorpusError::structure(&folder, problem));
    }
    let Walk { files, .. } = walk(&folder)?;
    let mut listing = Listing::default();
    for file in files.into_iter().filter(|file| !file.is_hidden && !file.in_hidden) {
        let ending = extension(&file.path).to_ascii_lowercase();
        if !EXTENSIONS.contains(&ending.as_str()) {
            *listing.others.entry(crate::folder::other_kind(&file.path)).or_default() += 1;
        } else if !file.is_utf8 {
            let reason = format!("bad name: the name of {} is not UTF-8; rename it", file.path);
            listing.unusable.push((file.path, reason));
        } else {
            listing.files.push(file.place);
            listing.paths.push(file.path);
        }
    }
    Ok(listing)
}

/// Reads the rows of a source.
///
/// # Errors
/// See [`list`]; [`CorpusError::Structure`] when there is no file of codes, or for an HDF5 file that cannot be read.
pub fn read_source(root: &Path, dir: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let Listing { files, paths, unusable, others } = list(root, dir)?;
    let mut reading = Reading { files: files.clone(), ..Reading::default() };
    let found: Vec<Found> = match container(dir) {
        Some(Hdf5Group { file, group }) => {
            let entries = hdf5::entries(&root.join(file), group)?;
            let place = |key: &str| match group {
                "" => format!("{file}#{key}"),
                group => format!("{file}#{group}/{key}"),
            };
            entries.into_iter().map(|hdf5::Entry { key, metadata }| (place(&key), key, metadata)).collect()
        }
        None => {
            let prefix = prefix_of(dir);
            let read = |(path, file): (&String, &PathBuf)| {
                let metadata = fs::read(file)
                    .map_err(|error| format!("cannot be read: {error}"))
                    .and_then(|bytes| Artifact::of(&bytes, file))
                    .map(|artifact| artifact.metadata);
                (joined(&prefix, path), stem(path).to_owned(), metadata)
            };
            paths.par_iter().zip(&files).map(read).collect()
        }
    };
    if found.is_empty() && unusable.is_empty() {
        return Err(CorpusError::structure(&root.join(dir), "contains no file of codes (.enc, .dac)"));
    }
    let own_name = place(dir).trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    unusable.iter().for_each(|(path, reason)| reading.reject(path, reason.clone()));
    let (mut rows, mut texts) = (Vec::with_capacity(found.len()), false);
    for found in found {
        let id = ids::of_path(&found.1);
        match row(found, stem(own_name), options) {
            Ok(row) => {
                texts |= row.text.is_ok();
                rows.push(row);
            }
            Err(reason) => reading.reject(&id, reason),
        }
    }
    if !others.is_empty() {
        let kinds: Vec<String> = others.iter().take(20).map(|(kind, count)| format!("{count} {kind}")).collect();
        reading.warnings.push(format!("files that hold no codes: {}", kinds.join(", ")));
    }
    Ok(reading.take(rows, texts, options, "; rename one"))
}

/// The place of codes, the path of their row below the source, and their metadata.
type Found = (String, String, Result<Map<String, Value>, String>);

/// Returns the row of an utterance; `own_name` is the speaker of files that are in no folder.
fn row((medium, key, metadata): Found, own_name: &str, options: &ReadOptions<'_>) -> Result<Candidate, String> {
    let bad = |problem: String| format!("bad file of codes: {medium} {problem}");
    let mut metadata = metadata.map_err(bad)?;
    let seconds = artifact::seconds(&metadata);
    clean_phonemes(&mut metadata);
    let object = Object::from(metadata);
    let fields = object.fields().map_err(bad)?;
    let id = ids::of_path(&key);
    values::id(&id).map_err(bad)?;
    let text = values::transcript(fields.text.as_deref().unwrap_or_default()).map_err(bad)?.map(Cow::into_owned);
    let columns = columns(&object, options).map_err(bad)?;
    let media = BTreeMap::from([(Role::Codes, vec![MediaRef(medium.clone())])]);
    let folder = key.rsplit_once('/').map_or_else(|| own_name.to_owned(), |(folder, _)| ids::of_path(folder));
    Ok(Candidate {
        id,
        origin: Some(key),
        speaker: Some(fields.speaker.unwrap_or(folder)),
        text: text.ok_or_else(|| format!("{medium} has no text")),
        // The trainer writes `auto` where it left the language to its phonemizer.
        language: fields.language.filter(|language| language != "auto"),
        wav: String::new(),
        start: None,
        end: None,
        duration: seconds,
        split: None,
        extra: Some(Box::new(Extra { media, columns, ..Extra::default() })),
        place: medium,
    })
}

/// Converts phonemes to the form in which the trainer reads them: one text, without marks of words in other languages.
fn clean_phonemes(metadata: &mut Map<String, Value>) {
    let Some(phonemes) = metadata.get_mut("phonemes") else { return };
    let joined = match &*phonemes {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts.iter().map(Value::as_str).collect(),
        _ => None,
    };
    if let Some(text) = joined {
        *phonemes = Value::String(artifact::without_switches(&text));
    }
}
