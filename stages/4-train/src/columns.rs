//! The check of the model against the columns of the other sections of a recipe. They are known before anything runs,
//! so errors are reported then.

use flowmill_corpus::shard::speech::{MEL, MelStore};
use flowmill_family::{Columns, Provided};
use flowmill_models::extractors::{Column, ExtractorConfig, ValueType};
use flowmill_runner::{Recipe, RecipeError};
use flowmill_stage_embed::EmbedConfig;
use flowmill_stage_pack::PackConfig;
use flowmill_stage_tokens::TokensConfig;

use crate::TrainSection;

/// Compares the model with the sections `embed`, `tokens` and `pack`, as far as the recipe has them.
///
/// # Errors
/// Returns the setting of the model that does not match, with the value that would.
pub fn check(section: &TrainSection, recipe: &Recipe) -> Result<(), RecipeError> {
    section.model.check_columns(&provided(recipe)?).map_err(|error| error.in_recipe(recipe))
}

/// Returns the columns that the sections provide.
fn provided(recipe: &Recipe) -> Result<Columns, RecipeError> {
    let mut columns = Columns::new();
    if recipe.gives("embed") {
        columns.extend(extracted(&EmbedConfig::of(recipe)?.extractor));
    }
    if recipe.gives("tokens") {
        columns.extend(extracted(&TokensConfig::of(recipe)?.extractor));
    }
    if recipe.gives("pack") {
        let mel = PackConfig::of(recipe)?.mel;
        columns.insert(MEL, Provided::Mel { config: mel.config(), stored: mel.store != MelStore::None });
    }
    Ok(columns)
}

/// Returns the column that an extractor provides.
fn extracted(extractor: &ExtractorConfig) -> Option<(&'static str, Provided)> {
    let Column { name, values } = extractor.column();
    let has_centers = matches!(extractor, ExtractorConfig::Kmeans(_) | ExtractorConfig::DualKmeans(_));
    match values {
        ValueType::Embedding { dimensions } => Some((name, Provided::Embedding { dimensions })),
        ValueType::Tokens { vocabulary, rate } => {
            Some((name, Provided::Tokens { extractor: extractor.kind(), vocabulary, rate, has_centers }))
        }
        _ => None,
    }
}
