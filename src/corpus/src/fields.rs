//! The fields of a JSON object that describes an utterance: one reader for manifests, tar files and folders.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::ReadOptions;

/// The fields that are read, each with its alternative names. If several are present, the first with a value counts.
///
/// `utt` and its variants are from Kaldi's and CosyVoice's pipelines, `key` and `txt` from WeNet, `source` and
/// `target` from FunASR, `_id` from Emilia, `index` from VoxBox (as RWKVTTS repacks it; only if it is a text, because
/// numbers count within a shard), `audio_filepath`, `lang`, `duration` and `offset` from NeMo, `caption` and
/// `normalized_text` from WebDataset collections, `sentence` and `client_id` from Common Voice, `file_name` and
/// `transcription` from Hugging Face, `wav_filename` from DeepSpeech, `wrd` from SpeechBrain.
pub const FIELDS: [(&str, &[&str]); 9] = [
    (
        "id",
        &["utt", "utt_id", "utterance_id", "uttid", "id", "_id", "key", "__key__", "sample_id", "segment_id", "index"],
    ),
    ("speaker", &["speaker", "spk", "speaker_id", "spk_id", "spkid", "speaker_name", "client_id"]),
    (
        "text",
        &[
            "text",
            "transcript",
            "transcription",
            "sentence",
            "normalized_text",
            "text_normalized",
            "normalised_text",
            "txt",
            "caption",
            "target",
            "raw_text",
            "text_original",
            "wrd",
        ],
    ),
    ("language", &["language", "lang", "lang_id", "language_id", "locale"]),
    ("duration", &["duration", "dur"]),
    ("offset", &["offset"]),
    ("split", &["split"]),
    ("sample_rate", &["sample_rate", "sampling_rate", "samplerate", "sr"]),
    (
        "audio",
        &[
            "audio_filepath",
            "wav",
            "audio_path",
            "audio_file",
            "wav_path",
            "wav_filename",
            "wav_file",
            "wav_filepath",
            "audio_filename",
            "audio_uri",
            "audio",
            "path",
            "file_name",
            "filename",
            "filepath",
            "file_path",
            "file",
            "uri",
            "source",
            "audio_url",
            "url",
        ],
    ),
];

/// The largest integer up to which a double is exact; larger ones were rounded when they were read.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// The fields that were found.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Fields {
    pub(crate) id: Option<String>,
    pub(crate) speaker: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) language: Option<String>,
    /// The split that the data put the row in.
    pub(crate) split: Option<String>,
    /// The sampling rate of a recording that is an array.
    pub(crate) sample_rate: Option<u32>,
    pub(crate) duration: Option<f64>,
    /// The start of the utterance in its recording; only in manifests.
    pub(crate) offset: Option<f64>,
    /// The recording; only in manifests.
    pub(crate) audio: Option<String>,
}

/// A parsed JSON object whose fields have not been read yet.
#[derive(Default)]
pub(crate) struct Object(Map<String, Value>);

impl From<Map<String, Value>> for Object {
    fn from(fields: Map<String, Value>) -> Self {
        Self(fields)
    }
}

