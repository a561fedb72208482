//! The recipe's section `pack`.

use flowmill_audio::AudioError;
use flowmill_audio::features::MelConfig;
use flowmill_corpus::shard::{MelStore, speech};
use flowmill_runner::{Recipe, RecipeError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The section's name.
pub const SECTION: &str = "pack";

/// Settings of stage 3, `pack`: the shards that training reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PackConfig {
    /// Format of the shards; training reads both.
    pub format: Container,
    /// Number of rows of stage 0 per shard.
    pub utterances_per_shard: usize,
    /// The zstd level of Parquet shards, 1 to 22.
    pub compression_level: i32,
    /// The columns of shards, from those that stages 0 to 2 provide. By default those that the model's family needs, and
    /// those in `prep.columns` and `prep.references`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Minimum number of tokens of an utterance; utterances with fewer are rejected. With two codebooks, the ids of
    /// the mixed sequence are counted (41.7 per second).
    pub min_tokens: usize,
    /// Maximum number of tokens of an utterance; utterances with more are rejected; 0 for no limit. Utterances whose
    /// tokens and mel differ in length by more than 4 tokens and 2 % of the mel are always rejected. CosyVoice's
    /// training code expects one token at 25 Hz for every 40 ms that have begun. If one token is missing, the last
    /// one is repeated; if there is one too many, it is dropped; the stage counts such rows.
    pub max_tokens: usize,
    /// The training mel.
    pub mel: MelSection,
    /// The form of file names in `data.list` and the other lists.
    pub list_paths: ListStyle,
}

impl Default for PackConfig {
    fn default() -> Self {
        Self {
            format: Container::default(),
            utterances_per_shard: 1000,
            compression_level: 3,
            columns: None,
            min_tokens: 1,
            max_tokens: 0,
            mel: MelSection::default(),
            list_paths: ListStyle::default(),
        }
    }
}

/// A format of shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// Parquet with the columns that CosyVoice reads.
    #[default]
    Parquet,
    /// Tar files with a recording, a JSON and a mel for each row.
    Webdataset,
}

impl Container {
    /// Returns the extension of a shard's name.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Webdataset => "tar",
        }
    }
}

/// The training mel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MelSection {
    /// The precision of stored mels.
    pub store: MelStore,
    /// The published definition of the mel.
    pub definition: Definition,
    /// Fields that differ from the definition.
    pub overrides: Overrides,
}

/// A published definition of the mel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Definition {
    /// CosyVoice 2: 24 kHz, 80 bands to 8 kHz, window 1920, hop 480 (50 frames per second).
    #[default]
    Cosyvoice2,
    /// CosyVoice 3: 24 kHz, 80 bands to 12 kHz, window 1920, hop 480.
    Cosyvoice3,
    /// Matcha-TTS on LJSpeech: 22.05 kHz, 80 bands to 8 kHz, window 1024, hop 256.
    Matcha,
    /// Step-Audio: 24 kHz, 80 bands to 12 kHz, window 2048, hop 480.
    StepAudio,
}

/// Fields of the mel that differ from its definition.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Overrides {
    /// Sampling rate, in hertz.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<u32>,
    /// Length of the Fourier transform, in samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_fft: Option<usize>,
    /// Length of the window, in samples, at most `n_fft`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub win_length: Option<usize>,
    /// Samples from one frame to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hop_length: Option<usize>,
    /// Number of mel bands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_mels: Option<usize>,
    /// Lower edge of the lowest band, in hertz.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fmin: Option<f32>,
    /// Upper edge of the highest band, in hertz.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fmax: Option<f32>,
}

/// The form of file names in list files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListStyle {
    /// By name: the lists may move with their folder. CosyVoice, which opens paths relative to its working directory,
    /// has to run in that folder.
    #[default]
    Name,
    /// By absolute path: CosyVoice can run anywhere, but the lists are valid only in this place.
    Absolute,
}

impl MelSection {
    /// Returns the mel with all overrides applied.
    pub fn config(&self) -> MelConfig {
        let mut mel = match self.definition {
            Definition::Cosyvoice2 => MelConfig::cosyvoice2(),
            Definition::Cosyvoice3 => MelConfig::cosyvoice3(),
            Definition::Matcha => MelConfig::matcha(),
            Definition::StepAudio => MelConfig::step_audio(),
        };
        let own = &self.overrides;
        mel.sample_rate = own.sample_rate.unwrap_or(mel.sample_rate);
        mel.n_fft = own.n_fft.unwrap_or(mel.n_fft);
        mel.win_length = own.win_length.unwrap_or(mel.win_length);
        mel.hop_length = own.hop_length.unwrap_or(mel.hop_length);
        mel.n_mels = own.n_mels.unwrap_or(mel.n_mels);
        mel.fmin = own.fmin.unwrap_or(mel.fmin);
        mel.fmax = own.fmax.unwrap_or(mel.fmax);
        mel
    }

    /// Returns the description of the mel in shards, indexes and receipts: `definition`, `store` and every field of
    /// [`MelConfig`].
    pub fn describe(&self) -> Value {
        json!({ "definition": self.definition, "store": self.store, "config": self.config() })
    }
}

impl PackConfig {
    /// Reads the section of a recipe and checks for impossible combinations.
    ///
    /// # Errors
    /// Returns the invalid key.
    pub fn of(recipe: &Recipe) -> Result<Self, RecipeError> {
        let mut config: Self = recipe.section(SECTION)?;
        if let Some((key, message)) = config.problem() {
            return Err(recipe.error(&format!("{SECTION}.{key}"), message));
        }
        if config.columns.as_ref().is_some_and(|names| !names.iter().any(|name| name == speech::MEL)) {
            config.mel.store = MelStore::None;
        }
        Ok(config)
    }

    /// Returns the reason for rejecting an utterance with this number of tokens, if any. The part before the colon is
    /// the same for all reasons of one kind.
    pub(crate) fn refuses(&self, tokens: usize) -> Option<String> {
        let (least, most) = (self.min_tokens, self.max_tokens);
        match tokens {
            count if count < least => Some(format!("too few tokens: {count}, at least {least}")),
            count if most > 0 && count > most => Some(format!("too many tokens: {count}, at most {most}")),
            _ => None,
        }
    }

    /// Returns the first problem, with its key.
    fn problem(&self) -> Option<(String, String)> {
        let names_mel = self.columns.iter().flatten().any(|name| name == speech::MEL);
        if names_mel && self.mel.store == MelStore::None {
            return Some(("columns".into(), "contains `mel`, but mel.store is none".into()));
        }
        if self.utterances_per_shard == 0 {
            return Some(("utterances_per_shard".into(), "a shard has at least one row".into()));
        }
        if self.max_tokens > 0 && self.min_tokens > self.max_tokens {
            return Some(("min_tokens".into(), format!("is more than max_tokens, {}", self.max_tokens)));
        }
        if !(1..=22).contains(&self.compression_level) {
            return Some(("compression_level".into(), "zstd has the levels 1 to 22".into()));
        }
        match self.mel.config().check() {
            Ok(()) => None,
            Err(AudioError::Config { field, value, expected }) => {
                Some((format!("mel.overrides.{field}"), format!("{field} is {value}; expected {expected}")))
            }
            Err(other) => Some(("mel.overrides".into(), other.to_string())),
        }
    }
}
