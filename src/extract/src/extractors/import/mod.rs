//! The `import` kind: values that another tool extracted already, by the ids of utterances.
//!
//! CosyVoice's shell recipes keep what they extract in files of `torch.save`: `utt2embedding.pt` and `spk2embedding.pt` (id to list of
//! floats), `utt2speech_token.pt` (id to list of integers; Step-Audio's has `vq02`, `vq06` and their mixed sequence `vq0206` under
//! each id), one file per split. Nothing is fitted and nothing listened to: a stage looks its rows up. The state that stands for the extractor says
//! only where values came from, and an exported model that is asked about a new recording says that it cannot tell.
//!
//! Codes of a neural codec are read by an extractor of their own, `import-codes`: they are in a file for each row, not in one for all.

mod codes;
mod file;
mod files;
mod latents;
mod speakers;
mod vocabulary_offset;

use std::path::Path;

use candle_core::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use codes::{ImportCodes, ImportCodesConfig, ImportedCodec};
pub use file::{ImportError, read_embeddings, read_tokens};
pub use files::Files;
pub use latents::ImportLatentsConfig;
pub use speakers::{Choice, SpeakerFiles};
pub use vocabulary_offset::{mixed_sequence, mixed_streams};

use crate::dual_codebook::{DualCodebook, MIXED_RATE};
use crate::error::within;
use crate::{Column, ConfigError, ExtractError, Extracted, Extractor, Fit, Kind, Media, State, StateError};

/// The extractor's kind.
pub const KIND: &str = "import";

/// Settings of the `import` extractor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImportConfig {
    /// `utt2embedding.pt`: one file, or a list with one for each split. An utterance that two files have must have
    /// the same value in both.
    #[serde(skip_serializing_if = "Files::is_empty")]
    pub embeddings: Files,
    /// `spk2embedding.pt`: one file, a list, or a mapping from splits to files. Without it, speakers have the mean of
    /// their utterances. A speaker of several splits has the embedding of the row's own split: that of the file in
    /// the utterances' folder, or of the file with the split's name in its path.
    #[serde(skip_serializing_if = "Files::is_empty")]
    pub speakers: Files,
    /// Values of an embedding.
    pub dimensions: usize,
    /// `utt2speech_token.pt`: one file, or a list with one for each split.
    #[serde(skip_serializing_if = "Files::is_empty")]
    pub tokens: Files,
    /// Number of different tokens; with `dual` that of the codebooks.
    pub vocabulary: usize,
    /// Tokens per second, which stage 3 compares with the mel; with `dual` those of the mixed sequence.
    pub rate: f64,
    /// The sizes of the two codebooks, where `tokens` holds two streams: `vq0206`, or `vq02` and `vq06`, under each
    /// id. Ids that Step-Audio's tokenizer moved up by 65536 are moved back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dual: Option<DualCodebook>,
}

impl Default for ImportConfig {
    /// CAM++ embeddings and the tokens of the S3 tokenizer, version 2.
    fn default() -> Self {
        Self {
            embeddings: Files::default(),
            speakers: Files::default(),
            dimensions: 192,
            tokens: Files::default(),
            vocabulary: 6561,
            rate: 25.0,
            dual: None,
        }
    }
}

impl ImportConfig {
    /// The column that it fills.
    fn column(&self) -> Column {
        if self.tokens.is_empty() {
            return Column::embedding("utt_embedding", self.dimensions);
        }
        let (vocabulary, rate) = match self.dual {
            Some(codebook) => (codebook.mixed_vocabulary(), MIXED_RATE),
            None => (self.vocabulary, self.rate),
        };
        Column::tokens("speech_token", vocabulary, rate)
    }

    /// The files with their keys.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [("embeddings", &self.embeddings), ("speakers", &self.speakers), ("tokens", &self.tokens)];
        files.into_iter().flat_map(|(key, files)| files.iter().map(move |file| (key, file)))
    }

    /// The state that stands for the extractor.
    pub fn state(&self) -> State {
        State::new(KIND, serde_json::json!(self))
    }
}