impl Object {
    /// Parses a JSON object. `NaN` and `Infinity`, as Python writes them, count as missing. The problem follows the
    /// place's name.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let text = crate::encoding::without_mark(text);
        match parse(&text)? {
            Value::Object(object) => Ok(Self(object)),
            other => Err(format!("is {}, not a JSON object", kind(&other))),
        }
    }

    /// Returns an element of an array as an object.
    pub(crate) fn of(value: Value) -> Result<Self, String> {
        match value {
            Value::Object(object) => Ok(Self(object)),
            other => Err(format!("is {}, not a JSON object", kind(&other))),
        }
    }

    /// Gives fields that the recipe renames the name that is looked for first. Their alternative names no longer count.
    pub(crate) fn renamed(mut self, options: &ReadOptions<'_>) -> Self {
        let is_kept = |name: &str| {
            options.columns.iter().any(|column| column.name == name) || options.references.iter().any(|own| own == name)
        };
        for (field, from) in options.renames {
            let value = self.0.get(from).cloned();
            for name in names(field).iter().filter(|name| !is_kept(name)) {
                self.0.shift_remove(*name);
            }
            if let (Some(value), Some(name)) = (value, names(field).first()) {
                self.0.insert((*name).to_owned(), value);
            }
        }
        self
    }

    /// Gives a conversation, as ms-swift and others train audio models on it, the fields of a row: the recording is the only one of `audios` or
    /// of the parts of its messages, and the text what the assistant says, or else what the user says. The problem follows the place's name.
    pub(crate) fn of_conversation(mut self) -> Result<Self, String> {
        let messages =
            ["messages", "conversations", "conversation"].iter().find_map(|name| self.0.get(*name)?.as_array());
        if messages.is_none() && !self.0.contains_key("audios") {
            return Ok(self);
        }
        let messages: Vec<Message> = messages.into_iter().flatten().map(Message::of).collect();
        if audio(&self.0).ok().flatten().is_none() {
            let listed = match self.0.get("audios") {
                Some(Value::Array(audios)) => audios.clone(),
                Some(Value::Null) | None => messages.iter().flat_map(|message| message.audios.clone()).collect(),
                Some(one) => vec![one.clone()],
            };
            match listed.as_slice() {
                [one] => drop(self.0.insert("audio".to_owned(), one.clone())),
                [] => {}
                several => return Err(format!("has {} recordings in `audios`; a row has one", several.len())),
            }
        }
        if given(&self.0, names("text")).is_none() {
            let said = |role: &[&str]| {
                let is_own = |message: &&Message| role.contains(&message.role.as_str()) && !message.text.is_empty();
                messages.iter().rev().find(is_own).map(|message| message.text.clone())
            };
            let response = self.0.get("response").and_then(Value::as_str).map(spoken).filter(|text| !text.is_empty());
            let text = said(&["assistant", "gpt"]).or(response).or_else(|| said(&["user", "human"]));
            text.into_iter().for_each(|text| drop(self.0.insert("text".to_owned(), text.into())));
        }
        Ok(self)
    }

    /// Returns whether it has a field of this name with a value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    /// Returns the value of a field, if it has one.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Sets a field to a text.
    pub(crate) fn set(&mut self, name: &str, text: &str) {
        self.0.insert(name.to_owned(), Value::from(text));
    }

    /// Sets a field to a text, or to the number or list that a text is, if that is wanted.
    pub(crate) fn set_value(&mut self, name: &str, text: &str, is_text: bool) {
        let parsed = if is_text { None } else { parse(text.as_bytes()).ok() };
        self.0.insert(name.to_owned(), parsed.unwrap_or_else(|| Value::from(text)));
    }

    /// Removes a field.
    pub(crate) fn drop(&mut self, name: &str) {
        self.0.shift_remove(name);
    }

    /// Names of fields with the group of a row that has no recording.
    pub(crate) fn group(&self) -> Result<Option<String>, String> {
        word(&self.0, &["group"])
    }

    /// Returns only the id, to name a row whose other fields are wrong.
    pub(crate) fn id(&self) -> Option<String> {
        word(&self.0, names("id")).ok().flatten()
    }

    /// Returns only the recording, to name a row whose other fields are wrong.
    pub(crate) fn audio(&self) -> Option<String> {
        audio(&self.0).ok().flatten()
    }

    /// Reads the fields of an object next to a recording.
    pub(crate) fn fields(&self) -> Result<Fields, String> {
        Ok(Fields {
            id: word(&self.0, names("id"))?,
            speaker: word(&self.0, names("speaker"))?,
            text: text(&self.0)?,
            language: word(&self.0, names("language"))?,
            // Other tools use the word for lists and objects too, which name no split.
            split: word(&self.0, names("split")).unwrap_or_default(),
            sample_rate: word(&self.0, names("sample_rate")).unwrap_or_default().and_then(|rate| rate.parse().ok()),
            // An invalid duration is measured as if it were missing.
            duration: seconds(&self.0, names("duration")).unwrap_or_default(),
            offset: None,
            audio: None,
        })
    }

    /// Reads the fields of a manifest line, which also names its recording.
    pub(crate) fn row(&self) -> Result<Fields, String> {
        let offset = seconds(&self.0, names("offset"))?;
        if offset.is_some_and(|offset| offset > 0.0) {
            // For a piece of a recording, only the duration says where the piece ends.
            seconds(&self.0, names("duration"))?;
        }
        Ok(Fields { offset, audio: audio(&self.0)?, ..self.fields()? })
    }
}

/// A message of a conversation.
struct Message {
    role: String,
    /// The text without tags that stand for media.
    text: String,
    /// The recordings among its parts.
    audios: Vec<Value>,
}

