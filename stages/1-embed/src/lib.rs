//! Stage 1, `embed`: one embedding per utterance and one per speaker.
//!
//! | phase | parts | outputs |
//! |---|---|---|
//! | measure | `measure/SPLIT/part-00000` of the split that is fitted on | what the part contributes to the fit |
//! | fit | `fit` | `extractor.safetensors` |
//! | extract | `SPLIT/part-00000` of every split | `SPLIT/part-00000.parquet`: `utt`, `spk`, `utt_embedding` |
//! | speakers | `speakers` | `spk2embedding.parquet`: `spk`, `spk_embedding`, the mean over a speaker's utterances in all splits |
//!
//! With `kind: import` nothing is measured or extracted: one part, `import`, looks up all rows and leaves the same files. Where files
//! of several splits differ in a speaker's embedding, the rows have a column `spk_embedding` and the table of speakers a column `split`.
//!
//! Which extractor runs is the recipe's choice, as long as it gives embeddings; the stage knows none of them.

mod config;
mod imported;
mod phases;
mod speakers;
mod table;

use flowmill_runner::{Phase, PlanContext, Recipe, RecipeError, Stage, StageError, StagePaths};
use schemars::{Schema, SchemaGenerator};

pub use config::EmbedConfig;
pub use phases::EXTRACTOR;

/// The stage.
pub struct Embed;

impl Stage for Embed {
    fn number(&self) -> u8 {
        1
    }

    fn name(&self) -> &'static str {
        config::SECTION
    }

    fn title(&self) -> &'static str {
        "embeddings per utterance and speaker"
    }

    fn version(&self) -> u32 {
        3
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<EmbedConfig>()
    }

    fn paths(&self) -> StagePaths {
        StagePaths {
            keys: &[
                "extractor.weights",
                "extractor.embeddings",
                "extractor.embeddings.[]",
                "extractor.speakers",
                "extractor.speakers.[]",
                "extractor.speakers.*",
            ],
            words: &["random"],
        }
    }

    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        EmbedConfig::of(recipe)?.check_split(recipe)
    }

    fn check_files(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let config = EmbedConfig::of(recipe)?;
        config.check_device(recipe)?;
        config.check_files(recipe)
    }

    fn show(&self, recipe: &Recipe) -> Result<serde_json::Value, RecipeError> {
        Ok(serde_json::json!(EmbedConfig::of(recipe)?))
    }

    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        if !flowmill_stage_prep::has_recordings(context.recipe())? {
            return Ok(None);
        }
        phases::plan(phase, context)
    }
}
