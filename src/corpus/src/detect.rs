//! The format of a source, told by its files.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::delimited::Table;
use crate::samples::{Look, extension, look};
use crate::{encoding, kaldi, packed};

/// A format that was recognized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detected {
    /// The name of the format in recipes.
    pub format: &'static str,
    /// The data, for messages: "this looks like LibriTTS".
    pub what: &'static str,
    /// The file by which it was recognized, relative to the source.
    pub file: String,
}

/// The number of bytes of a file that are examined.
const HEAD: u64 = 1 << 16;

/// The number of Parquet and tar files that are opened.
const MAX_SHARDS: usize = 3;

/// The number of files and folders that are examined.
const MAX_ENTRIES: usize = 5000;

/// Names of files by which folders are recognized, and that are in large ones.
pub const INDEXES: [&str; 6] =
    ["metadata.csv", "metadata.jsonl", "metadata.tsv", "content.txt", "transcripts.txt", "GigaSpeech.json"];

/// The formats that folders are recognized as, and the files that show them.
pub const LAYOUTS: [(&str, &str); 17] = [
    ("kaldi", "wav.scp"),
    ("libritts", "*.normalized.txt"),
    ("librispeech", "*.trans.txt"),
    ("vctk", "*_mic1.flac and txt/"),
    ("aishell3", "content.txt and wav/"),
    ("mls", "transcripts.txt and audio/"),
    ("commonvoice", "train.tsv or validated.tsv, and clips/"),
    ("gigaspeech", "GigaSpeech.json"),
    ("shards", "Parquet or tar files with audio_data and extracted columns"),
    ("huggingface", "*.parquet or *.arrow"),
    ("lhotse", "cuts*.jsonl or recordings*.jsonl with supervisions"),
    ("webdataset", "*.tar"),
    ("ljspeech", "metadata.csv with `|`, and wavs/"),
    ("manifest", "*.jsonl, metadata.jsonl or metadata.csv"),
    ("folder", "recordings with .txt, .lab or .json next to them"),
    ("clips", "videos"),
    ("codes", "an HDF5 file"),
];

/// Files, sorted by their names.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) names: Vec<String>,
}

impl Seen {
    /// Examines the first entries of a folder, in order of their names.
    pub(crate) fn of(folder: &Path) -> Self {
        let mut seen = Self::default();
        let (mut waiting, mut folders) = (vec![(folder.to_path_buf(), String::new())], 0);
        while let Some((place, below)) = waiting.pop() {
            folders += 1;
            if seen.names.len() >= MAX_ENTRIES || folders > MAX_ENTRIES {
                break;
            }
            let Ok(entries) = fs::read_dir(&place) else { continue };
            let mut entries: Vec<_> = entries.filter_map(Result::ok).take(MAX_ENTRIES).collect();
            entries.sort_by_key(fs::DirEntry::file_name);
            if entries.len() == MAX_ENTRIES {
                // Of a full folder, files that describe it may be among the rest.
                let named = INDEXES.iter().filter(|name| place.join(name).is_file());
                seen.names.extend(named.map(|name| format!("{below}{name}")));
            }
            for entry in entries {
                let name = entry.file_name().to_string_lossy().into_owned();
                if seen.names.len() >= MAX_ENTRIES || name.starts_with('.') {
                    continue;
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    waiting.push((entry.path(), format!("{below}{name}/")));
                } else {
                    seen.names.push(format!("{below}{name}"));
                }
            }
        }
        seen.names.sort_unstable();
        seen
    }

    /// Returns the first file whose name ends so, in upper or lower case.
    pub(crate) fn ends(&self, ending: &str) -> Option<&str> {
        let ends = |name: &&String| {
            let tail = name.len().checked_sub(ending.len()).and_then(|at| name.as_bytes().get(at..));
            tail.is_some_and(|tail| tail.eq_ignore_ascii_case(ending.as_bytes()))
        };
        self.names.iter().find(ends).map(String::as_str)
    }

    /// Returns the first file of this name, in upper or lower case.
    pub(crate) fn called(&self, name: &str) -> Option<&str> {
        let is = |found: &&String| found.rsplit('/').next().is_some_and(|file| file.eq_ignore_ascii_case(name));
        self.names.iter().find(is).map(String::as_str)
    }
}

