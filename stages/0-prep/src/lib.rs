//! Stage 0, `prep`: reads data directories and writes checked utterance tables for each split.
//!
//! | phase | parts | outputs |
//! |---|---|---|
//! | read | `read` | `manifests/SPLIT/rows-00000.parquet`: the content of the index files, validated and split |
//! | probe | `SPLIT/part-00000` | `SPLIT/part-00000.parquet`: the same rows with the properties of the recordings, filtered; `warnings/SPLIT/part-00000.jsonl`: warnings about recordings that are kept, if there are any |
//!
//! Videos or pictures of rows, references to other rows, and columns that `prep.columns` names are in
//! `SPLIT/media-00000.parquet` and `SPLIT/columns-00000.parquet` ([`columns`]).
//!
//! Compressed tar files of the data are decompressed in a phase before (`unpacked/`).
//!
//! With `prep.probe: false` no recording is opened: the first phase writes `SPLIT/part-00000.parquet` itself and
//! there is no second. So a changed recording repeats one part; a changed index file repeats the reading and the
//! parts whose rows it changed.

mod collect;
pub mod columns;
mod condition;
mod config;
pub mod contents;
mod fallback;
mod filter;
mod format;
mod images;
mod leaks;
mod listing;
mod media;
mod merge;
mod probe;
mod read;
pub mod recordings;
mod references;
pub mod rows;
mod speed;
mod survey;
mod unpack;
mod videos;
mod warnings;

use flowmill_runner::{Phase, PlanContext, Recipe, RecipeError, Stage, StageError, StagePaths};
use schemars::{Schema, SchemaGenerator};

pub use format::Format;
pub use survey::{Survey, survey};

pub use config::{
    Fallback, PrepConfig, SECTION, Source, SplitBy, SplitConfig, SplitUnit, TRAIN_SPLIT, check_device, check_split,
    has_media, packed_sources, train_device, train_split,
};

/// The stage.
pub struct Prep;

impl Stage for Prep {
    fn number(&self) -> u8 {
        0
    }

    fn name(&self) -> &'static str {
        config::SECTION
    }

    fn title(&self) -> &'static str {
        "read, check and split the data"
    }

    fn version(&self) -> u32 {
        5
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<PrepConfig>()
    }

    fn paths(&self) -> StagePaths {
        StagePaths::of(&[
            "data",
            "data.dir",
            "data.[]",
            "data.[].dir",
            "data.images",
            "data.[].images",
            "data.recordings",
            "data.[].recordings",
            "split.lists.*",
        ])
    }

    fn may_give_the_same(&self) -> bool {
        true
    }

    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        PrepConfig::of(recipe)?.check_files(recipe)
    }

    fn check_contents(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        PrepConfig::of(recipe)?.check_contents(recipe)
    }

    fn show(&self, recipe: &Recipe) -> Result<serde_json::Value, RecipeError> {
        Ok(serde_json::json!(PrepConfig::of(recipe)?))
    }

    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        let config = PrepConfig::of(context.recipe())?;
        let unpacked = unpack::unpacked(&config, context);
        // Without compressed data, reading comes first.
        match (phase, unpacked.is_empty()) {
            (0, false) => Ok(Some(unpack::phase(&config, context))),
            (0, true) | (1, false) => read::phase(&config, unpacked, context).map(Some),
            (1, true) | (2, false) if config.probe => probe::phase(&config, context).map(Some),
            _ => Ok(None),
        }
    }
}
