//! The columns of a shard and their Arrow types.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The precision that the training mel is stored with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MelStore {
    /// Half precision: half the space, an error of at most 0.002 for log-mel values between -4 and 4.
    #[default]
    Float16,
    /// Single precision.
    Float32,
    /// No mel column; training computes it from `audio_data`.
    None,
}

impl MelStore {
    /// The Arrow type of one value; `None` when no mel is stored.
    fn value_type(self) -> Option<DataType> {
        match self {
            Self::Float16 => Some(DataType::Float16),
            Self::Float32 => Some(DataType::Float32),
            Self::None => None,
        }
    }
}

/// A column of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Column {
    Utt,
    Wav,
    AudioData,
    Text,
    Spk,
    UttEmbedding,
    SpkEmbedding,
    SpeechToken,
    Lang,
    Duration,
    SampleRate,
    /// `mel` with `mel_frames` and `mel_bins`.
    Mel,
}

impl Column {
    /// Every column.
    pub const ALL: [Self; 12] = [
        Self::Utt,
        Self::Wav,
        Self::AudioData,
        Self::Text,
        Self::Spk,
        Self::UttEmbedding,
        Self::SpkEmbedding,
        Self::SpeechToken,
        Self::Lang,
        Self::Duration,
        Self::SampleRate,
        Self::Mel,
    ];

    /// The names in the file.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Utt => &["utt"],
            Self::Wav => &["wav"],
            Self::AudioData => &["audio_data"],
            Self::Text => &["text"],
            Self::Spk => &["spk"],
            Self::UttEmbedding => &["utt_embedding"],
            Self::SpkEmbedding => &["spk_embedding"],
            Self::SpeechToken => &["speech_token"],
            Self::Lang => &["lang"],
            Self::Duration => &["duration"],
            Self::SampleRate => &["sample_rate"],
            Self::Mel => &["mel", "mel_frames", "mel_bins"],
        }
    }
}

/// The schema of a shard.
pub(super) fn schema(mel: MelStore) -> Arc<Schema> {
    let list = |name: &str, value: DataType| Field::new(name, list_of(value), false);
    let mut fields = vec![
        Field::new("utt", DataType::Utf8, false),
        Field::new("wav", DataType::Utf8, false),
        Field::new("audio_data", DataType::Binary, false),
        Field::new("text", DataType::Utf8, false),
        Field::new("spk", DataType::Utf8, false),
        list("utt_embedding", DataType::Float32),
        list("spk_embedding", DataType::Float32),
        list("speech_token", DataType::Int64),
        Field::new("lang", DataType::Utf8, true),
        Field::new("duration", DataType::Float64, false),
        Field::new("sample_rate", DataType::Int32, false),
    ];
    if let Some(value) = mel.value_type() {
        fields.push(list("mel", value));
        fields.push(Field::new("mel_frames", DataType::Int32, false));
        fields.push(Field::new("mel_bins", DataType::Int32, false));
    }
    Arc::new(Schema::new(fields))
}

/// A list without missing values.
pub(super) fn list_of(value: DataType) -> DataType {
    DataType::List(list_item(value))
}

/// The field of a list's values, named as the Parquet format names it.
pub(super) fn list_item(value: DataType) -> Arc<Field> {
    Arc::new(Field::new("element", value, false))
}