impl Kind for ImportConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "Embeddings or tokens that another tool extracted, looked up by id in files of `torch.save` or \
                                 `pickle.dump`; nothing in them is executed. Utterances that a file lacks are rejected, ids of no \
                                 utterance are counted. A wrong size, a token beyond the vocabulary or NaN stops the stage and names the id.";
    const PATHS: &'static [&'static str] =
        &["embeddings", "embeddings.[]", "speakers", "speakers.[]", "speakers.*", "tokens", "tokens.[]"];

    fn columns(&self) -> Vec<Column> {
        vec![self.column()]
    }

    fn open(state: &State, _: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(Import::from_state(state)?))
    }

    fn check(&self) -> Result<(), ConfigError> {
        match (self.embeddings.is_empty(), self.tokens.is_empty()) {
            (true, true) => {
                let reason = "name the file: `embeddings: utt2embedding.pt`, or `tokens: utt2speech_token.pt`";
                return Err(ConfigError::new("kind", reason));
            }
            (false, false) => {
                return Err(ConfigError::new("tokens", "a stage imports embeddings or tokens, not both"));
            }
            _ => {}
        }
        for (key, files) in [("embeddings", &self.embeddings), ("tokens", &self.tokens)] {
            if !files.splits().is_empty() {
                return Err(ConfigError::new(
                    key,
                    "takes a file or a list of files; only `speakers` has a file per split",
                ));
            }
        }
        if !self.speakers.is_empty() && self.embeddings.is_empty() {
            return Err(ConfigError::new("speakers", "needs `embeddings` of utterances beside it"));
        }
        if self.dual.is_some() && self.tokens.is_empty() {
            return Err(ConfigError::new("dual", "is for `tokens`"));
        }
        within("dimensions", self.dimensions, 1, 65_536)?;
        if self.vocabulary == 0 {
            return Err(ConfigError::new("vocabulary", "a vocabulary has at least one token"));
        }
        if !(self.rate > 0.0 && self.rate.is_finite()) {
            return Err(ConfigError::new("rate", format!("{} is no number of tokens per second", self.rate)));
        }
        Ok(())
    }

    fn fit(&self, _: u64, _: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        Err(ConfigError::new("kind", "imported values are looked up, not fitted"))
    }

    fn import(&self) -> Option<&ImportConfig> {
        Some(self)
    }
}

/// Stands for the extractor that made the values, which is not here.
pub struct Import {
    config: ImportConfig,
}

impl Import {
    /// The import that a state describes.
    ///
    /// # Errors
    /// When the state is of another kind.
    pub fn from_state(state: &State) -> Result<Self, StateError> {
        let config = state.settings_as(KIND)?;
        Ok(Self { config })
    }
}

impl Extractor for Import {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        self.config.columns()
    }

    fn extract(&self, _: &Media) -> Result<Extracted, ExtractError> {
        let what = self.config.column().values.name();
        let files: Vec<String> = self.config.files().map(|(_, file)| file.display().to_string()).collect();
        Err(ExtractError::Media(format!(
            "its {what} would have to be extracted, but this model's were imported from {}; only their extractor's weights can",
            files.join(" and ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ValueType;

    fn config(yaml: serde_json::Value) -> ImportConfig {
        serde_json::from_value(yaml).unwrap()
    }

    #[test]
    fn an_import_is_of_embeddings_or_of_tokens() {
        let embeddings = config(serde_json::json!({"embeddings": "a.pt"}));
        assert_eq!(embeddings.column().values, ValueType::Embedding { dimensions: 192 });
        let tokens = config(serde_json::json!({"tokens": ["a.pt", "b.pt"]}));
        assert_eq!(tokens.column().values, ValueType::Tokens { vocabulary: 6561, rate: 25.0 });
        let dual = config(serde_json::json!({"tokens": "a.pt", "dual": {}}));
        assert_eq!(dual.column().values, ValueType::Tokens { vocabulary: 5120, rate: MIXED_RATE });
        for good in [&embeddings, &tokens, &dual] {
            good.check().unwrap();
            assert_eq!(Import::from_state(&good.state()).unwrap().config, *good);
        }
        for (bad, field) in [
            (serde_json::json!({}), "kind"),
            (serde_json::json!({"tokens": []}), "kind"),
            (serde_json::json!({"embeddings": "a.pt", "tokens": "b.pt"}), "tokens"),
            (serde_json::json!({"tokens": "a.pt", "speakers": "b.pt"}), "speakers"),
            (serde_json::json!({"embeddings": "a.pt", "dual": {}}), "dual"),
            (serde_json::json!({"embeddings": "a.pt", "dimensions": 0}), "dimensions"),
            (serde_json::json!({"tokens": "a.pt", "rate": 0.0}), "rate"),
        ] {
            assert_eq!(config(bad).check().unwrap_err().field, field);
        }
    }

    #[test]
    fn a_new_recording_is_beyond_it() {
        let import = Import::from_state(&config(serde_json::json!({"tokens": "a.pt"})).state()).unwrap();
        let media = Media::audio(|| Err::<flowmill_audio::Audio, _>("never read"));
        assert!(import.extract(&media).unwrap_err().to_string().contains("imported from a.pt"));
    }
}
