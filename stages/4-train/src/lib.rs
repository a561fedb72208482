//! Stage 4, `train`: reads shards and writes checkpoints and metrics.
//!
//! Reads `3-pack/SPLIT/index.json`, the shards and `mel_statistics.json`. Writes `4-train/checkpoints/step-NNNNNN/`,
//! `metrics.jsonl`, `tensorboard/`, `skipped/` (dumps of steps without a finite loss, if any), `samples/`, `wandb/`
//! (if enabled), `commands.jsonl` (if a command changed the training), `base.safetensors` (the base weights of
//! adapters) and `config.json`: the model's family and resolved settings, and the family's description. The loop is
//! in `flowmill-train`, and the model comes from a family of the registry; this crate connects them with the shards.

mod columns;
mod config;
mod data;
mod evaluate;
mod foreign;
mod heard;
mod identity;
mod init_weights;
mod leakage;
mod mixture;
mod overfit;
mod plan_memory;
mod preview;
mod provenance;
mod ranks;
mod resume_status;
mod rollback;
mod speed;
mod splits;
mod store;
mod task;
mod totals;
mod watch;
mod work;

use std::path::{Path, PathBuf};

use flowmill_corpus::shard::ShardIndex;
use flowmill_family::Registry;
use flowmill_runner::{Part, Phase, PlanContext, Recipe, RecipeError, Stage, StageError, StagePaths};
use flowmill_train::SKIPPED_FOLDER;
use flowmill_train::metrics::{METRICS_FILE, WANDB_FOLDER};
use flowmill_train::steering::COMMANDS_FILE;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Value, json};

pub use config::{BatchConfig, StageSettings, TrainSection};
use data::DataPaths;
pub use evaluate::{Evaluated, Listening, evaluate, replay};
pub use heard::Heard;
pub use init_weights::saved_adapter;
pub use mixture::MixtureEntry;
pub use overfit::{Overfitted, overfit};
pub use plan_memory::plan_memory;
pub use preview::file_name;
pub use ranks::{Call, follow};
pub use rollback::rollback;
pub use speed::{SPEED_FILE, Speed};
pub use watch::ASIDE;
use work::Training;
pub use work::{Adapted, extractors, scored_split};

/// The file that describes the trained model.
pub const CONFIG_FILE: &str = "config.json";
/// The base weights of adapters, which the checkpoints do not contain.
pub const BASE_FILE: &str = "base.safetensors";
/// The key of the stage's one part.
pub const PART: &str = "train";

/// The folder of the checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// The folder of samples that were generated during training.
pub const SAMPLES: &str = "samples";

/// The stage.
#[derive(Debug, Clone)]
pub struct TrainStage {
    registry: Registry,
    extractors: flowmill_extract::Registry,
}

impl TrainStage {
    /// Creates the stage with the families that a recipe can name.
    pub fn new(registry: Registry) -> Self {
        Self { registry, extractors: flowmill_extract::extractors::registry() }
    }

    /// The same stage with other extractors that a recipe can name for stages 1 and 2.
    #[must_use]
    pub fn with_extractors(self, extractors: flowmill_extract::Registry) -> Self {
        Self { extractors, ..self }
    }

