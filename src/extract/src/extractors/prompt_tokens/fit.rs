//! The fit of the tokenizer of words: how often each word of the training split occurs.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{KIND, PromptTokensConfig, tokenizer};
use crate::{Accumulator, ExtractError, Fit, Fitted, Matrix, Media, Scope, State, StateError};

/// The key of the counts in the state.
const COUNTS: &str = "counts";

/// Largest number of different words that are counted. Later ones are unknown.
const MOST_WORDS: usize = 1 << 20;

/// Fits a tokenizer of words.
pub(super) struct WordsFit {
    pub(super) config: PromptTokensConfig,
}

impl Fit for WordsFit {
    fn kind(&self) -> &'static str {
        KIND
    }

    /// Returns the characters of the row's words, each word ended by 0. A number of 32 bits holds every character.
    fn measure(&self, media: &Media) -> Result<Matrix, ExtractError> {
        let words = tokenizer::words(&self.config.text_of(media)?);
        let letters = words.iter().flat_map(|word| word.chars().map(|letter| letter as u32 as f32).chain([0.0]));
        Ok(Matrix::new(letters.collect(), 1))
    }

    fn accumulator(&self, _: Scope) -> Box<dyn Accumulator> {
        Box::new(Counts::default())
    }

    fn finish(&self, state: &State) -> Result<Fitted, StateError> {
        let mut counts = Counts::default();
        counts.absorb(state)?;
        let mut words: Vec<(&String, u64)> = counts.0.iter().map(|(word, count)| (word, *count)).collect();
        if words.is_empty() {
            let reason = "the training split has no word; is it empty?".to_owned();
            return Err(StateError::NotEnough { kind: KIND, reason });
        }
        // The most frequent words first, and in the order of the alphabet where they are equally frequent.
        words.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let kept = words.iter().take(self.config.vocabulary - 3).map(|(word, _)| word.as_str());
        let mut fitted = self.config.fitted(tokenizer::of_words(kept).to_string().as_bytes())?;
        fitted.facts.push(("words of the training split".to_owned(), words.len().into()));
        Ok(fitted)
    }
}

/// The number of occurrences of each word.
#[derive(Default)]
struct Counts(BTreeMap<String, u64>);

impl Counts {
    fn count(&mut self, word: String, times: u64) {
        if self.0.len() < MOST_WORDS || self.0.contains_key(&word) {
            *self.0.entry(word).or_default() += times;
        }
    }
}

impl Accumulator for Counts {
    fn add(&mut self, _: &str, measured: &Matrix) -> Result<(), StateError> {
        let mut word = String::new();
        for letter in measured.as_slice() {
            match char::from_u32(*letter as u32) {
                Some('\0') => self.count(std::mem::take(&mut word), 1),
                Some(letter) => word.push(letter),
                None => return Err(StateError::NotFinite { kind: KIND }),
            }
        }
        Ok(())
    }

    fn absorb(&mut self, state: &State) -> Result<(), StateError> {
        state.expect_kind(KIND)?;
        let counts = state.settings().get(COUNTS).and_then(Value::as_object);
        for (word, times) in counts.into_iter().flatten() {
            self.count(word.clone(), times.as_u64().unwrap_or_default());
        }
        Ok(())
    }

    fn into_state(self: Box<Self>) -> State {
        let counts: Map<String, Value> = self.0.into_iter().map(|(word, count)| (word, count.into())).collect();
        State::new(KIND, json!({ COUNTS: counts }))
    }
}
