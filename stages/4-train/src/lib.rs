//! Stage 4, train: shards in, checkpoints and metrics out.
//!
//! Reads `3-pack/SPLIT/index.json`, the shards and `mel_statistics.json`; writes `4-train/checkpoints/step-NNNNNN/`, `metrics.jsonl`,
//! `tensorboard/`, `skipped/` (dumps of steps without a finite loss, if there were any), `samples/`, `wandb/` (when asked for), `commands.jsonl` (when
//! a command changed the training), `base.safetensors` (what adapters were trained beside) and `config.json`: the model's family and
//! resolved settings, the mel it makes and the speaker embedding it takes. The loop is `flowmill-train`, the network
//! `flowmill-models`; this crate brings them and the shards together.

mod agreement;
mod apart;
pub mod audible;
mod codebook;
mod config;
mod data;
mod identity;
mod item;
mod leakage;
mod look;
mod mixture;
mod model;
mod plan_memory;
mod resume_status;
mod rollback;
mod splits;
mod start;
mod store;
mod studio;
mod task;
mod try_out;
mod watch;
mod work;

use std::path::{Path, PathBuf};

use flowmill_corpus::shard::ShardIndex;
use flowmill_runner::{Part, Phase, PlanContext, Recipe, RecipeError, Stage, StageError, StagePaths};
use flowmill_train::SKIPPED_FOLDER;
use flowmill_train::metrics::{METRICS_FILE, WANDB_FOLDER};
use flowmill_train::steering::COMMANDS_FILE;
use serde_json::{Value, json};

pub use config::{BatchConfig, SpeakerEmbedding, TokenEmbedding, TrainSection};
use data::DataPaths;
pub use look::{evaluate, replay};
pub use mixture::MixtureEntry;
pub use model::ModelConfig;
pub use plan_memory::plan_memory;
pub use rollback::rollback;
use schemars::{Schema, SchemaGenerator};
pub use studio::{SPEAKER_EXTRACTOR, TOKEN_EXTRACTOR};
pub use try_out::try_out;
pub use watch::ASIDE;
use work::Training;
pub use work::{Adapted, scored_split};

/// The file that describes the trained model.
pub const CONFIG_FILE: &str = "config.json";
/// The weights that adapters were trained beside, which the checkpoints do not hold.
pub const BASE_FILE: &str = "base.safetensors";
/// The key of the stage's one part.
pub const PART: &str = "train";

/// The folder of the checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// The folder of what was generated during training.
pub const SAMPLES: &str = "samples";

/// The stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct TrainStage;

impl Stage for TrainStage {
    fn number(&self) -> u8 {
        work::TRAIN
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

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<TrainSection>()
    }

    fn paths(&self) -> StagePaths {
        StagePaths { keys: &["init_from", "lora.init_from", "mixture.[].index"], words: &[] }
    }

    fn logs(&self) -> &'static [&'static str] {
        &[METRICS_FILE, "tensorboard", WANDB_FOLDER, SAMPLES, SKIPPED_FOLDER, COMMANDS_FILE]
    }

    fn keeps_work(&self) -> bool {
        true
    }

    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let section = TrainSection::read(recipe)?;
        splits::check_names(&section, recipe)?;
        agreement::check(&section, recipe)
    }

    fn check_files(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let section = TrainSection::read(recipe)?;
        section.check_device(recipe)?;
        section.check_files(recipe)
    }

    fn check_files_to_go_on(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let section = TrainSection::read(recipe)?;
        section.check_device(recipe)?;
        section.check_corpora(recipe)?;
        // Checkpoints of adapters do not hold what they are adapters of.
        if section.lora.is_some() { section.check_weights(recipe) } else { Ok(()) }
    }

    fn warnings(&self, recipe: &Recipe) -> Result<Vec<String>, RecipeError> {
        Ok(TrainSection::read(recipe)?.warnings())
    }

    fn show(&self, recipe: &Recipe) -> Result<Value, RecipeError> {
        let section = TrainSection::read(recipe)?;
        let mut shown = json!(section);
        // Settings that the schedule does not have would be refused when what is shown is read as a recipe.
        if let Some(schedule) = shown["schedule"].as_object_mut() {
            schedule.retain(|key, _| {
                ["name", "per"].contains(&key.as_str()) || section.schedule.has(&format!("schedule.{key}"))
            });
        }
        Ok(shown)
    }

    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        if phase > 0 {
            return Ok(None);
        }
        let folder = |number| context.stage_dir(number);
        let training = Training::new(TrainSection::read(context.recipe())?, context.recipe(), &folder);
        let mut config = identity::of_section(&training.section, &training.data.identity(&training.section)?);
        if let Some(last) = context.last_receipt(PART) {
            identity::take_over_gone_data(&mut config, &last.config);
        }
        let mut part = Part::new(PART)
            .config(config)
            .rows(training.section.max_steps.unwrap_or(0))
            .resumable(resume_status::RESUMABLE);
        for (key, index) in training.data.keyed() {
            // Corpora of other experiments may be gone once the training is done; the own ones are stage 3's.
            let own = index.starts_with(folder(work::PACK));
            let (key, files) = (format!("{}.{key}", identity::DATA), split_files(index)?);
            part = part.digested(
                &key,
                |part| {
                    if own { part.inputs(files) } else { part.starting(|part| part.inputs(files)) }
                },
            );
        }
        if training.section.normalise_mel {
            part = part.input_as("mel statistics", &training.statistics);
        }
        let part = part.inputs_as("codebook", training.codebook.clone());
        let weights = training.weights.iter().flat_map(|file| start::weight_files(file));
        let adapter = training.adapter.iter().flat_map(|files| [files.model.clone(), files.config.clone()]);
        let part =
            part.starting(|part| part.inputs_as("initial weights", weights).inputs_as("initial adapter", adapter));
        Ok(Some(Phase::new("training", vec![part.work(move |work| training.run(work))]).counting("steps")))
    }
}

/// The indexes of what is trained on, for measuring how good the simplest answers are: the recipe's own training split, or the corpora of
/// a mixture that leaves it out.
pub fn training_indexes(section: &TrainSection, recipe: &Recipe, folder: &dyn Fn(u8) -> PathBuf) -> Vec<PathBuf> {
    let DataPaths { own, train, .. } = Training::new(section.clone(), recipe, folder).data;
    let trained: Vec<PathBuf> = train.into_iter().map(|corpus| corpus.index).collect();
    if trained.contains(&own) { vec![own] } else { trained }
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
