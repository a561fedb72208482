//! Folders of recordings with a transcript next to each: `x.wav` with `x.txt`, `x.lab` or `x.json`.
//!
//! Subfolders are searched too. Recordings are recognized by their extension, in upper or lower case, or by their
//! content. The id is the path below the folder without its extension, with `/` replaced by `-`. The speaker comes
//! from `x.json` or `x.speaker.txt`; by default it is the name of the subfolder that contains the recording, or the
//! folder's own name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;

use flowmill_audio::media;
use rayon::prelude::*;

use crate::paths::{joined, prefix_of};
use crate::samples::{self, File, Look, Precedence, Sample, Store, extension, stem};
use crate::walk::{FoundFile, Walk, walk};
use crate::{CorpusError, ReadOptions, Reading, Rejection, ids};

/// Names of text files that usually describe a corpus, in lower case and without their extension. They are
/// transcripts only if a recording has the same name.
const ABOUT: [&str; 12] = [
    "readme",
    "license",
    "licence",
    "licenses",
    "copying",
    "copyright",
    "notice",
    "authors",
    "changelog",
    "changes",
    "citation",
    "version",
];

/// Files found below a folder, as sorted paths relative to it with `/` between their parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Paths of recordings.
    pub audio: Vec<String>,
    /// Paths of transcripts.
    pub text: Vec<String>,
    /// Recordings whose names make them unreadable, each with the reason.
    pub unusable: Vec<(String, String)>,
    /// The number of other files by kind.
    pub others: BTreeMap<String, u64>,
    /// The number of links to folders that are not followed because their targets are read already.
    pub links_back: u64,
    /// The number of hidden tool folders, which are not searched.
    pub of_tools: u64,
}

/// Lists a folder and its subfolders, links to folders included. Recordings in hidden folders are unusable.
///
/// # Errors
/// [`CorpusError::Structure`] when it is not a directory, [`CorpusError::Io`] when it cannot be listed.
pub fn list(root: &Path, dir: &str) -> Result<Listing, CorpusError> {
    let folder = root.join(dir);
    if !folder.is_dir() {
        return Err(CorpusError::structure(&folder, "is not a directory; a folder of recordings is expected here"));
    }
    let Walk { files, links_back, of_tools } = walk(&folder)?;
    let (mut listing, mut about) = (Listing { links_back, of_tools, ..Listing::default() }, Vec::new());
    for file in files {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        if !file.in_hidden
            && samples::look(name) == Look::Text
            && ABOUT.contains(&stem(name).to_ascii_lowercase().as_str())
        {
            about.push(file);
        } else {
            listing.add(file);
        }
    }
    let stems: BTreeSet<&str> = listing.audio.iter().map(|path| stem(path)).collect();
    for file in about {
        if file.is_utf8 && stems.contains(stem(&file.path)) {
            listing.text.push(file.path);
        } else {
            *listing.others.entry(other_kind(&file.path)).or_default() += 1;
        }
    }
    listing.text.sort_unstable();
    Ok(listing)
}

impl Listing {
    /// Returns a warning about folders that are not searched.
    pub(crate) fn folders_warning(&self) -> Option<String> {
        let kinds = [
            (self.links_back, "links to folders, which are read already or lead back to a parent folder"),
            (self.of_tools, "hidden folders of tools"),
        ];
        let counts = kinds.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}"));
        let counts: Vec<String> = counts.collect();
        (!counts.is_empty()).then(|| format!("not searched: {}", counts.join(", ")))
    }

    /// Adds a file to the list of its kind.
    fn add(&mut self, file: FoundFile) {
        let FoundFile { path, place, is_utf8, is_hidden, in_hidden } = file;
        let name = path.rsplit('/').next().unwrap_or(&path);
        let look = match samples::look(name) {
            _ if is_hidden && !is_media(&place) => return,
            Look::Other if is_media(&place) => Look::Media,
            look => look,
        };
        match look {
            Look::Media if is_hidden => {
                let reason = format!("hidden recording: the name of {path} begins with a dot; rename or delete it");
                self.unusable.push((path, reason));
            }
            Look::Media if in_hidden => {
                let reason = format!(
                    "hidden recording: {path} is in a folder whose name begins with a dot; rename or delete the folder"
                );
                self.unusable.push((path, reason));
            }
            _ if in_hidden => {}
            Look::Media | Look::Text if !is_utf8 => {
                let reason = format!("bad name: the name of {path} is not UTF-8; rename it");
                self.unusable.push((path, reason));
            }
            Look::Media => self.audio.push(path),
            Look::Text => self.text.push(path),
            Look::Other => *self.others.entry(other_kind(name)).or_default() += 1,
        }
    }
}

