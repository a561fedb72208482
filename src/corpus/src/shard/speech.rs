//! The columns of the speech flows' shards: those of CosyVoice's `tools/make_parquet_list.py`, and the training mel.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GROUP, ID};
use crate::{ColumnSpec, DType};

/// The precision that the training mel is stored with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MelStore {
    /// Half precision: half the space, with an error of at most 0.002 for log-mel values between -4 and 4.
    #[default]
    Float16,
    /// Single precision.
    Float32,
    /// No mel column; training computes it from `audio_data`.
    None,
}

impl MelStore {
    /// Returns the type of one value; `None` if no mel is stored.
    pub fn dtype(self) -> Option<DType> {
        match self {
            Self::Float16 => Some(DType::F16),
            Self::Float32 => Some(DType::F32),
            Self::None => None,
        }
    }
}

/// The column of the utterance's own embedding.
pub const UTT_EMBEDDING: &str = "utt_embedding";
/// The speaker's embedding.
pub const SPK_EMBEDDING: &str = "spk_embedding";
/// Speech tokens.
pub const SPEECH_TOKEN: &str = "speech_token";
/// The training mel.
pub const MEL: &str = "mel";
/// The recording's bytes.
pub const AUDIO_DATA: &str = "audio_data";
/// The path of the recording in the data.
pub const WAV: &str = "wav";
/// The transcript.
pub const TEXT: &str = "text";
/// The language.
pub const LANG: &str = "lang";
/// The duration of `audio_data` in seconds.
pub const DURATION: &str = "duration";
/// The sample rate of `audio_data`.
pub const SAMPLE_RATE: &str = "sample_rate";
/// The factor by which a row is faster than its recording; only rows of `prep.speed_perturb` have one.
pub const SPEED: &str = "speed";

/// The columns of a speech flow's shard, in the order of the file.
pub fn columns(mel: MelStore) -> Vec<ColumnSpec> {
    let mut columns = recording();
    columns.insert(0, ColumnSpec::new(ID, DType::Text).docs("id of the utterance"));
    columns.insert(4, ColumnSpec::new(GROUP, DType::Text).docs("speaker"));
    let features = [utt_embedding(), spk_embedding(), speech_token()];
    columns.splice(5..5, features);
    columns.extend(mel.dtype().map(self::mel));
    columns
}

/// The columns of a row's recording and transcript.
pub fn recording() -> Vec<ColumnSpec> {
    vec![
        ColumnSpec::new(WAV, DType::Text).docs("path of the recording, as the data give it"),
        ColumnSpec::new(AUDIO_DATA, DType::Bytes).docs("the recording in its own format; a cut WAV for a piece"),
        ColumnSpec::new(TEXT, DType::Text).docs("transcript"),
        ColumnSpec::new(LANG, DType::Text).optional().docs("language"),
        ColumnSpec::new(DURATION, DType::F64).docs("seconds of audio_data"),
        ColumnSpec::new(SAMPLE_RATE, DType::I32).docs("sample rate of audio_data in Hz"),
    ]
}

/// The speed of rows that differ from their recordings.
pub fn speed() -> ColumnSpec {
    ColumnSpec::new(SPEED, DType::F64).optional().docs("factor by which it is faster than the recording")
}

/// The utterance's own embedding.
pub fn utt_embedding() -> ColumnSpec {
    ColumnSpec::new(UTT_EMBEDDING, DType::F32).axis("value").docs("embedding of the utterance")
}

/// The embedding of the utterance's speaker.
pub fn spk_embedding() -> ColumnSpec {
    ColumnSpec::new(SPK_EMBEDDING, DType::F32).axis("value").docs("embedding of the speaker")
}

/// The speech tokens.
pub fn speech_token() -> ColumnSpec {
    ColumnSpec::new(SPEECH_TOKEN, DType::I64).axis("token").docs("speech tokens")
}

/// Returns the column of the training mel, with values of the given type.
pub fn mel(dtype: DType) -> ColumnSpec {
    ColumnSpec::new(MEL, dtype).axis("frame").axis("bin").docs("log-mel spectrogram")
}
