//! What the JSON beside a recording says.

use serde_json::{Map, Value};

/// The fields that are read, each with the names it goes by; of several the first that is there holds.
///
/// `utt` and the like are of Kaldi's and CosyVoice's pipelines, `_id` of Emilia, `index` of VoxBox (as RWKVTTS repacks it; only
/// when it is a text, for numbers count within a shard), `lang` and `duration` of NeMo.
pub const FIELDS: [(&str, &[&str]); 5] = [
    ("id", &["utt", "utt_id", "utterance_id", "id", "_id", "index"]),
    ("speaker", &["speaker", "spk", "speaker_id", "spk_id"]),
    ("text", &["text", "transcript", "transcription", "sentence"]),
    ("language", &["language", "lang"]),
    ("duration", &["duration"]),
];

/// What was found.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fields {
    pub(super) id: Option<String>,
    pub(super) speaker: Option<String>,
    pub(super) text: Option<String>,
    pub(super) language: Option<String>,
    pub(super) duration: Option<f64>,
}

impl Fields {
    /// Reads a JSON object; the problem follows the member's name.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF".as_slice()).unwrap_or(bytes);
        let object: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|e| format!("is no JSON object: {e}"))?;
        Ok(Self {
            id: word(&object, FIELDS[0].1)?,
            speaker: word(&object, FIELDS[1].1)?,
            text: text(&object)?,
            language: word(&object, FIELDS[3].1)?,
            duration: duration(&object)?,
        })
    }
}

/// The first of these fields that holds something.
fn given<'a, 'n>(object: &'a Map<String, Value>, names: &'n [&'n str]) -> Option<(&'n str, &'a Value)> {
    let holds = |value: &&Value| !value.is_null() && value.as_str().is_none_or(|text| !text.trim().is_empty());
    // A number there counts within a shard and names nothing.
    let names = names.iter().filter(|name| **name != "index" || object.get(**name).is_some_and(Value::is_string));
    names.filter_map(|name| object.get(*name).filter(holds).map(|value| (*name, value))).next()
}

/// A field that is one word: a text or a number.
fn word(object: &Map<String, Value>, names: &[&str]) -> Result<Option<String>, String> {
    match given(object, names) {
        None => Ok(None),
        Some((_, Value::String(text))) => Ok(Some(text.trim().to_owned())),
        Some((_, Value::Number(number))) => Ok(Some(number.to_string())),
        Some((name, _)) => Err(format!("has a `{name}` that is neither text nor number")),
    }
}

fn text(object: &Map<String, Value>) -> Result<Option<String>, String> {
    match given(object, FIELDS[2].1) {
        None => Ok(None),
        Some((_, Value::String(text))) => Ok(Some(text.clone())),
        Some((name, _)) => Err(format!("has a `{name}` that is no text")),
    }
}

fn duration(object: &Map<String, Value>) -> Result<Option<f64>, String> {
    let Some((name, value)) = given(object, FIELDS[4].1) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    seconds.map(Some).ok_or_else(|| format!("has a `{name}` that is no number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_by_the_names_of_public_pipelines() {
        let emilia = br#"{"_id": "EN_1", "text": " Hi there", "duration": 3.5, "speaker": "EN_S0", "language": "en", "dnsmos": 3.2}"#;
        let fields = Fields::parse(emilia).unwrap();
        assert_eq!((fields.id.as_deref(), fields.speaker.as_deref()), (Some("EN_1"), Some("EN_S0")));
        assert_eq!((fields.text.as_deref(), fields.duration), (Some(" Hi there"), Some(3.5)));
        let voxbox = br#"{"index": "emilia_zh_7", "language": "zh", "speaker": null, "text": "x", "split": "train"}"#;
        let fields = Fields::parse(voxbox).unwrap();
        assert_eq!((fields.id.as_deref(), fields.speaker), (Some("emilia_zh_7"), None));
        let counted = Fields::parse(br#"{"index": 3, "spk_id": 7, "text": ""}"#).unwrap();
        assert_eq!(counted, Fields { speaker: Some("7".into()), ..Fields::default() });
    }

    #[test]
    fn fields_of_the_wrong_type_are_named() {
        for (json, word) in [
            (r#"{"text": 5}"#, "`text`"),
            (r#"{"speaker": ["a"]}"#, "`speaker`"),
            (r#"{"duration": -1}"#, "`duration`"),
            (r#"{"duration": "long"}"#, "`duration`"),
            (r#"[1]"#, "no JSON object"),
            (r#"{"text": "cut"#, "no JSON object"),
        ] {
            let problem = Fields::parse(json.as_bytes()).unwrap_err();
            assert!(problem.contains(word), "{problem}");
        }
        let deep = format!("{{\"text\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Fields::parse(deep.as_bytes()).is_err());
    }
}
