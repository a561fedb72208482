//! The `prompt-tokens` extractor: what a language model reads about a user, as ids of its tokenizer.
//!
//! | `text` | the text |
//! |---|---|
//! | `history` | the prompt with the captions of the history (column `history_captions` of stage 0), see [`history_prompt`] |
//! | `caption` | the text of the row itself |
//!
//! | `tokenizer` | ids |
//! |---|---|
//! | `words` | words of the training split, in lower case, and marks; needs no file |
//! | a path | a `tokenizer.json`, a `tokenizer.model` of SentencePiece, or a folder with one of them |
//!
//! Ids begin with the symbol of the beginning; none of the end follows. They are filled up at the right, with the symbol of the end, as
//! the public PMG code does (`pmg/data/dataset.py`, `scripts/train.py`). A longer text rejects the row.

mod fit;
mod prompt;
mod sentencepiece;
mod tokenizer;

pub use prompt::history_prompt;
pub use tokenizer::PromptTokenizer;

use std::path::{Path, PathBuf};

use candle_core::Device;
use flowmill_corpus::histories::HISTORY_CAPTIONS;
use flowmill_corpus::{Array, ColumnSpec, DType, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::fit::WordsFit;
use crate::weights::Pretrained;
use crate::{Column, ConfigError, ExtractError, Extracted, Extractor, Fit, Fitted, Kind, Media, State, StateError};

/// The extractor's kind.
pub const KIND: &str = "prompt-tokens";

/// The column of ids, `[token]`.
pub const INPUT_IDS: &str = "input_ids";

/// The column of the number of ids before the padding.
pub const TOKEN_LEN: &str = "token_len";

/// The array of the tokenizer's description in the state: its bytes, eight per number.
const TOKENIZER: &str = "tokenizer";
/// The array with the number of these bytes.
const TOKENIZER_BYTES: &str = "tokenizer_bytes";

/// The text that is read about a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PromptText {
    /// The prompt with the captions of the history.
    #[default]
    History,
    /// The text of the row.
    Caption,
}

/// Settings of the `prompt-tokens` extractor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PromptTokensConfig {
    /// The text of a row: `history`, the prompt with the captions of the user's history; or `caption`, the row's own text.
    pub text: PromptText,
    /// The tokenizer: `words` for one that is made of the words of the training split, or the path of a `tokenizer.json`, a
    /// `tokenizer.model` or a folder with one of them.
    ///
    /// Counterparts: the tokenizer in PMG's `model.llama`.
    pub tokenizer: PathBuf,
    /// `words`: the largest number of ids, three symbols included. Rarer words are unknown.
    pub vocabulary: usize,
    /// The number of ids of a row, padding included.
    ///
    /// Counterparts: PMG's `pmg.max_sequence_length`.
    pub max_sequence_length: usize,
    /// The number of places at the end that are kept free for image prompts.
    ///
    /// Counterparts: PMG's `pmg.num_image_prompt`.
    pub num_image_prompt: usize,
}

/// The name of the tokenizer of words.
const WORDS: &str = "words";

impl Default for PromptTokensConfig {
    fn default() -> Self {
        Self {
            text: PromptText::History,
            tokenizer: PathBuf::from(WORDS),
            vocabulary: 4000,
            max_sequence_length: 600,
            num_image_prompt: 2,
        }
    }
}

impl PromptTokensConfig {
    /// Returns the path of the tokenizer, unless it is made of words.
    fn file(&self) -> Option<&Path> {
        (self.tokenizer != Path::new(WORDS)).then_some(self.tokenizer.as_path())
    }

    /// Returns the text about a row.
    fn text_of(&self, media: &Media) -> Result<String, ExtractError> {
        match self.text {
            PromptText::Caption => media.text(KIND).map(str::to_owned),
            PromptText::History => {
                let captions = media.texts(HISTORY_CAPTIONS).filter(|captions| !captions.is_empty());
                let problem = format!(
                    "the row has no captions of a history (column {HISTORY_CAPTIONS}); `format: histories` gives them, \
                     or use `text: caption`"
                );
                captions.map(history_prompt).ok_or(ExtractError::Text { extractor: KIND, problem })
            }
        }
    }

    /// Returns the fitted state with a tokenizer, which `json` describes.
    fn fitted(&self, json: &[u8]) -> Result<Fitted, StateError> {
        let tokenizer = PromptTokenizer::from_json(json).map_err(|problem| self.unusable(&problem))?;
        // The place of a file is no content.
        let name = self.tokenizer.file_name().map_or_else(|| self.tokenizer.clone(), PathBuf::from);
        let mut state = State::new(KIND, json!(Self { tokenizer: name, ..self.clone() }));
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let numbers: Vec<u64> = json.chunks(8).map(number).collect();
        state.set_u64(TOKENIZER_BYTES, &[1], vec![json.len() as u64]);
        state.set_u64(TOKENIZER, &[numbers.len()], numbers);
        let facts = vec![
            ("tokenizer".to_owned(), json!(self.tokenizer)),
            ("vocabulary".to_owned(), tokenizer.vocabulary().into()),
        ];
        Ok(Fitted { state, facts })
    }

