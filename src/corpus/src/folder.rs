//! A folder of recordings with their transcripts beside them: `x.wav` with `x.txt`, `x.lab` or `x.json`.
//!
//! Subfolders are searched too. Recordings are known by their extension, whatever its case, or by their content. The id is the path
//! below the folder without its extension, `/` replaced by `-`; the speaker is what `x.json` or `x.speaker.txt` says, or else the
//! name of the subfolder the recording lies in, or the folder's own name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;

use flowmill_audio::media;
use rayon::prelude::*;

use crate::paths::{joined, prefix_of};
use crate::samples::{self, File, Look, Precedence, Sample, Store, extension, stem};
use crate::{CorpusError, ReadOptions, Reading, Rejection, ids};

/// How folders are counted that are not searched.
const LINKS: &str = "links to folders, which are not followed";
const HIDDEN: &str = "hidden folders, which are not searched";

/// Names of text files that are about a corpus unless a recording is called so too, in lower case and without their extension.
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
    /// Recordings that cannot be read for their names, each with the reason.
    pub unusable: Vec<(String, String)>,
    /// How many files of which other kinds there are.
    pub others: BTreeMap<String, u64>,
}

/// Lists a folder and its subfolders; hidden subfolders are only counted.
///
/// # Errors
/// [`CorpusError::Structure`] when it is no directory, [`CorpusError::Io`] when it cannot be listed.
pub fn list(root: &Path, dir: &str) -> Result<Listing, CorpusError> {
    let folder = root.join(dir);
    if !folder.is_dir() {
        return Err(CorpusError::structure(&folder, "is no directory; a folder of recordings is expected here"));
    }
    let (mut listing, mut about) = (Listing::default(), Vec::new());
    let mut waiting = vec![String::new()];
    while let Some(below) = waiting.pop() {
        let place = folder.join(&below);
        for entry in fs::read_dir(&place).map_err(|e| CorpusError::io("list", &place, e))? {
            let entry = entry.map_err(|e| CorpusError::io("list", &place, e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{below}{name}");
            let kind = entry.file_type().map_err(|e| CorpusError::io("list", &entry.path(), e))?;
            // Links to files count as files; links to folders are not followed, so that no listing runs in circles.
            if kind.is_dir() {
                if name.starts_with('.') {
                    *listing.others.entry(HIDDEN.into()).or_default() += 1;
                } else {
                    waiting.push(format!("{path}/"));
                }
            } else if kind.is_symlink() && entry.path().is_dir() {
                *listing.others.entry(LINKS.into()).or_default() += 1;
            } else if samples::look(&name) == Look::Text && ABOUT.contains(&stem(&name).to_ascii_lowercase().as_str()) {
                about.push((path, entry.file_name().to_str().is_some()));
            } else {
                listing.add(path, &entry.path(), entry.file_name().to_str().is_some());
            }
        }
    }
    listing.audio.sort_unstable();
    let stems: BTreeSet<&str> = listing.audio.iter().map(|path| stem(path)).collect();
    for (path, is_utf8) in about {
        if is_utf8 && stems.contains(stem(&path)) {
            listing.text.push(path);
        } else {
            *listing.others.entry(other_kind(&path)).or_default() += 1;
        }
    }
    listing.text.sort_unstable();
    listing.unusable.sort_unstable();
    Ok(listing)
}

impl Listing {
    /// A warning about folders that are not searched.
    pub(crate) fn folders_warning(&self) -> Option<String> {
        let count = |kind: &str| self.others.get(kind).map(|count| format!("{count} {kind}"));
        let counts: Vec<String> = [LINKS, HIDDEN].into_iter().filter_map(count).collect();
        (!counts.is_empty()).then(|| format!("what lies in these is not read: {}", counts.join(", ")))
    }

    /// Notes a file where it belongs.
    fn add(&mut self, path: String, file: &Path, is_utf8: bool) {
        let name = path.rsplit('/').next().unwrap_or(&path);
        let look = match samples::look(name) {
            _ if name.starts_with('.') => {
                if is_media(file) {
                    Look::Media
                } else {
                    return;
                }
            }
            Look::Other if is_media(file) => Look::Media,
            look => look,
        };
        match look {
            Look::Media if name.starts_with('.') => {
                let reason = format!("hidden recording: the name of {path} begins with a dot; rename or delete it");
                self.unusable.push((path, reason));
            }
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

/// How a file that is neither recording nor transcript is counted.
pub(crate) fn other_kind(name: &str) -> String {
    match extension(name) {
        "" => "without an extension".into(),
        extension => format!(".{}", extension.chars().take(20).collect::<String>().to_ascii_lowercase()),
    }
}

/// Whether a file's content is that of a recording; one that cannot be read is none.
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

/// Reads a folder of recordings with transcripts beside them.
///
/// `root` is the recipe's folder and `dir` the folder as the recipe names it; the paths of the result are relative to `root`.
///
/// # Errors
/// As [`list`], and [`CorpusError::Structure`] when there is no recording.
pub fn read_directory(root: &Path, dir: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let listing = list(root, dir)?;
    let folder = root.join(dir);
    if listing.audio.is_empty() && listing.unusable.is_empty() {
        return Err(CorpusError::structure(&folder, "holds no recording, neither by extension nor by content"));
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
    let read: Vec<_> = samples.par_iter().map(|(key, sample)| candidate(key, sample, &store)).collect();
    let mut reading =
        Reading { files: listing.text.iter().map(|path| folder.join(path)).collect(), ..Reading::default() };
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

/// The row of a group of files, its recording, and the recordings that are left out for it.
fn candidate<'s>(
    key: &str,
    sample: &'s Sample,
    store: &Folder<'_>,
) -> Result<(crate::reading::Candidate, &'s File, Vec<&'s File>), String> {
    let (recording, others) = sample.recording(store)?;
    let mut row = sample.candidate(key, recording, store, Precedence { text_file_first: true })?;
    row.id = ids::of_path(key);
    crate::values::id(&row.id).map_err(|problem| format!("bad id: {} {problem}", recording.name))?;
    Ok((row, recording, others))
}
