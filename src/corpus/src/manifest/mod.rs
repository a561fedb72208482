//! Manifests of JSON lines as NeMo writes them: one object per line that names a recording, and optionally its text,
//! duration, offset, speaker, language and id, by the names in [`crate::fields`]. One JSON array of such objects is
//! read too, and one object of them by their ids as SpeechBrain writes it.

mod extras;
mod layout;

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use serde_json::Value;

use crate::delimited::Table;
use crate::encoding;
use crate::fields::{Fields, Object};
use crate::lines::TextFile;
use crate::paths::{joined, prefix_of};
use crate::reading::{Candidate, Rejection};
use crate::samples::{extension, stem};
use crate::utterances::Extra;
use crate::values::BadPath;
use crate::{CorpusError, ReadOptions, Reading, Role, ids, values};
pub(crate) use extras::columns;
use layout::Layout;

/// Reads a manifest. Relative paths of recordings are relative to the manifest's folder. A row without an id is named
/// after its recording's path without extension (`/` replaced by `-`), with its offset in milliseconds if it has one.
/// If that gives several rows the same name, a hash of path, offset and duration is appended. A row without a speaker
/// has the source's speaker, or else its own.
///
/// # Errors
/// [`CorpusError::Structure`] if the file is missing, empty, not text, or JSON in which no rows are found.
pub fn read_file(root: &Path, path: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let full = root.join(path);
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = if path.starts_with('/') && parent.is_empty() { "/" } else { parent };
    if full.is_dir() {
        return Err(CorpusError::structure(&full, "is a folder; a file of JSON lines is expected"));
    }
    let bytes = match fs::read(&full) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(CorpusError::structure(&full, "does not exist; a file of JSON lines is expected"));
        }
        read => read.map_err(|e| CorpusError::io("read", &full, e))?,
    };
    if let Some(problem) = encoding::no_text(&bytes) {
        return Err(CorpusError::structure(&full, problem));
    }
    let mut reading = Reading { files: vec![full.clone()], ..Reading::default() };
    let reader = Reader { name, prefix: prefix_of(folder), options, unread_times: UnreadTimes::default() };
    let parsed: Vec<Result<Candidate, Rejection>> = match Layout::of(&bytes) {
        Layout::Lines => reader.lines(full.clone(), bytes),
        Layout::Elements(elements) => {
            reading
                .warnings
                .push(format!("{name} is one JSON array, not JSON lines; the elements of that array are read as rows"));
            let row = |(at, element)| reader.row(Object::of(element), None, format!("{name}[{at}]"));
            elements.into_par_iter().enumerate().map(row).collect()
        }
        Layout::ById(objects) => {
            reading
                .warnings
                .push(format!("{name} is one JSON object; each of its objects is read as a row with its key as id"));
            let row = |(id, element): (String, Value)| {
                let place = format!("{name}[{id:?}]");
                reader.row(Object::of(element), Some(id), place)
            };
            objects.into_par_iter().map(row).collect()
        }
        Layout::Row(object) => vec![reader.row(Object::of(object), None, format!("{name}:1"))],
        Layout::Unknown(problem) => return Err(CorpusError::structure(&full, problem)),
    };
    if parsed.is_empty() {
        return Err(CorpusError::structure(&full, "is empty; it should contain one JSON object per line"));
    }
    reading.warnings.extend(reader.unread_times.warning(name));
    let mut rows = Vec::with_capacity(parsed.len());
    let mut texts = false;
    for outcome in parsed {
        match outcome {
            Ok(row) => {
                texts |= row.text.is_ok();
                rows.push(row);
            }
            Err(rejection) => reading.rejected.push(rejection),
        }
    }
    Ok(reading.take(rows, texts, options, ""))
}

/// Data that all rows of a manifest share.
struct Reader<'a> {
    /// The file's name.
    name: &'a str,
    /// The prefix of relative paths.
    prefix: String,
    options: &'a ReadOptions<'a>,
    unread_times: UnreadTimes,
}

/// The number of rows that give times under names that are not read.
#[derive(Default)]
struct UnreadTimes(AtomicU64);

impl UnreadTimes {
    /// Names under which data give the place of a piece in a recording, or the original place of a recording that is
    /// already cut out.
    const NAMES: [&str; 7] = ["start", "end", "start_time", "end_time", "begin_time", "begin", "stop"];

    fn note(&self, object: &Object) {
        if !object.has("offset") && Self::NAMES.iter().any(|name| object.has(name)) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn warning(&self, name: &str) -> Option<String> {
        let rows = self.0.load(Ordering::Relaxed);
        (rows > 0).then(|| {
            format!(
                "{name}: {rows} rows have a `start`, `end` or the like, which are not read: each row is the whole recording. A piece of a \
                 recording is given by `offset` and `duration`, in seconds"
            )
        })
    }
}

impl Reader<'_> {
    /// Returns the rows of all lines.
    fn lines(&self, full: PathBuf, bytes: Vec<u8>) -> Vec<Result<Candidate, Rejection>> {
        let file = TextFile::from_bytes(self.name, full, bytes);
        let lines = file.lines();
        let first = lines.first().map(|line| file.lossy(line)).filter(|line| !line.starts_with(['{', '[']));
        let table = first.and_then(|line| Table::of(&line));
        let row = |line: &crate::lines::Line| {
            let place = format!("{}:{}", self.name, line.number);
            match file.text(line) {
                Ok(text) => {
                    let advice = table.as_ref().filter(|_| !text.starts_with('{')).map(|table| table.advice(self.name));
                    let object = Object::parse(text.as_bytes());
                    let object = object
                        .map_err(|problem| advice.map_or(problem.clone(), |advice| format!("{problem}; {advice}")));
                    self.row(object, None, place)
                }
                Err(problem) => Err(Rejection { id: place, reason: format!("manifest {problem}") }),
            }
        };
        lines.par_iter().map(row).collect()
    }

