//! The check of the model against the columns that earlier stages of the same recipe make. It runs before any stage.

use flowmill_extract::extractors::phonemes;
use flowmill_extract::{CODES, NOISY_CODES};
use flowmill_family::{Columns, KeyError, Provided, TrainSettings};

use super::VallE;

/// Compares the model with what stages 1 and 2 provide. A recipe without these stages trains on packed data, which
/// stage 4 checks.
pub fn check(settings: &TrainSettings<VallE>, columns: &Columns) -> Result<(), KeyError> {
    let config = &settings.config;
    let wrong = |key: &str, reason: String| Err(KeyError::new(key, reason));
    match columns.get(CODES) {
        Some(Provided::Codes { levels, .. }) if *levels != config.levels => {
            let reason = format!("{} does not match: stage 2 gives codes of {levels} levels", config.levels);
            wrong("train.model.levels", reason)
        }
        Some(Provided::Codes { vocabulary, .. }) if *vocabulary > config.audio_tokens => {
            let reason =
                format!("{} is too small: stage 2 gives {vocabulary} different codes per level", config.audio_tokens);
            wrong("train.model.audio_tokens", reason)
        }
        Some(_) if settings.options.tasks.needs_noise() && !columns.contains_key(NOISY_CODES) => {
            let task = if settings.options.tasks.ns > 0.0 { "ns" } else { "sr" };
            let reason = "needs codes of noisy recordings: set tokens.noise, or the weight 0";
            wrong(&format!("train.tasks.{task}"), reason.to_owned())
        }
        None if has_tokens(columns) => {
            let reason = "this family needs codes of an audio codec: use rvq-kmeans, encodec or dac, or import codes";
            wrong("tokens.extractor.kind", reason.to_owned())
        }
        _ => match columns.contains_key(phonemes::PHONEMES) {
            false if has_embedding(columns) => {
                let reason = "this family needs the phonemes of the texts, not embeddings: use `kind: phonemes`";
                wrong("embed.extractor.kind", reason.to_owned())
            }
            _ => Ok(()),
        },
    }
}

fn has_tokens(columns: &Columns) -> bool {
    columns.values().any(|provided| matches!(provided, Provided::Tokens { .. }))
}

fn has_embedding(columns: &Columns) -> bool {
    columns.values().any(|provided| matches!(provided, Provided::Embedding { .. }))
}