    fn read(&self, recipe: &Recipe) -> Result<TrainSection, RecipeError> {
        TrainSection::read(recipe, &self.registry)
    }
}

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
        config::schema(&self.registry, generator)
    }

    fn paths(&self) -> StagePaths {
        let mut paths = StagePaths::of(&["init_from", "lora.init_from", "mixture.[].index"]);
        for (keys, words) in self.registry.families().map(|family| family.train_paths()) {
            paths.keys.extend(keys.iter().map(|&key| key.to_owned()));
            paths.words.extend(words);
        }
        paths
    }

    fn logs(&self) -> &'static [&'static str] {
        &[METRICS_FILE, "tensorboard", WANDB_FOLDER, SAMPLES, SKIPPED_FOLDER, COMMANDS_FILE]
    }

    fn runs_on_ranks(&self) -> bool {
        true
    }

    fn keeps_work(&self) -> bool {
        true
    }

    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let section = self.read(recipe)?;
        splits::check_names(&section, recipe)?;
        columns::check(&section, &self.extractors, recipe)
    }

    fn check_files(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let section = self.read(recipe)?;
        section.check_device(recipe)?;
        section.model.check_files(recipe.dir()).map_err(|error| error.in_recipe(recipe))?;
        section.check_files(recipe)
    }

    fn check_files_to_go_on(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let section = self.read(recipe)?;
        section.check_device(recipe)?;
        section.check_corpora(recipe)?;
        // Checkpoints of adapters do not contain their base weights.
        if section.settings.lora.is_some() { section.check_weights(recipe) } else { Ok(()) }
    }

    fn warnings(&self, recipe: &Recipe) -> Result<Vec<String>, RecipeError> {
        Ok(self.read(recipe)?.warnings())
    }

    fn show(&self, recipe: &Recipe) -> Result<Value, RecipeError> {
        let section = self.read(recipe)?;
        let mut shown = json!(section.to_json());
        // Settings that the schedule does not have would be rejected when the output is read as a recipe.
        if let Some(schedule) = shown["schedule"].as_object_mut() {
            schedule.retain(|key, _| {
                ["name", "per"].contains(&key.as_str()) || section.run.schedule.has(&format!("schedule.{key}"))
            });
        }
        Ok(shown)
    }

    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        let section = self.read(context.recipe())?;
        let foreign = foreign::corpora(&section, context.recipe());
        let first = if foreign.is_empty() { 0 } else { foreign::PHASES };
        match phase {
            0 if first > 0 => return foreign::shards(&foreign, &section, context.recipe()).map(Some),
            1 if first > 0 => return foreign::indexes(&foreign, &section, context.recipe(), context).map(Some),
            _ if phase > first => return Ok(None),
            _ => {}
        }
        let folder = |number| context.stage_dir(number);
        let training = Training::new(section, context.recipe(), &folder);
        let mut config = identity::of_section(&training.section, &training.data.identity(&training.section)?);
        if let Some(last) = context.last_receipt(PART) {
            identity::take_over_gone_data(&mut config, &last.config);
        }
        let mut part = Part::new(PART)
            .config(config)
            .rows(training.section.run.max_steps.unwrap_or(0))
            .resumable(resume_status::resumable(&self.registry));
        for (key, index) in training.data.keyed() {
            // Corpora of other experiments may be gone once the training is done; the recipe's own are stage 3's.
            let own = index.starts_with(folder(work::PACK));
            let (key, files) = (format!("{}.{key}", identity::DATA), split_files(index)?);
            part = part.digested(
                &key,
                |part| {
                    if own { part.inputs(files) } else { part.starting(|part| part.inputs(files)) }
                },
            );
        }
        for (role, file) in training.section.model.inputs(&training.artifacts) {
            part = part.input_as(role, file);
        }
        let weights = training.weights.iter().flat_map(|file| init_weights::weight_files(file));
        let adapter = training.adapter.iter().flat_map(|files| files.iter().map(Path::to_owned));
        let part =
            part.starting(|part| part.inputs_as("initial weights", weights).inputs_as("initial adapter", adapter));
        Ok(Some(Phase::new("training", vec![part.work(move |work| training.run(work))]).counting("steps")))
    }
}

/// Returns the indexes of the training data, from which the trivial answers are learned: the recipe's own training
/// split, or the corpora of a mixture that omits it.
pub fn training_indexes(section: &TrainSection, recipe: &Recipe, folder: &dyn Fn(u8) -> PathBuf) -> Vec<PathBuf> {
    let DataPaths { own, train, .. } = Training::new(section.clone(), recipe, folder).data;
    let trained: Vec<PathBuf> = train.into_iter().map(|corpus| corpus.index).collect();
    if trained.contains(&own) { vec![own] } else { trained }
}

/// Returns the index of a split and its shards; for a missing split, only the path of its index.
fn split_files(index: &Path) -> Result<Vec<PathBuf>, StageError> {
    let mut files = vec![index.to_owned()];
    if index.exists() {
        let folder = index.parent().unwrap_or(Path::new(""));
        let shards = ShardIndex::read(index).map_err(StageError::other)?.shards;
        files.extend(shards.into_iter().map(|shard| folder.join(shard.file)));
    }
    Ok(files)
}