    fn unusable(&self, problem: &str) -> StateError {
        StateError::Format { path: self.tokenizer.clone(), reason: problem.to_owned() }
    }
}

impl Kind for PromptTokensConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "The prompt about a user with the captions of the history, or a caption, as ids of a language model's tokenizer \
                                 (`tokenizer.json`, `tokenizer.model`, or words of the training split).";
    const PATHS: &'static [&'static str] = &["tokenizer"];
    const WORDS: &'static [&'static str] = &[WORDS];
    const MEDIA: &'static [Role] = &[];
    const TEXT: bool = true;
    const COLUMNS: &'static [&'static str] = &[HISTORY_CAPTIONS];

    fn columns(&self) -> Vec<Column> {
        vec![
            ColumnSpec::new(INPUT_IDS, DType::I32)
                .fixed_axis("token", self.max_sequence_length)
                .docs("ids of the prompt, filled up at the right")
                .into(),
            ColumnSpec::new(TOKEN_LEN, DType::I32).docs("the number of ids before the padding").into(),
        ]
    }

    fn open(state: &State, _: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(PromptTokens::from_state(state)?))
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.tokenizer.as_os_str().is_empty() {
            return Err(ConfigError::new("tokenizer", "name a tokenizer.json, a tokenizer.model, or `words`"));
        }
        if self.vocabulary < 4 {
            return Err(ConfigError::new("vocabulary", "there are three symbols, and at least one word"));
        }
        if self.max_sequence_length > 1 << 20 {
            return Err(ConfigError::new("max_sequence_length", "at most 1048576 ids"));
        }
        if self.max_sequence_length <= self.num_image_prompt {
            let problem = format!("leaves no id next to {} image prompts", self.num_image_prompt);
            return Err(ConfigError::new("max_sequence_length", problem));
        }
        Ok(())
    }

    fn learning(&self) -> Option<serde_json::Value> {
        self.file().is_none().then(|| json!({ "text": self.text }))
    }

    fn fit(&self, _: u64, root: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        let config = self.clone();
        let Some(path) = self.file() else { return Ok(Box::new(WordsFit { config })) };
        let path = tokenizer::file_of(&root.join(path));
        Ok(Box::new(Pretrained::new(KIND, move || {
            let json = tokenizer::read(&path);
            let json = json.map_err(|reason| StateError::Format { path: path.clone(), reason })?;
            config.fitted(&json)
        })))
    }

    fn other_files(&self) -> Vec<&Path> {
        self.file().into_iter().collect()
    }

    fn other_files_read(&self, root: &Path) -> Vec<PathBuf> {
        self.file().map(|path| tokenizer::file_of(&root.join(path))).into_iter().collect()
    }
}

/// The extractor.
pub struct PromptTokens {
    config: PromptTokensConfig,
    tokenizer: PromptTokenizer,
}

impl PromptTokens {
    /// The extractor that a state describes.
    ///
    /// # Errors
    /// When the state is of another kind, or its tokenizer cannot be used.
    pub fn from_state(state: &State) -> Result<Self, StateError> {
        let config: PromptTokensConfig = state.settings_as(KIND)?;
        let numbers = state.u64(TOKENIZER, &[None])?;
        let length = state.u64(TOKENIZER_BYTES, &[Some(1)])?[0];
        let mut json: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        json.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        let tokenizer = PromptTokenizer::from_json(&json).map_err(|problem| config.unusable(&problem))?;
        Ok(Self { config, tokenizer })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &PromptTokenizer {
        &self.tokenizer
    }

    /// Returns the ids of the prompt about a user who liked images with these captions, without padding.
    ///
    /// # Errors
    /// [`ExtractError::Text`] for a prompt that is too long, with the number of ids that are too many.
    pub fn history(&self, captions: &[String]) -> Result<Vec<u32>, ExtractError> {
        self.ids(&history_prompt(captions))
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>, ExtractError> {
        let refuse = |problem: String| ExtractError::Text { extractor: KIND, problem };
        let ids = self.tokenizer.encode(text).map_err(refuse)?;
        let room = self.config.max_sequence_length - self.config.num_image_prompt;
        if ids.len() > room {
            let (found, over) = (ids.len(), ids.len() - room);
            let problem =
                format!("it has {found} ids, {over} more than the {room} that fit; raise max_sequence_length");
            return Err(refuse(problem));
        }
        Ok(ids)
    }
}

impl Extractor for PromptTokens {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        self.config.columns()
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let ids = self.ids(&self.config.text_of(media)?)?;
        let signed = |id: u32| i32::try_from(id).unwrap_or(i32::MAX);
        let mut padded: Vec<i32> = ids.iter().copied().map(signed).collect();
        padded.resize(self.config.max_sequence_length, signed(self.tokenizer.padding()));
        Ok(Extracted::new(vec![Array::vector(padded), Array::scalar(signed(ids.len() as u32))]))
    }
}
