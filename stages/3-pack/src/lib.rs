//! Stage 3, `pack`: reads utterances, embeddings, tokens and recordings, and writes training shards.
//!
//! | phase | parts | outputs |
//! |---|---|---|
//! | pack | `SPLIT/shard-00000` | `SPLIT/shard-00000.parquet` (or `.tar`) and its description `SPLIT/shard-00000.json` |
//! | index | `SPLIT/index`, `mel_statistics` | `SPLIT/index.json`, `SPLIT/content.json` (digests of the columns), CosyVoice's `data.list`, `utt2data.list`, `spk2data.list`; `mel_statistics.json` |
//!
//! A shard contains the rows of a fixed stretch of stage 0's rows, except those that stages 1 and 2 rejected and
//! those whose tokens and mels differ in length.

mod config;
mod container;
pub mod foreign;
mod index;
mod lengths;
mod pack;
mod record;
mod sources;
mod statistics;
mod utterance;
mod wanted;

use flowmill_extract::Registry;
use flowmill_runner::{Phase, PlanContext, Recipe, RecipeError, Stage, StageError};
use schemars::{Schema, SchemaGenerator};

pub use config::{Container, Definition, ListStyle, MelSection, PackConfig};

use wanted::Needed;

/// The stage.
pub struct Pack {
    extractors: Registry,
    families: flowmill_family::Registry,
}

impl Pack {
    /// Creates the stage with the extractors that a recipe can name for stages 1 and 2. Shards have the columns of the speech flows.
    pub fn new(extractors: Registry) -> Self {
        Self { extractors, families: flowmill_family::Registry::new() }
    }

    /// Adds the families that a recipe can name. Shards have the columns that the family needs.
    #[must_use]
    pub fn with_families(self, families: flowmill_family::Registry) -> Self {
        Self { families, ..self }
    }

    /// Returns the names of the columns that the recipe's family needs; `None` for those of the speech flows.
    fn needed(&self, recipe: &Recipe) -> Result<Option<Needed>, RecipeError> {
        if self.families.names().next().is_none() {
            return Ok(None);
        }
        let family = self.families.of_recipe(recipe)?;
        Ok(family.shard_columns().map(|required| Needed { required, optional: family.optional_columns() }))
    }
}

impl Stage for Pack {
    fn number(&self) -> u8 {
        3
    }

    fn name(&self) -> &'static str {
        config::SECTION
    }

    fn title(&self) -> &'static str {
        "pack training shards"
    }

    fn version(&self) -> u32 {
        4
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<PackConfig>()
    }

    fn may_give_the_same(&self) -> bool {
        true
    }

    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        PackConfig::of(recipe).map(drop)
    }

    fn show(&self, recipe: &Recipe) -> Result<serde_json::Value, RecipeError> {
        Ok(serde_json::json!(PackConfig::of(recipe)?))
    }

    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        let config = PackConfig::of(context.recipe())?;
        let needed = self.needed(context.recipe())?;
        match phase {
            0 => pack::phase(&config, &self.extractors, needed, context).map(Some),
            1 => index::phase(&config, &self.extractors, needed, context).map(Some),
            _ => Ok(None),
        }
    }
}