    /// Returns the row of one object; `key` is its id if the object has none.
    fn row(&self, object: Result<Object, String>, key: Option<String>, place: String) -> Result<Candidate, Rejection> {
        let described = |problem: String| format!("bad line in the manifest: {place} {problem}");
        let reject = |id: Option<String>, reason: String| Rejection { id: id.unwrap_or_else(|| place.clone()), reason };
        let object = object.map_err(|problem| reject(key.clone(), described(problem)))?;
        let named = || object.id().or(key.clone()).or_else(|| object.audio().map(|audio| id_of(&audio, None)));
        let mut fields = object.row().map_err(|problem| reject(named(), described(problem)))?;
        if fields.speaker.is_none() && self.options.asks_for_more() {
            fields.speaker = object.group().map_err(|problem| reject(named(), described(problem)))?;
        }
        let given = fields.id.clone().or(key.clone());
        let mut extra =
            extras::read(&object, &self.prefix, self.options).map_err(|problem| reject(named(), described(problem)))?;
        let media = self.options.media;
        let asks_for_audio = media.is_empty() || media.contains(&Role::Audio);
        let has_audio = fields.audio.is_some() && asks_for_audio;
        if let Some(extra) = extra.take_if(|extra| !has_audio && extra.has_data()) {
            return self.without_audio(fields, given, extra, place, asks_for_audio);
        }
        if !has_audio && media.iter().any(|role| *role != Role::Audio) {
            let names: Vec<&str> = media.iter().map(|role| role.name()).collect();
            return Err(reject(named(), described(format!("has no medium of {} (prep.media)", names.join(", ")))));
        }
        let Some(audio) = fields.audio.as_deref() else {
            let problem = layout::other_tool(&object, &place).unwrap_or_else(|| {
                let names = "audio_filepath, path, wav, file_name, audio …";
                described(format!("names no recording; its path is looked for in {names}"))
            });
            return Err(reject(given, problem));
        };
        self.unread_times.note(&object);
        // A whole recording is often given with `offset: 0`; only a duration makes it a piece.
        let whole = fields.duration.is_none() && fields.offset == Some(0.0);
        let start = fields.offset.filter(|_| !whole);
        let made_up = id_of(audio, start);
        let id = given.clone().unwrap_or(made_up);
        let reject = |problem: String| reject(Some(id.clone()), problem);
        values::path(audio).map_err(|BadPath { kind, detail }| reject(format!("{kind}: {place}: {detail}")))?;
        values::id(&id).map_err(|problem| reject(described(problem)))?;
        if audio.ends_with('|') {
            return Err(reject(described("is a command; a manifest names files".into())));
        }
        if start.is_some() && fields.duration.is_some_and(|duration| duration <= 0.0) {
            return Err(reject(described("has an `offset` but no duration".into())));
        }
        let text = values::transcript(fields.text.as_deref().unwrap_or_default());
        let text = text.map_err(|problem| reject(described(problem)))?.map(Cow::into_owned);
        let exact = format!("{audio}|{:?}|{:?}", start, fields.duration.filter(|_| start.is_some()));
        Ok(Candidate {
            origin: given.is_none().then_some(exact),
            id,
            speaker: fields.speaker.or_else(|| self.options.speaker.map(str::to_owned)),
            text: text.ok_or_else(|| format!("{place} has no text")),
            language: fields.language,
            wav: joined(&self.prefix, audio),
            start,
            end: start.zip(fields.duration).map(|(start, duration)| start + duration),
            duration: fields.duration,
            extra,
            place,
        })
    }

    /// Returns a row that has other media than a recording. With `has_sound`, a video is its own recording.
    fn without_audio(
        &self,
        fields: Fields,
        given: Option<String>,
        extra: Extra,
        place: String,
        has_sound: bool,
    ) -> Result<Candidate, Rejection> {
        let first = extra.media.values().flatten().next();
        let video = extra.media.get(&Role::Video).and_then(|video| video.first());
        // A piece of a video, as of a recording, is given by `offset` and `duration`.
        let start = fields.offset.filter(|offset| video.is_some() && (*offset > 0.0 || fields.duration.is_some()));
        let end = start.zip(fields.duration).map(|(start, duration)| start + duration);
        let made_up = first.map_or_else(|| place.clone(), |medium| id_of(&medium.0, start));
        let wav = video.filter(|_| has_sound).map(|video| video.0.clone()).unwrap_or_default();
        let id = given.clone().unwrap_or_else(|| made_up.clone());
        let described = |problem: String| Rejection {
            id: id.clone(),
            reason: format!("bad line in the manifest: {place} {problem}"),
        };
        values::id(&id).map_err(&described)?;
        let text = values::transcript(fields.text.as_deref().unwrap_or_default()).map_err(&described)?;
        let text = text.map(Cow::into_owned).ok_or_else(|| format!("{place} has no text"));
        Ok(Candidate {
            origin: given.is_none().then_some(made_up),
            speaker: fields.speaker.or_else(|| self.options.speaker.map(str::to_owned)),
            text,
            language: fields.language,
            wav,
            start,
            end,
            duration: fields.duration.filter(|_| video.is_some()),
            extra: Some(extra),
            place,
            id,
        })
    }
}

/// Creates an id from the recording's path and the offset.
fn id_of(path: &str, offset: Option<f64>) -> String {
    let path = path.trim_start_matches(['.', '/']);
    let name = if extension(path).contains(' ') { path } else { stem(path) };
    let name = ids::of_path(name);
    match offset {
        Some(offset) if offset > 0.0 => format!("{name}-{:07.0}", offset * 1000.0),
        _ => name,
    }
}
