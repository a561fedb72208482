//! One tar file's utterances.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::fields::Fields;
use super::shards::compressed_advice;
use super::{AUDIO_EXTENSIONS, Ids, Options};
use crate::folder::one_line;
use crate::kaldi::{check_id, check_transcript};
use crate::source::{MAX_MEMBER_BYTES, TarMember};
use crate::tar::{Member, MemberKind, Members, compression};
use crate::{CorpusError, Rejection};

/// The largest transcript or JSON.
const MAX_TEXT_BYTES: u64 = 1 << 20;
/// The longest id or speaker, in bytes.
const MAX_ID_BYTES: usize = 512;
/// How much of a strange name is shown.
const SHOWN_BYTES: usize = 200;

/// What one tar file gives.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) found: Vec<Found>,
    pub(super) rejected: Vec<Rejection>,
    pub(super) warnings: Vec<String>,
    /// How many members of which other kinds there are.
    pub(super) passed_over: BTreeMap<String, u64>,
}

/// A good row.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) speaker: String,
    pub(super) text: String,
    pub(super) language: Option<String>,
    pub(super) duration: Option<f64>,
    pub(super) wav: String,
    /// The recording's tar file and name, to show.
    pub(super) place: String,
}

/// A member of a sample: its name and where its bytes are.
#[derive(Debug)]
struct Part {
    name: String,
    offset: u64,
    size: u64,
}

/// The members of one key by what they are.
#[derive(Debug, Default)]
struct Sample {
    audio: BTreeMap<String, Part>,
    json: Option<Part>,
    /// By extension, `lab` before `txt`.
    text: BTreeMap<String, Part>,
}

/// How Parquet begins.
const PARQUET: &[u8] = b"PAR1";

/// What to do about a shard of CosyVoice, whose recipes give Parquet such names.
const PARQUET_ADVICE: &str = "is Parquet by its content, not tar: a shard that CosyVoice packed; `flowmill inspect` shows it. Give \
                              prep.data the data directory that it was packed from, and import its embeddings and tokens \
                              (`kind: import`)";

/// Reads the headers, then the transcripts, of a tar file.
pub(super) fn read(root: &Path, path: &str, options: &Options) -> Result<Shard, CorpusError> {
    let full = root.join(path);
    let file = File::open(&full).map_err(|e| CorpusError::io("read", &full, e))?;
    let mut beginning = [0; 8];
    let count = file.read_at(&mut beginning, 0).map_err(|e| CorpusError::io("read", &full, e))?;
    if let Some((format, undo)) = compression(&beginning[..count]) {
        return Err(CorpusError::structure(&full, compressed_advice(format, undo)));
    }
    if beginning.starts_with(PARQUET) {
        return Err(CorpusError::structure(&full, PARQUET_ADVICE));
    }
    let mut reader = Reader { path, file: &file, shard: Shard::default(), samples: BTreeMap::new() };
    reader.walk().map_err(|e| CorpusError::io("read", &full, e))?;
    for (key, sample) in std::mem::take(&mut reader.samples) {
        match reader.found(&key, &sample, options) {
            Ok(found) => reader.shard.found.push(found),
            Err(reason) => reader.reject(&key, reason),
        }
    }
    Ok(reader.shard)
}

struct Reader<'a> {
    path: &'a str,
    file: &'a File,
    shard: Shard,
    samples: BTreeMap<String, Sample>,
}