/// Returns the kind under which a file that is neither recording nor transcript is counted.
pub(crate) fn other_kind(name: &str) -> String {
    match extension(name) {
        "" => "without an extension".into(),
        extension => format!(".{}", extension.chars().take(20).collect::<String>().to_ascii_lowercase()),
    }
}

/// Returns whether a file's content is that of a recording; false for a file that cannot be read.
fn is_media(file: &Path) -> bool {
    let mut head = Vec::with_capacity(media::HEAD_BYTES);
    let read = fs::File::open(file).and_then(|file| file.take(media::HEAD_BYTES as u64).read_to_end(&mut head));
    read.is_ok() && media::by_content(&head).is_some()
}

/// The files of a folder.
struct Folder<'a>(&'a Path);

impl Store for Folder<'_> {
    fn read(&self, file: &File) -> Result<Vec<u8>, String> {
        fs::read(self.0.join(&file.name)).map_err(|e| format!("cannot be read: {e}"))
    }

    fn shown(&self, name: &str) -> String {
        name.to_owned()
    }
}

/// Reads a folder of recordings with a transcript next to each.
///
/// `root` is the recipe's folder and `dir` the folder as the recipe names it; the paths of the result are relative to `root`.
///
/// # Errors
/// See [`list`], and [`CorpusError::Structure`] if there is neither a recording nor a transcript.
pub fn read_directory(root: &Path, dir: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let listing = list(root, dir)?;
    let folder = root.join(dir);
    if listing.audio.is_empty() && listing.unusable.is_empty() && listing.text.is_empty() {
        return Err(CorpusError::structure(&folder, "contains no recording, neither by extension nor by content"));
    }
    let prefix = prefix_of(dir);
    let own_name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "speaker".into());
    let mut texts = listing.text.iter().any(|path| !extension(path).eq_ignore_ascii_case("json"));
    let file = |look: Look| {
        let folder = &folder;
        move |path: &String| {
            let size =
                if look == Look::Text { fs::metadata(folder.join(path)).map_or(0, |about| about.len()) } else { 0 };
            File { name: path.clone(), look, offset: 0, size }
        }
    };
    let files = listing.audio.iter().map(file(Look::Media)).chain(listing.text.iter().map(file(Look::Text)));
    let samples: Vec<(String, Sample)> = samples::by_last_dot(files.collect()).into_iter().collect();
    let store = Folder(&folder);
    let read: Vec<_> = samples.par_iter().map(|(key, sample)| candidate(key, sample, &store, options)).collect();
    let mut reading =
        Reading { files: listing.text.iter().map(|path| folder.join(path)).collect(), ..Reading::default() };
    reading.warnings.extend(listing.folders_warning());
    let unusable = listing.unusable.into_iter().map(|(path, reason)| Rejection { id: path, reason });
    reading.rejected.extend(unusable);
    let (mut rows, mut left_out, mut others) = (Vec::new(), Vec::new(), listing.others);
    for ((key, sample), outcome) in samples.iter().zip(read) {
        match outcome {
            Ok((mut row, recording, others)) => {
                texts |= row.text.is_ok();
                row.wav = joined(&prefix, &recording.name);
                row.speaker.get_or_insert_with(|| recording.name.rsplit('/').nth(1).unwrap_or(&own_name).to_owned());
                left_out.extend(others.iter().map(|other| (other.name.clone(), recording.name.clone())));
                rows.push(row);
            }
            // JSON alone may be anything, unless it has a transcript.
            Err(_) if sample.files.iter().all(|(rest, _)| rest.ends_with("json")) && !sample.json_has_text(&store) => {
                *others.entry(".json without a recording".into()).or_default() += sample.files.len() as u64;
            }
            Err(reason) => reading.reject(&ids::of_path(key), reason),
        }
    }
    if !others.is_empty() {
        let kinds: Vec<String> = others.iter().take(20).map(|(kind, count)| format!("{count} {kind}")).collect();
        reading.warnings.push(format!("files that are neither recording nor transcript: {}", kinds.join(", ")));
    }
    reading.warnings.extend(samples::left_out_warning(&left_out));
    Ok(reading.take(rows, texts, options, "; rename one"))
}

/// Returns the row of a group of files, its recording, and the recordings that are left out in favor of it.
fn candidate<'s>(
    key: &str,
    sample: &'s Sample,
    store: &Folder<'_>,
    options: &ReadOptions<'_>,
) -> Result<(crate::reading::Candidate, &'s File, Vec<&'s File>), String> {
    let (recording, others) = sample.recording(store, options)?;
    let mut row = sample.candidate(key, recording, store, Precedence { text_file_first: true }, options)?;
    row.id = ids::of_path(key);
    crate::values::id(&row.id).map_err(|problem| format!("bad id: {} {problem}", recording.name))?;
    Ok((row, recording, others))
}
