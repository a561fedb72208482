//! GigaSpeech: one JSON file that lists long recordings with their segments. It is larger than memory may be, so it is
//! read recording by recording.

use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use super::Corpus;
use crate::fields::Object;
use crate::manifest::{Parsed, folder_of, taken};
use crate::objects::RowReader;
use crate::paths::{joined, prefix_of};
use crate::{CorpusError, ReadOptions, Reading, Rejection};

/// The name of the index.
pub(crate) const INDEX: &str = "GigaSpeech.json";

/// Punctuation that transcripts spell out.
const MARKS: [(&str, &str); 4] =
    [("<COMMA>", ","), ("<PERIOD>", "."), ("<QUESTIONMARK>", "?"), ("<EXCLAMATIONPOINT>", "!")];
/// Words for what is no speech.
const NOISES: [&str; 4] = ["<SIL>", "<MUSIC>", "<NOISE>", "<OTHER>"];

/// Returns the path of the index: the source, or the file in it.
pub(super) fn index(root: &Path, dir: &str) -> Result<String, CorpusError> {
    let full = root.join(dir);
    if full.is_file() {
        return Ok(dir.to_owned());
    }
    let path = joined(&prefix_of(dir), INDEX);
    if !root.join(&path).is_file() {
        return Err(CorpusError::structure(&full, format!("has no {}", Corpus::GigaSpeech.expected())));
    }
    Ok(path)
}

/// Reads the segments of all recordings.
pub(super) fn read(root: &Path, dir: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let path = index(root, dir)?;
    let full = root.join(&path);
    let file = File::open(&full).map_err(|e| CorpusError::io("read", &full, e))?;
    let reader = RowReader::new(folder_of(&path), "bad segment", options);
    let mut parsed = Parsed::new();
    let mut recordings = 0u64;
    let each = |recording: Value, language: Option<&str>| {
        segments(&reader, recording, language, recordings, &mut parsed);
        recordings += 1;
    };
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(file));
    json.deserialize_map(Index(each))
        .map_err(|e| CorpusError::structure(&full, format!("is not the index of GigaSpeech: {e}")))?;
    let reading = Reading { files: vec![full], ..Reading::default() };
    Ok(taken(reading, parsed, options))
}

/// Adds the rows of a recording's segments.
fn segments(reader: &RowReader<'_>, recording: Value, language: Option<&str>, at: u64, parsed: &mut Parsed) {
    let place = format!("{INDEX} audios[{at}]");
    let bad = |problem: &str| Rejection { id: place.clone(), reason: format!("bad recording: {place} {problem}") };
    let Value::Object(mut recording) = recording else {
        return parsed.push(Err(bad("is not a JSON object")));
    };
    let Some(Value::Array(segments)) = recording.shift_remove("segments") else {
        return parsed.push(Err(bad("has no array `segments`")));
    };
    for (number, segment) in segments.into_iter().enumerate() {
        let place = format!("{place}.segments[{number}]");
        let row = match segment {
            Value::Object(segment) => reader.row(Ok(row_of(&recording, segment, language)), None, place),
            _ => reader.row(Err("is not a JSON object".into()), None, place),
        };
        parsed.push(row);
    }
}

/// Returns the fields of a segment, by the names of manifests.
fn row_of(recording: &Map<String, Value>, segment: Map<String, Value>, language: Option<&str>) -> Object {
    let mut row = recording.clone();
    row.extend(segment);
    let text = row.get("text_tn").and_then(Value::as_str).map(spoken);
    let seconds = |name: &str| row.get(name).and_then(Value::as_f64);
    let (begin, end) = (seconds("begin_time"), seconds("end_time"));
    let duration = begin.zip(end).map(|(begin, end)| ((end - begin) * 1e6).round() / 1e6);
    let has_name = row.get("speaker").and_then(Value::as_str).is_some_and(|speaker| !matches!(speaker, "" | "N/A"));
    let speaker = if has_name { row.get("speaker").cloned() } else { row.get("aid").cloned() };
    let subsets = row.get("subsets").and_then(Value::as_array).cloned().unwrap_or_default();
    let is_in = |subset: &str| subsets.iter().any(|own| own == subset);
    let split = [("{DEV}", "dev"), ("{TEST}", "test")].into_iter().find(|(subset, _)| is_in(subset));
    let fields = [
        ("utt", row.get("sid").cloned()),
        ("audio_filepath", row.get("path").cloned()),
        ("offset", begin.map(|begin| json!(begin))),
        ("duration", duration.map(|duration| json!(duration))),
        ("text", text.map(Value::from)),
        ("speaker", speaker),
        ("language", language.map(|language| json!(language.to_ascii_lowercase()))),
        ("split", Some(json!(split.map_or("train", |(_, name)| name)))),
    ];
    for (name, value) in fields {
        // Without its times, a segment would be the whole recording.
        let value = value.or_else(|| (name == "offset" || name == "duration").then(|| json!("missing")));
        row.insert(name.to_owned(), value.unwrap_or_default());
    }
    Object::from(row)
}

/// Returns a transcript with plain punctuation, without the words for noises.
fn spoken(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace().filter(|word| !NOISES.contains(word)) {
        match MARKS.iter().find(|(name, _)| *name == word) {
            Some((_, mark)) => out += mark,
            None if out.is_empty() => out += word,
            None => {
                out.push(' ');
                out += word;
            }
        }
    }
    out
}

/// The visitor of the index, with what to do with each recording and the language.
struct Index<F>(F);

impl<'de, F: FnMut(Value, Option<&str>)> Visitor<'de> for Index<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `audios`")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let (mut language, mut found) = (None::<String>, false);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "language" => language = map.next_value::<Value>()?.as_str().map(str::to_owned),
                "audios" => {
                    found = true;
                    map.next_value_seed(Recordings { each: &mut self.0, language: language.as_deref() })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if found { Ok(()) } else { Err(A::Error::missing_field("audios")) }
    }
}

/// The array of recordings.
struct Recordings<'a, F> {
    each: &'a mut F,
    language: Option<&'a str>,
}

impl<'de, F: FnMut(Value, Option<&str>)> DeserializeSeed<'de> for Recordings<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(Value, Option<&str>)> Visitor<'de> for Recordings<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of recordings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(recording) = seq.next_element()? {
            (self.each)(recording, self.language);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punctuation_is_written_and_noises_are_left_out() {
        assert_eq!(spoken("YES <COMMA> WELL <NOISE> <PERIOD>"), "YES, WELL.");
        assert_eq!(spoken("<MUSIC>"), "");
    }
}
