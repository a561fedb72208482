//! Stage 3, `pack`: utterances, embeddings, tokens and recordings in, training shards out.
//!
//! | phase | parts | outputs |
//! |---|---|---|
//! | pack | `SPLIT/shard-00000` | `SPLIT/shard-00000.parquet` (or `.tar`) and `SPLIT/shard-00000.json`, what is in it |
//! | index | `SPLIT/index`, `mel_statistics` | `SPLIT/index.json`, `SPLIT/content.json` (digests of the columns), CosyVoice's `data.list`, `utt2data.list`, `spk2data.list`; `mel_statistics.json` |
//!
//! A shard holds the rows of a fixed stretch of stage 0's rows, as far as stages 1 and 2 kept them and their tokens and mels are of
//! the same length.

mod config;
mod container;
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

/// The stage.
pub struct Pack {
    extractors: Registry,
}

impl Pack {
    /// The stage with the extractors that a recipe can name for stages 1 and 2.
    pub fn new(extractors: Registry) -> Self {
        Self { extractors }
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
        match phase {
            0 => pack::phase(&config, &self.extractors, context).map(Some),
            1 => index::phase(&config, context).map(Some),
            _ => Ok(None),
        }
    }
}
