//! The `paraformer-units` extractor.

use candle_core::Device;
use serde::Deserialize;

use super::{ENTRIES, KIND, LinguisticTokenizer, SAMPLE_RATE, TOKEN_RATE, config};
use crate::{Column, ExtractError, Extracted, Extractor, Media, State, StateError};

/// Shorter recordings have no stack of frames: 55 ms.
const SHORTEST: usize = 880;

/// The linguistic tokenizer as an extractor.
pub struct ParaformerUnits {
    tokenizer: LinguisticTokenizer,
}

#[derive(Deserialize)]
struct Settings {
    heads: usize,
}

impl ParaformerUnits {
    /// The extractor that a state describes, to run on a device.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub fn from_state(state: &State, device: &Device) -> Result<Self, StateError> {
        let foreign = |reason: String| StateError::Foreign { wanted: KIND.to_owned(), found: reason };
        let settings: Settings = state.settings_as(KIND)?;
        let tokenizer = config::kept(state, "", settings.heads, device).map_err(|error| foreign(error.to_string()))?;
        Ok(Self { tokenizer })
    }
}

/// Returns the error for a recording that is too short for a token.
pub(crate) fn too_short(extractor: &'static str, samples: usize, needed: usize) -> ExtractError {
    let seconds = |samples: usize| samples as f64 / f64::from(SAMPLE_RATE);
    ExtractError::TooShort { extractor, seconds: seconds(samples), needed: seconds(needed) }
}

impl Extractor for ParaformerUnits {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        vec![Column::tokens("speech_token", ENTRIES, TOKEN_RATE)]
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let samples = media.as_audio(KIND)?.mono_at(SAMPLE_RATE)?;
        let tokens = self.tokenizer.tokens(&samples)?;
        if tokens.is_empty() {
            return Err(too_short(KIND, samples.len(), SHORTEST));
        }
        Ok(Extracted::tokens(tokens.into_iter().map(i64::from).collect()))
    }
}