impl Reader<'_> {
    /// Sorts the members by their keys. A damaged header ends it: what follows cannot be told from content.
    fn walk(&mut self) -> std::io::Result<()> {
        let file = self.file;
        let mut members = Members::of(file)?;
        for member in members.by_ref() {
            match member {
                Ok(member) => self.sort(&member),
                Err(damage) => {
                    let path = self.path;
                    let reason = format!("damaged tar: {path}: at byte {}: {}", damage.at, damage.problem);
                    self.shard.warnings.push(format!("{reason}; nothing behind that was read"));
                    self.shard.rejected.push(Rejection { id: path.to_owned(), reason });
                    return Ok(());
                }
            }
        }
        if !members.ended {
            let path = self.path;
            self.shard.warnings.push(format!("{path}: ends without the mark of a tar file's end; it may be cut short"));
        }
        Ok(())
    }

    /// Notes a member with its key, or why it is left out.
    fn sort(&mut self, member: &Member) {
        if member.kind == MemberKind::Directory {
            return;
        }
        let name = match safe_name(member) {
            Ok(name) => name,
            Err(problem) => {
                let shown = String::from_utf8_lossy(&member.name[..member.name.len().min(SHOWN_BYTES)]);
                let shown: String = shown.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
                return self.reject(&shown, format!("bad member: {}: `{shown}` {problem}", self.path));
            }
        };
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        let Some((stem, extension)) = file.split_once('.').filter(|(stem, _)| !stem.is_empty()) else {
            let kind = if file.starts_with('.') { "hidden" } else { "without an extension" };
            return self.pass_over(kind);
        };
        let key = if folder.is_empty() { stem.to_owned() } else { format!("{folder}/{stem}") };
        let extension = extension.to_ascii_lowercase();
        let part = Part { name: name.to_owned(), offset: member.offset, size: member.size };
        let sample = match extension.as_str() {
            "json" | "txt" | "lab" => self.samples.entry(key.clone()).or_default(),
            extension if AUDIO_EXTENSIONS.contains(&extension) => self.samples.entry(key.clone()).or_default(),
            _ => return self.pass_over(&format!(".{}", extension.chars().take(20).collect::<String>())),
        };
        let repeated = sample.add(extension, part);
        if let Some((first, again)) = repeated {
            let reason = format!("repeated member: {}: {name} at byte {again} is there since byte {first}", self.path);
            self.reject(&key, reason);
        }
    }

    /// The row of a key.
    fn found(&self, key: &str, sample: &Sample, options: &Options) -> Result<Found, String> {
        let path = self.path;
        let audio = sample.audio(path)?;
        let fields = match &sample.json {
            Some(json) => {
                let bytes = self.text_of(json)?;
                Fields::parse(&bytes).map_err(|problem| format!("bad transcript: {path}: {} {problem}", json.name))?
            }
            None => Fields::default(),
        };
        let text = self.transcript(sample, &fields, audio)?;
        let key = key.replace('/', "-");
        let id = match options.ids {
            Ids::Json => fields.id.unwrap_or(key),
            Ids::Key => key,
            Ids::Shard => format!("{}-{key}", shard_name(path)),
        };
        let speaker = fields.speaker.or_else(|| options.speaker.map(str::to_owned)).unwrap_or_else(|| id.clone());
        for (what, value) in [("id", &id), ("speaker", &speaker)] {
            check_word(value).map_err(|problem| format!("bad {what}: {path}: {} {problem}", audio.name))?;
        }
        let member = TarMember { archive: path, name: &audio.name, offset: audio.offset, length: audio.size };
        let place = format!("{path}: {}", audio.name);
        let (language, duration) = (fields.language, fields.duration);
        Ok(Found { id, speaker, text, language, duration, wav: member.to_string(), place })
    }

    /// The transcript on one line, from the JSON or from the text beside it.
    fn transcript(&self, sample: &Sample, fields: &Fields, audio: &Part) -> Result<String, String> {
        let path = self.path;
        let (place, text) = match (&fields.text, sample.text.last_key_value(), &sample.json) {
            (Some(text), _, Some(json)) => (&json.name, one_line(text)),
            (_, Some((_, part)), _) => {
                let text = one_line_of(&self.text_of(part)?);
                (&part.name, text.map_err(|problem| format!("bad transcript: {path}: {} {problem}", part.name))?)
            }
            (None, None, Some(json)) => return Err(format!("no transcript: {path}: {} has no `text`", json.name)),
            _ => return Err(format!("no transcript: {path}: {} has no .json or .txt beside it", audio.name)),
        };
        if text.is_empty() {
            return Err(format!("no transcript: {path}: {place} is empty"));
        }
        check_transcript(&text).map_err(|problem| format!("bad transcript: {path}: {place} {problem}"))?;
        Ok(text)
    }

    /// The bytes of a transcript.
    fn text_of(&self, part: &Part) -> Result<Vec<u8>, String> {
        let (path, Part { name, offset, size }) = (self.path, part);
        if *size > MAX_TEXT_BYTES {
            return Err(format!("bad transcript: {path}: {name} has {size} bytes, more than {MAX_TEXT_BYTES}"));
        }
        let mut bytes = vec![0; *size as usize];
        let read = self.file.read_exact_at(&mut bytes, *offset);
        read.map_err(|e| format!("bad transcript: {path}: {name} cannot be read: {e}"))?;
        Ok(bytes)
    }

    fn reject(&mut self, id: &str, reason: String) {
        self.shard.rejected.push(Rejection { id: id.to_owned(), reason });
    }

    fn pass_over(&mut self, kind: &str) {
        *self.shard.passed_over.entry(kind.to_owned()).or_default() += 1;
    }
}

