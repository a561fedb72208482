//! Stage 2, `tokens`: a sequence of discrete units for every utterance.
//!
//! | phase | parts | outputs |
//! |---|---|---|
//! | measure | `measure/SPLIT/part-00000` of the split that is fitted on | what the part contributes to the fit |
//! | fit | `fit` | `codebook.safetensors`, and `codebook.json` with the settings and figures of the fit |
//! | extract | `SPLIT/part-00000` of every split | `SPLIT/part-00000.parquet`: `utt`, `speech_token` |
//! | usage | `usage` | `usage.json`: how many units each split uses, and their perplexity |
//!
//! With `kind: import` nothing is measured or extracted: one part, `import`, looks up all rows and leaves the same files.
//!
//! Which extractor runs is the recipe's choice, as long as it gives tokens; the stage knows none of them.

mod config;
mod imported;
mod phases;
mod usage;

use flowmill_runner::{Phase, PlanContext, Recipe, RecipeError, Stage, StageError, StagePaths};
use schemars::{Schema, SchemaGenerator};

pub use config::TokensConfig;
pub use phases::CODEBOOK;

/// The stage.
pub struct Tokens;

impl Stage for Tokens {
    fn number(&self) -> u8 {
        2
    }

    fn name(&self) -> &'static str {
        config::SECTION
    }

    fn title(&self) -> &'static str {
        "discrete units per utterance"
    }

    fn version(&self) -> u32 {
        4
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<TokensConfig>()
    }

    fn paths(&self) -> StagePaths {
        StagePaths {
            keys: &[
                "extractor.weights",
                "extractor.centres",
                "extractor.cmvn",
                "extractor.tokens",
                "extractor.tokens.[]",
                "extractor.linguistic.weights",
                "extractor.linguistic.centres",
                "extractor.linguistic.cmvn",
                "extractor.semantic.weights",
            ],
            words: &["random", "none"],
        }
    }

    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        TokensConfig::of(recipe)?.check_split(recipe)
    }

    fn check_files(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let config = TokensConfig::of(recipe)?;
        config.check_device(recipe)?;
        config.check_files(recipe)
    }

    fn show(&self, recipe: &Recipe) -> Result<serde_json::Value, RecipeError> {
        Ok(serde_json::json!(TokensConfig::of(recipe)?))
    }

    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        if !flowmill_stage_prep::has_recordings(context.recipe())? {
            return Ok(None);
        }
        phases::plan(phase, context)
    }
}
