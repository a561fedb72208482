//! The tokens of a prompt about a user's history, as stage 1 makes them.

use std::path::Path;

use flowmill_extract::State;
use flowmill_extract::extractors::prompt_tokens::PromptTokens;
use flowmill_family::{BoxError, FittedExtractor};

/// The fitted extractor of tokens in the folder of a model.
pub const PROMPT_EXTRACTOR: &str = "prompt.safetensors";
/// The extractor that a model needs.
pub const FITTED: FittedExtractor = FittedExtractor { stage: 1, file: PROMPT_EXTRACTOR };

/// A reader of histories.
pub struct PromptReader(PromptTokens);

impl PromptReader {
    /// Opens the extractor of a model.
    ///
    /// # Errors
    /// When the folder lacks it.
    pub fn open(folder: &Path) -> Result<Self, BoxError> {
        Ok(Self(PromptTokens::from_state(&State::load(&folder.join(PROMPT_EXTRACTOR))?)?))
    }

    /// Returns the tokens of the prompt about a history with these captions.
    ///
    /// # Errors
    /// When it is too long.
    pub fn tokens(&self, captions: &[String]) -> Result<Vec<u32>, BoxError> {
        Ok(self.0.history(captions)?)
    }
}
