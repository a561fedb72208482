//! The description of a model: everything that using it needs in addition to weights and extractors.

use std::path::Path;

use flowmill_family::BoxError;
use flowmill_networks::vall_e::{FirstLevel, SpeakOptions, Task};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::options::{BYTES, TaskWeights, TrainOptions};
use super::prompts::PromptRule;
use super::tokenizer::PhonemeTokenizer;

/// The family's part of a model's description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// The symbols of phonemes: `bytes`, or the content of the tokenizer's file.
    pub tokenizer: Value,
    /// The languages, in the order of their embeddings.
    pub languages: Vec<String>,
    /// The shortest and the longest prompt that the model was trained with, in seconds.
    pub prompt_seconds: [f64; 2],
    /// Most utterances of a prompt.
    pub prompt_utterances: usize,
    /// The weights of the tasks that the model was trained for.
    pub tasks: TaskWeights,
    /// Share of the samples of level 0 that were masked; without any, the model cannot generate masked codes (NAR-len).
    pub masked_rate: f32,
    /// The settings of generation; absent in trainings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<SpeakOptions>,
}

impl Description {
    /// Describes a training with these options.
    ///
    /// # Errors
    /// Returns an error if the tokenizer's file cannot be read.
    pub fn new(options: &TrainOptions) -> Result<Self, BoxError> {
        let path = Path::new(&options.tokenizer);
        let tokenizer = match options.tokenizer.as_str() {
            BYTES => Value::from(BYTES),
            _ => {
                let about = |error: &dyn std::fmt::Display| format!("train.tokenizer: {}: {error}", path.display());
                // Reading it first refuses a file that is too large or of another form.
                PhonemeTokenizer::open(path).map_err(|error| format!("train.tokenizer: {error}"))?;
                let bytes = std::fs::read(path).map_err(|error| about(&error))?;
                serde_json::from_slice(&bytes).map_err(|error| about(&error))?
            }
        };
        Ok(Self {
            tokenizer,
            languages: options.languages.clone(),
            prompt_seconds: options.prompt_seconds,
            prompt_utterances: options.prompt_utterances,
            tasks: options.tasks.clone(),
            masked_rate: options.draws.masked_rate,
            sampling: None,
        })
    }

    /// Returns the symbols of phonemes.
    ///
    /// # Errors
    /// Returns an error if the description has none.
    pub fn tokenizer(&self) -> Result<PhonemeTokenizer, BoxError> {
        if self.tokenizer == BYTES {
            return Ok(PhonemeTokenizer::bytes());
        }
        Ok(PhonemeTokenizer::from_json(self.tokenizer.to_string().as_bytes(), Path::new("config.json: tokenizer"))?)
    }

    /// Checks that the model was trained for what these options need.
    ///
    /// # Errors
    /// Returns the task that was not trained.
    pub fn check(&self, options: &SpeakOptions) -> Result<(), BoxError> {
        let masked = matches!(options.first_level, FirstLevel::Masked(_));
        if masked && !(self.masked_rate > 0.0 && self.tasks.has(Task::Length)) {
            let reason = "this model was not trained for nar-len, which needs train.draws.masked_rate and train.tasks.len above 0";
            return Err(reason.into());
        }
        Ok(())
    }

    /// Returns the rule by which prompts are drawn.
    pub fn prompt_rule(&self) -> PromptRule {
        PromptRule::new(self.prompt_seconds, self.prompt_utterances)
    }
}

/// Opens the symbols of phonemes that the options name.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub fn tokenizer(options: &TrainOptions) -> Result<PhonemeTokenizer, BoxError> {
    match options.tokenizer.as_str() {
        BYTES => Ok(PhonemeTokenizer::bytes()),
        path => Ok(PhonemeTokenizer::open(Path::new(path)).map_err(|error| format!("train.tokenizer: {error}"))?),
    }
}
