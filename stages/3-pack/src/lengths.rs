//! The check that the tokens and the mel of an utterance belong to the same speech.

use flowmill_audio::features::MelConfig;
use flowmill_corpus::shard::speech;
use flowmill_extract::{Column, Registry, ValueType};
use flowmill_networks::token_lengths::{go_together, rate_read};
use flowmill_runner::{Recipe, RecipeError};
use flowmill_stage_tokens::Tokens;

/// The number of tokens per second to which CosyVoice 2 pads recordings.
const COSYVOICE_RATE: u64 = 25;

/// The ratio of mel frames to tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Lengths {
    /// Tokens of the column per second.
    pub token_rate: f64,
    /// Mel frames per second.
    mel_rate: f64,
}

impl Lengths {
    /// Creates the ratio from the tokens of stage 2 and a mel.
    ///
    /// # Errors
    /// When the recipe's section `tokens` is wrong or its extractor gives no tokens.
    pub fn of(extractors: &Registry, recipe: &Recipe, mel: &MelConfig) -> Result<Self, RecipeError> {
        let extractor = Tokens::section(extractors, recipe)?.extractor;
        let rate = |column: &Column| match column.values {
            ValueType::Tokens { rate, .. } if column.name() == speech::SPEECH_TOKEN => Some(rate),
            _ => None,
        };
        let token_rate = extractor.columns().iter().find_map(rate).ok_or_else(|| {
            let problem = format!("{} gives no `{}`, which `pack.columns` has", extractor.kind(), speech::SPEECH_TOKEN);
            recipe.error("tokens.extractor.kind", problem)
        })?;
        Ok(Self::at(token_rate, mel))
    }

    /// Creates the ratio of tokens at this rate and a mel.
    pub fn at(token_rate: f64, mel: &MelConfig) -> Self {
        Self { token_rate, mel_rate: f64::from(mel.sample_rate) / mel.hop_length as f64 }
    }

    /// Adjusts tokens at 25 Hz to the number that CosyVoice's training code expects (one for every 40 ms of the
    /// recording that have begun), if one is missing or too many, because tokenizers round the end of a recording in
    /// different ways. The last token is repeated or dropped. Returns whether anything changed.
    pub fn complete(self, tokens: &mut Vec<i64>, samples: u64, sample_rate: u32) -> bool {
        if self.token_rate != COSYVOICE_RATE as f64 || sample_rate == 0 {
            return false;
        }
        let expected = (samples * COSYVOICE_RATE).div_ceil(u64::from(sample_rate));
        let found = tokens.len() as u64;
        match tokens.last() {
            Some(last) if found + 1 == expected => tokens.push(*last),
            Some(_) if expected > 0 && found == expected + 1 => drop(tokens.pop()),
            _ => return false,
        }
        true
    }

    /// Returns the number of frames of one token of the model.
    fn frames_per_token(self) -> f64 {
        self.mel_rate / rate_read(self.token_rate)
    }

    /// Returns the reason why an utterance with these numbers of tokens and mel frames cannot be used for training,
    /// if any. The part before the colon is the same for all reasons of one kind.
    pub fn refuses(self, tokens: usize, frames: usize) -> Option<String> {
        let ratio = self.mel_rate / self.token_rate;
        let expected = tokens as f64 * ratio;
        if !go_together(expected, frames, self.frames_per_token()) {
            return Some(format!(
                "tokens and mel do not match: {tokens} tokens and {frames} mel frames, but {expected:.0} are expected \
                 ({ratio:.2} per token at {:.2} tokens per second); are the tokens from a trimmed or another recording, or have they \
                 another rate (tokens.extractor)?",
                self.token_rate
            ));
        }
        (tokens == 0 || (frames as f64) < self.frames_per_token())
            .then(|| format!("too short to train on: {tokens} tokens and {frames} mel frames"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowmill_extract::dual_codebook::MIXED_RATE;

    #[test]
    fn a_token_that_is_missing_or_too_many_at_the_end_is_repeated_or_dropped() {
        let single = Lengths { token_rate: 25.0, mel_rate: 50.0 };
        // At 16 kHz a token has 640 samples.
        for (tokens, samples, expected, changed) in
            [(4, 2561, 5, true), (5, 2561, 5, false), (6, 2561, 5, true), (4, 2560, 4, false), (2, 2561, 2, false)]
        {
            let mut ids: Vec<i64> = (0..tokens).collect();
            assert_eq!(
                (single.complete(&mut ids, samples, 16_000), ids.len()),
                (changed, expected),
                "{tokens} {samples}"
            );
        }
        let mixed = Lengths { token_rate: MIXED_RATE, mel_rate: 50.0 };
        assert!(!mixed.complete(&mut vec![0; 4], 2561, 16_000));
    }

    #[test]
    fn four_tokens_and_two_in_a_hundred_are_rounding() {
        let single = Lengths { token_rate: 25.0, mel_rate: 50.0 };
        // 1000 frames: a tolerance of 20 by their number, of 8 by the tokens.
        for (tokens, frames, fits) in
            [(500, 1000, true), (514, 1000, true), (515, 1000, false), (4, 16, true), (1, 1, false)]
        {
            assert_eq!(single.refuses(tokens, frames).is_none(), fits, "{tokens} {frames}");
        }
        let mixed = Lengths { token_rate: MIXED_RATE, mel_rate: 50.0 };
        // Groups of five tokens correspond to six frames. A last group that is not filled by both streams is missing.
        for (tokens, frames, fits) in [(500, 600, true), (495, 606, true), (480, 606, false), (500, 1000, false)] {
            assert_eq!(mixed.refuses(tokens, frames).is_none(), fits, "{tokens} {frames}");
        }
        let reason = single.refuses(513, 1076).unwrap();
        assert!(["513 tokens", "1076 mel frames", "1026 "].iter().all(|value| reason.contains(value)), "{reason}");
    }
}
