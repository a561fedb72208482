//! Whether the model fits what earlier stages of the same recipe make: known before anything runs, so said before.

use flowmill_models::extractors::ValueType;
use flowmill_runner::{Recipe, RecipeError};
use flowmill_stage_embed::EmbedConfig;
use flowmill_stage_pack::PackConfig;
use flowmill_stage_tokens::TokensConfig;

use crate::TrainSection;

/// Compares the model with the sections `embed`, `tokens` and `pack`, as far as the recipe has them.
///
/// # Errors
/// The setting of the model that does not fit, with the value that would.
pub fn check(section: &TrainSection, recipe: &Recipe) -> Result<(), RecipeError> {
    let flow = section.model.flow();
    let refuse = |field, reason| Err(recipe.error(&format!("train.model.{}", section.model.flow_key(field)), reason));
    if recipe.gives("tokens") {
        let column = TokensConfig::of(recipe)?.extractor.column();
        if let ValueType::Tokens { vocabulary, .. } = column.values
            && flow.vocab_size < vocabulary
        {
            let reason = format!("{} is too small: stage 2 gives {vocabulary} different units", flow.vocab_size);
            return refuse("vocab_size", reason);
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
        let bins = PackConfig::of(recipe)?.mel.config().n_mels;
        if flow.output_size != bins {
            let reason = format!("{} does not fit: stage 3 makes mels of {bins} bins", flow.output_size);
            return refuse("output_size", reason);
        }
    }
    Ok(())
}
