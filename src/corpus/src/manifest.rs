//! Manifests of JSON lines as NeMo writes them: one object a line that names a recording, and by the names of [`crate::fields`] its
//! text, duration, offset, speaker, language and id. One JSON array of such objects is read too.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;

use crate::encoding;
use crate::fields::{self, Object};
use crate::lines::TextFile;
use crate::paths::{joined, prefix_of};
use crate::reading::{Candidate, Rejection};
use crate::samples::{extension, stem};
use crate::{CorpusError, ReadOptions, Reading, ids, values};

/// Reads a manifest. Relative paths of recordings are relative to the manifest's folder. Without an id of its own, a row is named
/// after its recording's path without extension (`/` replaced by `-`), with its offset in milliseconds when it has one; rows that
/// would have the same name so get a hash of path, offset and duration behind it. Without a speaker, the row is of the source's
/// speaker, or else its own.
///
/// # Errors
/// [`CorpusError::Structure`] when the file is missing or empty. A file that is no text at all is one rejected row.
pub fn read_file(root: &Path, path: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let full = root.join(path);
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = if path.starts_with('/') && parent.is_empty() { "/" } else { parent };
    let bytes = match fs::read(&full) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(CorpusError::structure(&full, "does not exist; a JSON-lines manifest is expected here"));
        }
        read => read.map_err(|e| CorpusError::io("read", &full, e))?,
    };
    let mut reading = Reading { files: vec![full.clone()], ..Reading::default() };
    if let Some(problem) = encoding::no_text(&bytes) {
        reading.reject(name, format!("no manifest: {name} {problem}"));
        return Ok(reading.counted());
    }
    let reader = Reader { name, prefix: prefix_of(folder), options };
    let parsed = match array(&bytes) {
        Some(elements) => {
            reading
                .warnings
                .push(format!("{name} is one JSON array and not JSON lines; it is read as the rows of that array"));
            let place = |at: usize| format!("{name}[{at}]");
            elements
                .into_par_iter()
                .enumerate()
                .map(|(at, element)| reader.row(Object::of(element), place(at)))
                .collect()
        }
        None => reader.lines(full.clone(), bytes),
    };
    if parsed.is_empty() {
        return Err(CorpusError::structure(&full, "is empty; it should hold a JSON object a line"));
    }
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

/// The elements of a file that is one JSON array; none when it is something else, JSON lines above all.
fn array(bytes: &[u8]) -> Option<Vec<Value>> {
    let bytes = encoding::without_mark(bytes);
    if bytes.trim_ascii_start().first() != Some(&b'[') {
        return None;
    }
    match fields::parse(&bytes) {
        Ok(Value::Array(elements)) => Some(elements),
        _ => None,
    }
}

/// What is the same for all rows of a manifest.
struct Reader<'a> {
    /// The file's name.
    name: &'a str,
    /// What comes before relative paths.
    prefix: String,
    options: &'a ReadOptions<'a>,
}

impl Reader<'_> {
    /// The rows of all lines.
    fn lines(&self, full: PathBuf, bytes: Vec<u8>) -> Vec<Result<Candidate, Rejection>> {
        let file = TextFile::from_bytes(self.name, full, bytes);
        let row = |line: &crate::lines::Line| {
            let place = format!("{}:{}", self.name, line.number);
            match file.text(line) {
                Ok(text) => self.row(Object::parse(text.as_bytes()), place),
                Err(problem) => Err(Rejection { id: place, reason: format!("manifest {problem}") }),
            }
        };
        file.lines().par_iter().map(row).collect()
    }

    /// The row of one object.
    fn row(&self, object: Result<Object, String>, place: String) -> Result<Candidate, Rejection> {
        let described = |problem: String| format!("bad line in the manifest: {place} {problem}");
        let reject = |id: Option<String>, reason: String| Rejection { id: id.unwrap_or_else(|| place.clone()), reason };
        let object = object.map_err(|problem| reject(None, described(problem)))?;
        let named = || object.id().or_else(|| object.audio().map(|audio| id_of(&audio, None)));
        let fields = object.row().map_err(|problem| reject(named(), described(problem)))?;
        let given = fields.id.clone();
        let Some(audio) = fields.audio.as_deref().filter(|audio| !audio.is_empty()) else {
            return Err(reject(given, described("names no recording (`audio_filepath`)".into())));
        };
        // A whole recording is often given with `offset: 0`; only a duration makes it a piece.
        let whole = fields.duration.is_none() && fields.offset == Some(0.0);
        let start = fields.offset.filter(|_| !whole);
        let made_up = id_of(audio, start);
        let id = given.clone().unwrap_or(made_up);
        let reject = |problem: String| reject(Some(id.clone()), problem);
        values::path(audio).map_err(|problem| reject(format!("path of Windows: {place}: {problem}")))?;
        values::id(&id).map_err(|problem| reject(described(problem)))?;
        if audio.ends_with('|') {
            return Err(reject(described("is a command; a manifest names files".into())));
        }
        if start.is_some() && fields.duration.is_some_and(|duration| duration <= 0.0) {
            return Err(reject(described("has an `offset` and no duration after it".into())));
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
            place,
        })
    }
}

/// An id made of the recording's path and the offset.
fn id_of(path: &str, offset: Option<f64>) -> String {
    let path = path.trim_start_matches(['.', '/']);
    let name = if extension(path).contains(' ') { path } else { stem(path) };
    let name = ids::of_path(name);
    match offset {
        Some(offset) if offset > 0.0 => format!("{name}-{:07.0}", offset * 1000.0),
        _ => name,
    }
}