/// Returns the format of a source; `None` if nothing is recognized.
pub fn detect(path: &Path) -> Option<Detected> {
    let found = |format, what, file: &str| Some(Detected { format, what, file: file.to_owned() });
    if path.is_file() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let (format, what) = of_file(path, &name.to_ascii_lowercase())?;
        return found(format, what, &name);
    }
    // Any index file of Kaldi says what was meant, even if others are missing.
    if let Some(file) = kaldi::FILES.iter().find(|name| path.join(name).is_file()) {
        return found("kaldi", "this looks like Kaldi", file);
    }
    let seen = Seen::of(path);
    if let Some(file) = seen.called("wav.scp") {
        return found("kaldi", "this looks like Kaldi", file);
    }
    let table = || seen.called("validated.tsv").or(seen.called("train.tsv"));
    let layouts: [(Option<&str>, &str, &str); 13] = [
        (seen.called("gigaspeech.json"), "gigaspeech", "this looks like GigaSpeech"),
        (table().filter(|_| seen.has_folder("clips")), "commonvoice", "this looks like Common Voice"),
        (seen.ends(".trans.txt"), "librispeech", "this looks like LibriSpeech"),
        (seen.ends(".normalized.txt").filter(|_| seen.has_libri_names()), "libritts", "this looks like LibriTTS"),
        (seen.ends("_mic1.flac").filter(|file| has_transcripts(path, file)), "vctk", "this looks like VCTK"),
        (seen.called("content.txt").filter(|_| seen.has_folder("wav")), "aishell3", "this looks like AISHELL-3"),
        (seen.called("transcripts.txt").filter(|_| seen.has_folder("audio")), "mls", "this looks like MLS"),
        (seen.shard(path), "shards", "these look like packed shards"),
        (seen.ends(".parquet"), "huggingface", "these look like Parquet tables of Hugging Face"),
        (seen.ends(".arrow"), "huggingface", "this looks like a dataset that Hugging Face saved"),
        (lhotse(path, &seen), "lhotse", "these look like manifests of lhotse"),
        (
            [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst"].iter().find_map(|ending| seen.ends(ending)),
            "webdataset",
            "this looks like WebDataset",
        ),
        (seen.called("metadata.jsonl"), "manifest", "this looks like an audio folder of Hugging Face"),
    ];
    if let Some((file, format, what)) = layouts.iter().find_map(|(file, format, what)| Some(((*file)?, *format, *what)))
    {
        return found(format, what, file);
    }
    if let Some(file) = seen.called("metadata.csv") {
        return match table_of(&path.join(file)) {
            Some(table) if !table.is_csv() => found("ljspeech", "this looks like LJSpeech", file),
            None if seen.has_folder("wavs") => found("ljspeech", "this looks like LJSpeech", file),
            _ => found("manifest", "this looks like an audio folder of Hugging Face", file),
        };
    }
    if let Some(file) = seen.ends(".jsonl").or(seen.ends(".jsonl.gz")) {
        return found("manifest", "these look like manifests of JSON lines", file);
    }
    let media = seen.names.iter().find(|name| look(name) == Look::Media)?;
    found("folder", "this looks like a folder of recordings", media)
}

impl Seen {
    /// Returns a packed shard among the first Parquet or tar files, of which some may be damaged.
    fn shard(&self, folder: &Path) -> Option<&str> {
        let first = |ending: &'static str| {
            let mut named = self.names.iter().filter(move |name| name.ends_with(ending)).take(MAX_SHARDS);
            named.find(|file| packed::is_shard(&folder.join(file))).map(String::as_str)
        };
        first(".parquet").or_else(|| first(".tar"))
    }

    /// Returns whether a folder of this name is among the parents of files.
    fn has_folder(&self, name: &str) -> bool {
        self.names.iter().any(|path| path.split('/').rev().skip(1).any(|part| part == name))
    }

    /// Returns whether files have names such as `84_121123_000007_000000.normalized.txt`.
    fn has_libri_names(&self) -> bool {
        let names = self.names.iter().filter_map(|path| path.rsplit('/').next()?.strip_suffix(".normalized.txt"));
        names.take(20).all(|name| name.split('_').count() == 4)
    }
}

/// Returns whether the folder `txt` of VCTK is next to the folder with the folder of a recording.
fn has_transcripts(folder: &Path, file: &str) -> bool {
    folder.join(file).ancestors().nth(3).is_some_and(|corpus| corpus.join("txt").is_dir())
}

