//! The fields of a line of `metadata.csv`.

use crate::fields::{is_name_of, position_of};
use crate::values::BadPath;
use crate::{ids, values};

/// The places of the fields, counted from 0.
#[derive(Debug)]
pub(super) struct Columns {
    /// The recording.
    audio: usize,
    /// The id, if it is not made from the recording's name.
    id: Option<usize>,
    /// The transcript; the first that is not empty counts.
    texts: Vec<usize>,
    speaker: Option<usize>,
    language: Option<usize>,
    /// The largest number of fields of a line.
    count: usize,
    /// Names of fields that are not read.
    unread: Vec<String>,
}

impl Default for Columns {
    /// `id|text|normalized text`.
    fn default() -> Self {
        Self { audio: 0, id: None, texts: vec![2, 1], speaker: None, language: None, count: 3, unread: Vec::new() }
    }
}

/// The content of a line.
pub(super) struct Line<'a> {
    /// The recording, as the line names it.
    pub(super) audio: &'a str,
    pub(super) id: Option<&'a str>,
    /// The transcript, or the reason why there is none.
    pub(super) text: Result<String, String>,
    pub(super) speaker: Option<&'a str>,
    pub(super) language: Option<&'a str>,
}

/// Returns a field's name in a header in the form of the lists of names.
fn plain(name: &str) -> String {
    name.trim().trim_matches('"').trim().to_lowercase().replace([' ', '-'], "_")
}

/// Returns whether a name is that of the text in normalized form.
fn is_normalized(name: &str) -> bool {
    ["norm", "text_norm", "clean"].iter().any(|beginning| name.starts_with(beginning))
}

impl Columns {
    /// Returns the fields that a header names; `None` if the line is not a header. `no_recording` says whether a
    /// first field names no recording.
    pub(super) fn of_header(line: &str, no_recording: impl Fn(&str) -> bool) -> Result<Option<Self>, String> {
        let names: Vec<String> = line.split('|').map(plain).collect();
        let is = |field: &'static str| move |name: &String| is_name_of(field, name);
        let is_text = |name: &String| is_name_of("text", name) || is_normalized(name);
        let known = |name: &String| {
            is_text(name)
                || ["id", "audio", "speaker", "language", "duration"].iter().any(|field| is_name_of(field, name))
        };
        let first = names.first().is_some_and(|name| is_name_of("id", name) || is_name_of("audio", name));
        let first_field = line.split('|').next().unwrap_or_default().trim();
        if names.len() < 2 || !(first || names.iter().all(known)) || !no_recording(first_field) {
            return Ok(None);
        }
        let (audio, id) = (names.iter().position(is("audio")), names.iter().position(is("id")));
        let mut texts: Vec<usize> = (0..names.len()).filter(|at| is_text(&names[*at])).collect();
        texts.sort_by_key(|at| (!is_normalized(&names[*at]), position_of("text", &names[*at])));
        let Some(recording) = audio.or(id).filter(|_| !texts.is_empty()) else {
            return Err(format!(
                "begins with `{line}`, which seems to name the fields, but not the recording (`id` or `file`) and the text \
                 (`text`, `normalized_text`); name them so, or delete the line"
            ));
        };
        let (speaker, language) = (names.iter().position(is("speaker")), names.iter().position(is("language")));
        let read = |at: &usize| {
            texts.contains(at)
                || [Some(recording), id, speaker, language].contains(&Some(*at))
                || is("duration")(&names[*at])
        };
        let unread = (0..names.len()).filter(|at| !read(at)).map(|at| names[at].clone()).collect();
        let id = id.filter(|_| audio.is_some());
        Ok(Some(Self { audio: recording, id, texts, speaker, language, count: names.len(), unread }))
    }

    /// Returns a warning about fields that the header names and that are not read.
    pub(super) fn unread_warning(&self) -> Option<String> {
        let names = self.unread.join(", ");
        (!self.unread.is_empty()).then(|| format!("metadata.csv: fields that are not read: {names}"))
    }

    /// Returns the recording that a line names.
    pub(super) fn audio<'a>(&self, line: &'a str) -> &'a str {
        field(line, self.audio).unwrap_or_default()
    }

    /// Returns the id that a line provides, if any.
    pub(super) fn id<'a>(&self, line: &'a str) -> Option<&'a str> {
        self.id.and_then(|at| field(line, at))
    }

    /// Returns the texts of a line that are not empty, the preferred one first.
    pub(super) fn texts<'a>(&self, line: &'a str) -> impl Iterator<Item = &'a str> {
        self.texts.iter().filter_map(move |at| field(line, *at))
    }

    /// Splits a line into its fields. The problem follows the line's number.
    pub(super) fn parse<'a>(&self, line: &'a str) -> Result<Line<'a>, String> {
        let fields = line.split('|').count();
        let audio = self.audio(line);
        if audio.is_empty() {
            return Err("has no id before the first `|`".into());
        }
        if fields > self.count {
            return Err(format!(
                "has {fields} fields, more than {} (id|text|normalized text, or as the header says)",
                self.count
            ));
        }
        let short = fields == 1;
        let problem = "has no `|`; a line is `id|text|normalized text`";
        if short && audio.contains([',', ';', '\t', ' ']) {
            return Err(problem.into());
        }
        values::path(audio).map_err(|BadPath { kind, detail }| format!("has a bad path ({kind}): {detail}"))?;
        let id = self.id(line);
        values::id(&id.map_or_else(|| ids::of_path(audio), str::to_owned))?;
        let text = self.texts(line).next().unwrap_or_default();
        let text = values::transcript(text)?.map(|text| text.into_owned());
        let text = text.ok_or_else(|| if short { problem.into() } else { "has an id but no text".into() });
        let word = |at: Option<usize>| at.and_then(|at| field(line, at));
        let speaker = word(self.speaker);
        if let Some(speaker) = speaker {
            values::id(speaker).map_err(|_| format!("has a bad speaker `{speaker}`"))?;
        }
        Ok(Line { audio, id, text, speaker, language: word(self.language) })
    }
}

/// Returns a field of a line, trimmed; `None` if it is empty.
fn field(line: &str, at: usize) -> Option<&str> {
    line.split('|').nth(at).map(str::trim).filter(|field| !field.is_empty())
}
