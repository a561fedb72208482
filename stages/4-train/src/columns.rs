//! The check of the model against the columns of the other sections of a recipe. They are known before anything runs,
//! so errors are reported then.

use flowmill_corpus::shard::speech::{MEL, MelStore};
use flowmill_extract::extractors::packed;
use flowmill_extract::{Chosen, Column, Registry, ValueType};
use flowmill_family::{Columns, Provided};
use flowmill_runner::{Recipe, RecipeError};
use flowmill_stage_embed::Embed;
use flowmill_stage_pack::PackConfig;
use flowmill_stage_tokens::Tokens;

use crate::TrainSection;

/// Compares the model with the sections `embed`, `tokens` and `pack`, as far as the recipe has them.
///
/// # Errors
/// The setting of the model that does not fit, with the value that would.
pub fn check(section: &TrainSection, extractors: &Registry, recipe: &Recipe) -> Result<(), RecipeError> {
    section.model.check_columns(&provided(extractors, recipe)?).map_err(|error| error.in_recipe(recipe))
}

/// Returns the columns that the sections provide.
fn provided(extractors: &Registry, recipe: &Recipe) -> Result<Columns, RecipeError> {
    let mut columns = Columns::new();
    if recipe.gives("embed") {
        let section = Embed::section(extractors, recipe)?;
        columns.extend(extracted(&section.extractor, section.columns()));
    }
    if recipe.gives("tokens") {
        let section = Tokens::section(extractors, recipe)?;
        columns.extend(extracted(&section.extractor, section.columns()));
    }
    if recipe.gives("pack") {
        let mel = PackConfig::of(recipe)?.mel;
        columns.insert(MEL.to_owned(), Provided::Mel { config: mel.config(), stored: mel.store != MelStore::None });
    }
    Ok(columns)
}

/// Returns the columns that a section with an extractor provides.
pub(crate) fn extracted(extractor: &Chosen, columns: Vec<Column>) -> Columns {
    let (kind, has_centers) = (extractor.kind(), extractor.has_centers());
    let provided = |Column { spec, values }: Column| {
        let name = spec.name.clone();
        let provided = match values {
            ValueType::Embedding { dimensions } => Provided::Embedding { dimensions },
            ValueType::Tokens { vocabulary, rate } => {
                Provided::Tokens { extractor: kind, vocabulary, at_least: kind == packed::KIND, rate, has_centers }
            }
            ValueType::Codes { levels, vocabulary, rate } => {
                Provided::Codes { extractor: kind, levels, vocabulary, rate }
            }
            _ => Provided::Other { spec },
        };
        (name, provided)
    };
    columns.into_iter().map(provided).collect()
}