/// Returns the format of a file and a description, by its name in lower case and its beginning.
fn of_file(path: &Path, name: &str) -> Option<(&'static str, &'static str)> {
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    let plain = plain.strip_suffix(".zst").filter(|plain| plain.ends_with(".tar")).unwrap_or(plain);
    match extension(plain) {
        "json" if name == "gigaspeech.json" => Some(("gigaspeech", "this looks like GigaSpeech")),
        "jsonl" | "ndjson" | "json" if is_lhotse(path) => Some(("lhotse", "this looks like a manifest of lhotse")),
        "jsonl" | "ndjson" | "json" => Some(("manifest", "this looks like a manifest")),
        "tar" | "parquet" if packed::is_shard(path) => Some(("shards", "this is a packed shard")),
        "tar" | "tgz" | "tzst" => Some(("webdataset", "this is a tar file")),
        "parquet" | "arrow" => Some(("huggingface", "this is a table")),
        "h5" | "hdf5" => Some(("codes", "this is an HDF5 file")),
        "tsv" | "csv" | "txt" | "list" | "lst" => {
            let beginning = head(path)?;
            let beginning = encoding::without_mark(&beginning);
            if beginning.trim_ascii_start().starts_with(b"{") {
                return Some(("manifest", "this looks like a manifest of JSON lines"));
            }
            let first = beginning.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).find(|line| !line.is_empty());
            if first.is_some_and(|line| line.ends_with(b".parquet") || line.ends_with(b".tar")) && lists_shards(path) {
                return Some(("shards", "this looks like a list of packed shards"));
            }
            if first.is_some_and(|line| line.ends_with(b".tar")) {
                return Some(("webdataset", "this looks like a list of tar files"));
            }
            let table = table_of(path)?;
            let has_clips = path.parent().is_some_and(|folder| folder.join("clips").is_dir());
            Some(match table.has_header() {
                true if table.separator() == '\t' && has_clips => ("commonvoice", "this looks like Common Voice"),
                true if matches!(extension(plain), "tsv" | "csv") => ("manifest", "this is a table with a header"),
                _ => ("list", "this looks like a list"),
            })
        }
        _ => None,
    }
}

/// Returns whether the first shard of a list is a packed one.
fn lists_shards(list: &Path) -> bool {
    let (Some(folder), Some(name)) = (list.parent(), list.file_name().and_then(|name| name.to_str())) else {
        return false;
    };
    let files = packed::files(folder, name).unwrap_or_default();
    files.first().is_some_and(|first| packed::is_shard(&folder.join(first)))
}

/// Returns the manifest by which a folder of lhotse is recognized.
fn lhotse<'a>(folder: &Path, seen: &'a Seen) -> Option<&'a str> {
    let named = |word: &str| {
        let is =
            |name: &&String| name.rsplit('/').next().is_some_and(|file| file.contains(word) && file.contains(".jsonl"));
        seen.names.iter().find(is).map(String::as_str)
    };
    let found = named("cuts").or(named("recordings").filter(|_| named("supervisions").is_some()))?;
    is_lhotse(&folder.join(found)).then_some(found)
}

/// Returns whether the first line of a file is a row of lhotse.
fn is_lhotse(path: &Path) -> bool {
    let Some(head) = head(path) else { return false };
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let has = |name: &str| {
        let name = format!("\"{name}\"");
        first.windows(name.len()).any(|bytes| bytes == name.as_bytes())
    };
    has("supervisions") || (has("recording_id") && has("start")) || (has("sources") && has("sampling_rate"))
}

/// Returns the table that a file begins with.
fn table_of(path: &Path) -> Option<Table> {
    let head = head(path)?;
    let text = encoding::without_mark(&head);
    let first = text.split(|byte| matches!(byte, b'\n' | b'\r')).find(|line| !line.trim_ascii().is_empty())?;
    Table::of(&String::from_utf8_lossy(first))
}

/// Returns the beginning of a file, uncompressed.
fn head(path: &Path) -> Option<Vec<u8>> {
    let file = File::open(path).ok()?;
    let mut head = Vec::new();
    let is_packed = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    let read = match is_packed {
        true => MultiGzDecoder::new(file).take(HEAD).read_to_end(&mut head),
        false => file.take(HEAD).read_to_end(&mut head),
    };
    read.ok().map(|_| head)
}
