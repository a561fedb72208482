//! Rows from objects: the JSON of a manifest's line, or the fields of a table's line.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fields::{Fields, Object};
use crate::manifest::extras;
use crate::paths::{joined, prefix_of};
use crate::reading::{Candidate, Rejection};
use crate::samples::{extension, stem};
use crate::utterances::Extra;
use crate::values::BadPath;
use crate::{ReadOptions, Role, ids, values};

/// The reader of the objects of one file.
pub(crate) struct RowReader<'a> {
    /// The prefix of relative paths.
    prefix: String,
    /// The kind of a problem of an object: `bad line in the manifest`.
    kind: &'static str,
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

impl<'a> RowReader<'a> {
    /// Creates a reader of objects whose paths are relative to `folder`, or to the folder that the source names.
    pub(crate) fn new(folder: &str, kind: &'static str, options: &'a ReadOptions<'a>) -> Self {
        let prefix = prefix_of(options.recordings.unwrap_or(folder));
        Self { prefix, kind, options, unread_times: UnreadTimes::default() }
    }

    /// Returns the prefix of relative paths.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns a warning about times that are not read; `name` is the file's name.
    pub(crate) fn warning(&self, name: &str) -> Option<String> {
        self.unread_times.warning(name)
    }

    /// Returns the row of one object; `key` is its id if the object has none.
    pub(crate) fn row(
        &self,
        object: Result<Object, String>,
        key: Option<String>,
        place: String,
    ) -> Result<Candidate, Rejection> {
        let described = |problem: String| format!("{}: {place} {problem}", self.kind);
        let reject = |id: Option<String>, reason: String| Rejection { id: id.unwrap_or_else(|| place.clone()), reason };
        let object = object.map_err(|problem| reject(key.clone(), described(problem)))?.renamed(self.options);
        let id = object.id().or(key.clone());
        let object = object.of_conversation().map_err(|problem| reject(id, described(problem)))?;
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
            let problem = other_tool(&object, &place).unwrap_or_else(|| {
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
            split: fields.split,
            wav: joined(&self.prefix, audio),
            start,
            end: start.zip(fields.duration).map(|(start, duration)| start + duration),
            duration: fields.duration,
            extra: extra.map(Box::new),
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
        let described =
            |problem: String| Rejection { id: id.clone(), reason: format!("{}: {place} {problem}", self.kind) };
        values::id(&id).map_err(&described)?;
        let text = values::transcript(fields.text.as_deref().unwrap_or_default()).map_err(&described)?;
        let text = text.map(Cow::into_owned).ok_or_else(|| format!("{place} has no text"));
        Ok(Candidate {
            origin: given.is_none().then_some(made_up),
            speaker: fields.speaker.or_else(|| self.options.speaker.map(str::to_owned)),
            text,
            language: fields.language,
            split: fields.split,
            wav,
            start,
            end,
            duration: fields.duration.filter(|_| video.is_some()),
            extra: Some(Box::new(extra)),
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

/// Returns the reason for rejecting a row that another tool wrote and that does not name its recording itself.
fn other_tool(object: &Object, place: &str) -> Option<String> {
    let lhotse = (object.has("supervisions") && object.has("recording"))
        || (object.has("recording_id") && object.has("start"))
        || (object.has("sources") && object.has("sampling_rate"));
    lhotse.then(|| {
        format!(
            "manifest of lhotse: {place} is a row of lhotse's own; `format: lhotse` reads cuts, and recordings with supervisions"
        )
    })
}