impl Sample {
    /// Adds a member; one of the same name before stays, and then the places of both are given.
    fn add(&mut self, extension: String, part: Part) -> Option<(u64, u64)> {
        let first = match extension.as_str() {
            "json" => self.json.as_ref(),
            "txt" | "lab" => self.text.get(&extension),
            _ => self.audio.get(&extension),
        };
        if let Some(first) = first {
            return Some((first.offset, part.offset));
        }
        match extension.as_str() {
            "json" => self.json = Some(part),
            "txt" | "lab" => drop(self.text.insert(extension, part)),
            _ => drop(self.audio.insert(extension, part)),
        }
        None
    }

    /// The one recording.
    fn audio(&self, path: &str) -> Result<&Part, String> {
        let mut parts = self.audio.values();
        match (parts.next(), parts.next()) {
            (Some(part), None) if part.size > MAX_MEMBER_BYTES => {
                Err(format!("recording too large: {path}: {} has {} bytes", part.name, part.size))
            }
            (Some(part), None) => Ok(part),
            (Some(one), Some(two)) => Err(format!("two recordings: {path}: {} and {}", one.name, two.name)),
            (None, _) => {
                let others = self.json.iter().chain(self.text.values()).map(|part| part.name.as_str());
                let others = others.collect::<Vec<_>>().join(" and ");
                Err(format!("no recording: {path}: only {others} (a key ends at its first dot)"))
            }
        }
    }
}

/// A member's name, without `./` before it, when it names a file below the place where one would extract it.
fn safe_name(member: &Member) -> Result<&str, String> {
    if let MemberKind::Other(kind) = member.kind {
        return Err(format!("is {kind}; only plain files are read"));
    }
    let name = std::str::from_utf8(&member.name).map_err(|_| "is no UTF-8 name")?;
    let mut name = name;
    while let Some(rest) = name.strip_prefix("./") {
        name = rest;
    }
    if name.starts_with('/') {
        return Err("is an absolute path".into());
    }
    if name.split('/').any(|part| part == "..") {
        return Err("leads out of its folder by `..`".into());
    }
    if name.chars().any(char::is_control) {
        return Err("has a control character in its name".into());
    }
    if name.is_empty() || name.split('/').any(str::is_empty) {
        return Err("has an empty part in its path".into());
    }
    Ok(name)
}

/// Checks an id or a speaker.
fn check_word(word: &str) -> Result<(), String> {
    match word.len() {
        0 => Err("has an empty one".into()),
        length if length > MAX_ID_BYTES => Err(format!("has one of {length} bytes, more than {MAX_ID_BYTES}")),
        _ => check_id(word),
    }
}

/// A text file's words on one line.
fn one_line_of(bytes: &[u8]) -> Result<String, String> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF".as_slice()).unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|e| format!("is not valid UTF-8 (byte {})", e.valid_up_to() + 1))?;
    Ok(one_line(text))
}

/// A shard's file name without its ending.
fn shard_name(path: &str) -> &str {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    name.strip_suffix(".tar").unwrap_or(name)
}