impl Message {
    fn of(value: &Value) -> Self {
        let field = |names: [&str; 2]| names.iter().find_map(|name| value.get(*name));
        let role = field(["role", "from"]).and_then(Value::as_str).unwrap_or_default().to_owned();
        let content = field(["content", "value"]).unwrap_or(&Value::Null);
        let parts = content.as_array().map(Vec::as_slice).unwrap_or_default();
        let of_kind = |part: &Value, kind: &str| part.get("type").and_then(Value::as_str).is_none_or(|own| own == kind);
        let texts = parts.iter().filter(|part| of_kind(part, "text")).filter_map(|part| part.get("text")?.as_str());
        let text: Vec<&str> = content.as_str().into_iter().chain(texts).collect();
        let audios = parts.iter().filter(|part| of_kind(part, "audio"));
        let audios = audios.filter_map(|part| part.get("audio").or_else(|| part.get("audio_url"))).cloned().collect();
        Self { role, text: spoken(&text.join(" ")), audios }
    }
}

/// Returns a text without the tags that stand for media, such as `<audio>`.
fn spoken(text: &str) -> String {
    ["<audio>", "</audio>", "<video>", "<image>"]
        .iter()
        .fold(text.to_owned(), |text, tag| text.replace(tag, " "))
        .trim()
        .to_owned()
}

/// Parses any JSON value, with `NaN` and `Infinity` read as null.
pub(crate) fn parse(text: &[u8]) -> Result<Value, String> {
    let first = match serde_json::from_slice(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if let Cow::Owned(text) = without_nan(text)
        && let Ok(value) = serde_json::from_slice(&text)
    {
        return Ok(value);
    }
    // The parser counts lines within its input, which is one line of a file.
    let problem = first.to_string();
    let problem = problem.split(" at line ").next().unwrap_or_default();
    let advice = if text.contains(&b'\0') {
        "; a UTF-16 file must be converted: iconv -f UTF-16LE -t UTF-8"
    } else if text.starts_with(b"{'") {
        "; it is written as Python shows a dict, with `'` where JSON has `\"`: write it with json.dumps"
    } else if text.trim_ascii_end().ends_with(b",") {
        "; it ends with a comma, as in a JSON array: write one object per line"
    } else {
        ""
    };
    Err(format!("is not a JSON object: {problem} at column {}{advice}", first.column()))
}

/// Returns the names of a field.
fn names(field: &str) -> &'static [&'static str] {
    FIELDS.iter().find(|(name, _)| *name == field).map_or(&[], |(_, names)| names)
}

/// Returns whether a word is one of the names of a field, as in `KEY.speaker.txt`.
pub(crate) fn is_name_of(field: &str, word: &str) -> bool {
    names(field).contains(&word)
}

/// Returns the position of a name among those of a field; a large number for other words.
pub(crate) fn position_of(field: &str, word: &str) -> usize {
    names(field).iter().position(|name| *name == word).unwrap_or(usize::MAX)
}

/// The text with `NaN`, `Infinity` and their relatives outside strings replaced by `null`.
fn without_nan(text: &[u8]) -> Cow<'_, [u8]> {
    const WORDS: [&[u8]; 9] = [b"-Infinity", b"Infinity", b"-inf", b"inf", b"-NaN", b"NaN", b"-nan", b"nan", b"NAN"];
    let mut out: Option<Vec<u8>> = None;
    let (mut at, mut in_string, mut before) = (0, false, b' ');
    while at < text.len() {
        let byte = text[at];
        if in_string {
            let step = if byte == b'\\' { 2 } else { 1 };
            in_string = byte != b'"';
            if let Some(out) = &mut out {
                out.extend_from_slice(&text[at..(at + step).min(text.len())]);
            }
            at += step;
            before = b'"';
            continue;
        }
        let word =
            if before.is_ascii_alphanumeric() { None } else { WORDS.iter().find(|word| text[at..].starts_with(word)) };
        match word.filter(|word| !text.get(at + word.len()).is_some_and(u8::is_ascii_alphanumeric)) {
            Some(word) => {
                out.get_or_insert_with(|| text[..at].to_vec()).extend_from_slice(b"null");
                at += word.len();
                before = b'l';
            }
            None => {
                in_string = byte == b'"';
                if let Some(out) = &mut out {
                    out.push(byte);
                }
                at += 1;
                before = byte;
            }
        }
    }
    out.map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Describes the type of a value.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a JSON array",
        Value::Object(_) => "an object",
    }
}

