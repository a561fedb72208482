//! The JSON of a row.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::shard::speech;
use crate::{Array, ArrayData, Row};

/// A row without its recording and its larger columns. The first five names are those that WebDataset readers of
/// speech (including stage 0) know.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sidecar {
    id: String,
    speaker: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    duration: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sample_rate: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wav: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    utt_embedding: Option<Vec<f32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spk_embedding: Option<Vec<f32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    speech_token: Option<Vec<i64>>,
    /// Strings of other columns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    columns: BTreeMap<String, Text>,
}

/// A string, or strings along one axis or more.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    One(String),
    Many { shape: Vec<usize>, values: Vec<String> },
}

impl Sidecar {
    /// Returns the JSON of a row, and the names of the columns in it.
    pub(super) fn of(row: &Row) -> (Self, Vec<&str>) {
        fn scalar<T: crate::Element>(row: &Row, name: &str) -> Option<T> {
            row.value::<T>(name).ok().cloned()
        }
        fn vector<T: crate::Element>(row: &Row, name: &str) -> Option<Vec<T>> {
            row.column(name).ok().filter(|array| array.shape().len() == 1)?.values::<T>().ok().map(<[T]>::to_vec)
        }
        let mut sidecar = Self {
            id: row.id.clone(),
            speaker: row.group.clone(),
            text: scalar(row, speech::TEXT),
            language: scalar(row, speech::LANG),
            duration: scalar::<f64>(row, speech::DURATION).filter(|seconds| seconds.is_finite()),
            sample_rate: scalar(row, speech::SAMPLE_RATE),
            wav: scalar(row, speech::WAV),
            utt_embedding: vector(row, speech::UTT_EMBEDDING).filter(|values| all_finite(values)),
            spk_embedding: vector(row, speech::SPK_EMBEDDING).filter(|values| all_finite(values)),
            speech_token: vector(row, speech::SPEECH_TOKEN),
            columns: BTreeMap::new(),
        };
        let known = [
            (speech::TEXT, sidecar.text.is_some()),
            (speech::LANG, sidecar.language.is_some()),
            (speech::DURATION, sidecar.duration.is_some()),
            (speech::SAMPLE_RATE, sidecar.sample_rate.is_some()),
            (speech::WAV, sidecar.wav.is_some()),
            (speech::UTT_EMBEDDING, sidecar.utt_embedding.is_some()),
            (speech::SPK_EMBEDDING, sidecar.spk_embedding.is_some()),
            (speech::SPEECH_TOKEN, sidecar.speech_token.is_some()),
        ];
        let mut names: Vec<&str> = known.into_iter().filter(|(_, is_here)| *is_here).map(|(name, _)| name).collect();
        for (name, array) in &row.columns {
            let ArrayData::Text(values) = array.data() else { continue };
            if names.contains(&name.as_str()) {
                continue;
            }
            let text = match (values.as_slice(), array.shape()) {
                ([value], []) => Text::One(value.clone()),
                _ => Text::Many { shape: array.shape().to_vec(), values: values.clone() },
            };
            sidecar.columns.insert(name.clone(), text);
            names.push(name);
        }
        (sidecar, names)
    }

    /// Returns the row, with the columns that are in the JSON.
    pub(super) fn into_row(self) -> Result<Row, String> {
        let mut columns = BTreeMap::new();
        let mut put = |name: &str, array: Option<Array>| {
            array.into_iter().for_each(|array| drop(columns.insert(name.to_owned(), array)));
        };
        put(speech::TEXT, self.text.map(Array::text));
        put(speech::LANG, self.language.map(Array::text));
        put(speech::DURATION, self.duration.map(Array::scalar));
        put(speech::SAMPLE_RATE, self.sample_rate.map(Array::scalar));
        put(speech::WAV, self.wav.map(Array::text));
        put(speech::UTT_EMBEDDING, self.utt_embedding.map(Array::vector));
        put(speech::SPK_EMBEDDING, self.spk_embedding.map(Array::vector));
        put(speech::SPEECH_TOKEN, self.speech_token.map(Array::vector));
        for (name, text) in self.columns {
            let array = match text {
                Text::One(value) => Array::text(value),
                Text::Many { shape, values } => {
                    Array::new(shape, values).map_err(|error| format!("column `{name}`: {error}"))?
                }
            };
            columns.insert(name, array);
        }
        Ok(Row { id: self.id, group: self.speaker, columns, ..Row::default() })
    }
}

/// Returns whether JSON can represent the numbers.
fn all_finite(values: &[f32]) -> bool {
    values.iter().all(|value| value.is_finite())
}
