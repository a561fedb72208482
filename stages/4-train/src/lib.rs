//! Stage 4, train: shards in, checkpoints and metrics out.
//!
//! Reads `3-pack/SPLIT/index.json`, the shards and `mel_statistics.json`; writes `4-train/checkpoints/step-NNNNNN/`, `metrics.jsonl`,
//! `tensorboard/`, `skipped/` (dumps of steps without a finite loss, if there were any) and `config.json`: the model's family and
//! resolved settings, the mel it makes and the speaker embedding it takes. The loop is `flowmill-train`, the network
//! `flowmill-models`; this crate brings them and the shards together.

mod agreement;
mod codebook;
mod config;
mod data;
mod item;
mod model;
mod store;
mod task;
mod watch;
mod work;

use std::path::{Path, PathBuf};

use flowmill_corpus::shard::ShardIndex;
use flowmill_runner::{Part, Phase, PlanContext, Recipe, RecipeError, Stage, StageError};
use serde_json::{Value, json};

pub use config::{BatchConfig, SpeakerEmbedding, TokenEmbedding, TrainSection};
use data::DataPaths;
pub use model::ModelConfig;
use work::Training;

/// Number of the stage that makes units.
const TOKENS: u8 = 2;
/// Number of the packing stage.
const PACK: u8 = 3;
/// The file that describes the trained model.
pub const CONFIG_FILE: &str = "config.json";

/// The stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct TrainStage;

impl Stage for TrainStage {
    fn number(&self) -> u8 {
        4
    }

    fn name(&self) -> &'static str {
        config::SECTION
    }

    fn title(&self) -> &'static str {
        "train"
    }

    fn version(&self) -> u32 {
        1
    }

    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        agreement::check(&TrainSection::read(recipe)?, recipe)
    }

    fn show(&self, recipe: &Recipe) -> Result<Value, RecipeError> {
        Ok(json!(TrainSection::read(recipe)?))
    }

    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        if phase > 0 {
            return Ok(None);
        }
        let section = TrainSection::read(context.recipe())?;
        let pack = context.stage_dir(PACK);
        let index = |split: &str| pack.join(split).join("index.json");
        let data = DataPaths { train: index(&section.train_split), validation: index(&section.validation_split) };
        let statistics = pack.join("mel_statistics.json");
        let mut part = Part::new("train")
            .config(section.fingerprint())
            .inputs(split_files(&data.train)?)
            .inputs(split_files(&data.validation)?)
            .rows(section.max_steps.unwrap_or(0))
            .resumable();
        if section.normalise_mel {
            part = part.input(&statistics);
        }
        let codebook = match section.token_embedding {
            TokenEmbedding::Random => None,
            TokenEmbedding::Codebook => Some(context.stage_dir(TOKENS).join(flowmill_stage_tokens::CODEBOOK)),
        };
        let part = part.inputs(codebook.clone());
        let training = Training { section, data, statistics, codebook };
        Ok(Some(Phase::new("steps", vec![part.work(move |work| training.run(work))])))
    }
}

/// The index of a split and its shards; of a split that is not there, where its index would be.
fn split_files(index: &Path) -> Result<Vec<PathBuf>, StageError> {
    let mut files = vec![index.to_owned()];
    if index.exists() {
        let folder = index.parent().unwrap_or(Path::new(""));
        let shards = ShardIndex::read(index).map_err(StageError::other)?.shards;
        files.extend(shards.into_iter().map(|shard| folder.join(shard.file)));
    }
    Ok(files)
}