/// Returns the first of these fields that has a value.
fn given<'a, 'n>(object: &'a Map<String, Value>, names: &'n [&'n str]) -> Option<(&'n str, &'a Value)> {
    let holds = |value: &&Value| !value.is_null() && value.as_str().is_none_or(|text| !text.trim().is_empty());
    // A number in `index` counts within a shard and names nothing.
    let names = names.iter().filter(|name| **name != "index" || object.get(**name).is_some_and(Value::is_string));
    names.filter_map(|name| object.get(*name).filter(holds).map(|value| (*name, value))).next()
}

/// Reads a field that is one word: a text or a number.
fn word(object: &Map<String, Value>, names: &[&str]) -> Result<Option<String>, String> {
    let Some((name, value)) = given(object, names) else { return Ok(None) };
    match value {
        Value::String(text) => Ok(Some(text.trim().to_owned())),
        Value::Number(number) if number.is_f64() => match number.as_f64() {
            // Pandas turns integers into floats if one is missing.
            Some(value) if value.fract() == 0.0 && value.abs() < MAX_EXACT => Ok(Some(format!("{value:.0}"))),
            Some(value) if value.abs() < MAX_EXACT => Ok(Some(number.to_string())),
            _ => Err(format!("has a `{name}` with more digits than a JSON number keeps; write it as a text")),
        },
        Value::Number(number) => Ok(Some(number.to_string())),
        other => Err(format!("has a `{name}` that is {}, neither text nor number", kind(other))),
    }
}

fn text(object: &Map<String, Value>) -> Result<Option<String>, String> {
    match given(object, names("text")) {
        None => Ok(None),
        Some((_, Value::String(text))) => Ok(Some(text.clone())),
        Some((name, other)) => Err(format!("has a `{name}` that is {}, not a text", kind(other))),
    }
}

/// Reads a field in seconds: a number, or a number as text.
fn seconds(object: &Map<String, Value>, names: &[&str]) -> Result<Option<f64>, String> {
    let Some((name, value)) = given(object, names) else { return Ok(None) };
    let parsed = match value {
        Value::String(text) => text.trim().parse::<f64>().ok(),
        value => value.as_f64(),
    };
    match parsed {
        Some(seconds) if seconds.is_nan() => Ok(None),
        Some(seconds) if seconds.is_finite() && seconds >= 0.0 => Ok(Some(seconds)),
        _ => Err(format!("has a `{name}` that is not a number of seconds")),
    }
}

/// Reads the recording: a path, or an object with one. An empty field is skipped in favor of the next.
fn audio(object: &Map<String, Value>) -> Result<Option<String>, String> {
    let mut problem = None;
    for name in names("audio") {
        let wrong = match object.get(*name) {
            None | Some(Value::Null) => continue,
            Some(Value::String(path)) if path.trim().is_empty() => continue,
            Some(Value::String(path)) => return Ok(Some(path.trim().to_owned())),
            Some(Value::Object(inner)) => match audio(inner) {
                Ok(Some(path)) => return Ok(Some(path)),
                _ => format!("has a `{name}` that is an object without a path"),
            },
            Some(other) => format!("has a `{name}` that is {}, not a path", kind(other)),
        };
        problem.get_or_insert(wrong);
    }
    problem.map_or(Ok(None), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Fields, String> {
        Object::parse(json.as_bytes())?.row()
    }

    #[test]
    fn a_conversation_has_a_recording_and_a_text() {
        let of = |json: &str| Object::parse(json.as_bytes())?.of_conversation()?.row();
        let swift = r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "<audio>What is said?"},
            {"role": "assistant", "content": "Fine weather."}], "audios": ["a/b.mp3"]}"#;
        let fields = of(&swift.replace('\n', " ")).unwrap();
        assert_eq!((fields.audio.as_deref(), fields.text.as_deref()), (Some("a/b.mp3"), Some("Fine weather.")));
        let spoken = r#"{"messages": [{"role": "user", "content": "Say this"}, {"role": "assistant", "content": "<audio>"}], "audios": "c.wav"}"#;
        assert_eq!(of(spoken).unwrap().text.as_deref(), Some("Say this"));
        let parts = r#"{"conversations": [{"from": "human", "value": [{"type": "audio", "audio": "d.wav"}]}, {"from": "gpt", "value": "Yes"}]}"#;
        let fields = of(parts).unwrap();
        assert_eq!((fields.audio.as_deref(), fields.text.as_deref()), (Some("d.wav"), Some("Yes")));
        assert!(of(r#"{"messages": [], "audios": ["a.wav", "b.wav"]}"#).unwrap_err().contains("2 recordings"));
        let plain = r#"{"audio": "e.wav", "text": "t", "messages": 3}"#;
        assert_eq!(of(plain).unwrap().text.as_deref(), Some("t"));
    }

    #[test]
    fn fields_by_the_names_of_public_pipelines() {
        let emilia = r#"{"_id": "EN_1", "text": " Hi there", "duration": 3.5, "speaker": "EN_S0", "language": "en", "dnsmos": 3.2}"#;
        let fields = read(emilia).unwrap();
        assert_eq!((fields.id.as_deref(), fields.speaker.as_deref()), (Some("EN_1"), Some("EN_S0")));
        assert_eq!((fields.text.as_deref(), fields.duration), (Some(" Hi there"), Some(3.5)));
        let voxbox = r#"{"index": "emilia_zh_7", "language": "zh", "speaker": null, "text": "x", "split": "train"}"#;
        let fields = read(voxbox).unwrap();
        assert_eq!((fields.id.as_deref(), fields.speaker), (Some("emilia_zh_7"), None));
        let counted = read(r#"{"index": 3, "spk_id": 7, "text": ""}"#).unwrap();
        assert_eq!(counted, Fields { speaker: Some("7".into()), ..Fields::default() });
        let nested =
            read(r#"{"audio": {"path": "a.wav", "bytes": null}, "normalized_text": "n", "caption": "c"}"#).unwrap();
        assert_eq!((nested.audio.as_deref(), nested.text.as_deref()), (Some("a.wav"), Some("n")));
        let next = read(r#"{"audio": {"path": null, "bytes": null}, "wav": 5, "path": "", "file": "b.wav"}"#).unwrap();
        assert_eq!(next.audio.as_deref(), Some("b.wav"));
        assert!(read(r#"{"audio": {"path": null}}"#).unwrap_err().contains("`audio`"));
    }

    #[test]
    fn numbers_texts_and_missing_values_as_people_write_them() {
        let fields = read(r#"{"id": 14, "speaker": 3.0, "duration": "3.1", "offset": " 2 "}"#).unwrap();
        assert_eq!((fields.id.as_deref(), fields.speaker.as_deref()), (Some("14"), Some("3")));
        assert_eq!((fields.duration, fields.offset), (Some(3.1), Some(2.0)));
        for json in [
            r#"{"duration": NaN, "text": "NaN is \"no\" value", "snr": [-Infinity, nan]}"#,
            r#"{"duration": "nan", "text": "NaN is \"no\" value"}"#,
            r#"{"duration": -1, "text": "NaN is \"no\" value"}"#,
            r#"{"duration": "3.5s", "offset": 0, "text": "NaN is \"no\" value"}"#,
            r#"{"duration": [1], "text": "NaN is \"no\" value"}"#,
            r#"{"duration": null, "text": "NaN is \"no\" value"}"#,
        ] {
            let fields = read(json).unwrap();
            assert_eq!((fields.duration, fields.text.as_deref()), (None, Some("NaN is \"no\" value")), "{json}");
        }
        assert_eq!(read(r#"{"utt": "a", "id": "b", "spk": "", "speaker_id": "s"}"#).unwrap().id.as_deref(), Some("a"));
    }

    #[test]
    fn fields_of_the_wrong_type_are_named() {
        for (json, word) in [
            (r#"{"text": 5}"#, "`text`"),
            (r#"{"speaker": ["a"]}"#, "`speaker`"),
            (r#"{"duration": -1, "offset": 0.5}"#, "`duration`"),
            (r#"{"duration": "long", "offset": 2}"#, "`duration`"),
            (r#"{"id": 123456789012345678901}"#, "`id`"),
            (r#"{"audio": [1]}"#, "`audio`"),
            (r#"[1]"#, "array"),
            (r#"{"text": "cut"#, "JSON"),
            (r#"{"a": NaNs}"#, "JSON"),
        ] {
            let problem = read(json).unwrap_err();
            assert!(problem.contains(word), "{problem}");
        }
        let deep = format!("{{\"text\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&deep).is_err());
    }
}
