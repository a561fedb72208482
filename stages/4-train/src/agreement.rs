//! Whether the model fits what earlier stages of the same recipe make: known before anything runs, so said before.

use flowmill_audio::features::MelConfig;
use flowmill_corpus::shard::MelStore;
use flowmill_models::dual_codebook::{MIXED_RATE, is_mixed_rate};
use flowmill_models::extractors::{ExtractorConfig, ValueType};
use flowmill_models::flow::FlowConfig;
use flowmill_runner::{Recipe, RecipeError};
use flowmill_stage_embed::EmbedConfig;
use flowmill_stage_pack::{PackConfig, rate_read};
use flowmill_stage_tokens::TokensConfig;

use crate::{TokenEmbedding, TrainSection};

/// How far the rates of tokens and mel may be from the model's ratio, as a share: 16.7 tokens a second stand for 50 frames in threes.
const SHARE_OF_RATES: f64 = 0.01;

/// Compares the model with the sections `embed`, `tokens` and `pack`, as far as the recipe has them.
///
/// # Errors
/// The setting of the model that does not fit, with the value that would.
pub fn check(section: &TrainSection, recipe: &Recipe) -> Result<(), RecipeError> {
    let flow = section.model.flow();
    let refuse = |field, reason| Err(recipe.error(&format!("train.model.{}", section.model.flow_key(field)), reason));
    if recipe.gives("tokens") {
        let extractor = TokensConfig::of(recipe)?.extractor;
        check_codebook(section, &extractor).map_err(|reason| recipe.error("train.token_embedding", reason))?;
        let column = extractor.column();
        if let ValueType::Tokens { vocabulary, rate } = column.values {
            check_tokens(flow, vocabulary, rate).map_err(|(key, reason)| match key {
                Key::Model(field) => recipe.error(&format!("train.model.{}", section.model.flow_key(field)), reason),
                Key::Recipe(key) => recipe.error(key, reason),
            })?;
            if recipe.gives("pack") {
                check_ratio(flow.token_mel_ratio, rate, &PackConfig::of(recipe)?.mel.config())
                    .or_else(|reason| refuse("token_mel_ratio", reason))?;
            }
        }
    }
    if recipe.gives("embed") {
        let column = EmbedConfig::of(recipe)?.extractor.column();
        if let ValueType::Embedding { dimensions } = column.values
            && flow.spk_embed_dim != dimensions
        {
            let reason = format!("{} does not fit: stage 1 gives embeddings of {dimensions}", flow.spk_embed_dim);
            return refuse("spk_embed_dim", reason);
        }
    }
    if recipe.gives("pack") {
        let mel = PackConfig::of(recipe)?.mel;
        if mel.store == MelStore::None && section.normalise_mel && flow.mel_normalisation.is_none() {
            let reason = "needs the statistics that stage 3 takes of stored mels, and pack.mel.store is none: store them, or set \
                          train.normalise_mel: false";
            return Err(recipe.error("train.normalise_mel", reason));
        }
        let bins = mel.config().n_mels;
        if flow.output_size != bins {
            let reason = format!("{} does not fit: stage 3 makes mels of {bins} bins", flow.output_size);
            return refuse("output_size", reason);
        }
    }
    Ok(())
}

/// Compares the frames per token that the model makes with the rates of stage 2's tokens and stage 3's mel.
fn check_ratio(ratio: usize, token_rate: f64, mel: &MelConfig) -> Result<(), String> {
    let tokens = rate_read(token_rate);
    let frames = f64::from(mel.sample_rate) / mel.hop_length as f64;
    if (ratio as f64 * tokens / frames - 1.0).abs() <= SHARE_OF_RATES {
        return Ok(());
    }
    Err(format!(
        "{ratio} does not fit: stage 2 gives {tokens:.2} tokens a second (tokens.extractor), stage 3 {frames:.2} mel frames \
         (pack.mel), {:.2} per token",
        frames / tokens
    ))
}

/// Refuses embeddings that start from a codebook where there is none of fitted units.
fn check_codebook(section: &TrainSection, extractor: &ExtractorConfig) -> Result<(), String> {
    let fitted = matches!(extractor, ExtractorConfig::Kmeans(_) | ExtractorConfig::DualKmeans(_));
    if section.token_embedding == TokenEmbedding::Random || fitted {
        return Ok(());
    }
    let kind = extractor.kind();
    Err(format!("`codebook` starts from the centres of kmeans or dual-kmeans; {kind} has none: use `random`"))
}

/// Where a recipe has what does not fit.
enum Key {
    /// A setting of the flow.
    Model(&'static str),
    /// Another key, in full.
    Recipe(&'static str),
}

/// Compares the tokens of stage 2, by how many different ones there are and how many a second, with those that the model takes.
fn check_tokens(flow: &FlowConfig, vocabulary: usize, rate: f64) -> Result<(), (Key, String)> {
    let mixed = is_mixed_rate(rate);
    let Some(codebook) = &flow.dual_codebook else {
        if mixed {
            let reason = "this family takes the tokens of one codebook; stage 2 gives those of two in one sequence: use \
                          family: step-audio-flow, or another extractor";
            return Err((Key::Recipe("train.model.family"), reason.to_owned()));
        }
        if flow.vocab_size < vocabulary {
            let reason = format!("{} is too small: stage 2 gives {vocabulary} different units", flow.vocab_size);
            return Err((Key::Model("vocab_size"), reason));
        }
        return Ok(());
    };
    if !mixed {
        let reason = format!(
            "this family takes two codebooks in one sequence, {MIXED_RATE:.1} tokens a second, and this extractor gives \
             {rate:.1}: use one of two codebooks, such as dual-kmeans"
        );
        return Err((Key::Recipe("tokens.extractor.kind"), reason));
    }
    if codebook.mixed_vocabulary() != vocabulary {
        let (first, second, sum) = (codebook.linguistic, codebook.semantic, codebook.mixed_vocabulary());
        let reason = format!("{first} and vq06_size {second} make {sum} different tokens, stage 2 gives {vocabulary}");
        return Err((Key::Model("vq02_size"), reason));
    }
    Ok(())
}
