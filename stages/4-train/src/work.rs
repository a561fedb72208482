//! The work of the training part.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use flowmill_collective::World;
use flowmill_family::{Artifacts, Configured, ExtractorFiles};
use flowmill_nn::Parameters;
use flowmill_nn::device::{self, name_of};
use flowmill_nn::random::RngKey;
use flowmill_runner::{PartReport, PartWork, Recipe, StageError};
use flowmill_train::checkpoint::{self, step_of};
use flowmill_train::device::{in_words, place};
use flowmill_train::lora::AdapterFiles;
use flowmill_train::metrics::{EVENTS_FILE, METRICS_FILE, REFERENCES_FILE, WANDB_FOLDER};
use flowmill_train::steering::COMMANDS_FILE;
use flowmill_train::{LoraConfig, SKIPPED_FOLDER, Summary, TrainError, samples_step};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::data::{DataPaths, TrainingData};
use crate::preview::Preview;
use crate::ranks::{self, Call};
use crate::store::StagedCheckpoints;
use crate::task::FamilyTask;
use crate::watch::Watch;
use crate::{BASE_FILE, CHECKPOINTS, CONFIG_FILE, SAMPLES, TrainSection, init_weights, mixture, splits};

/// Number of the stage that makes speaker embeddings.
const EMBED: u8 = 1;
/// Number of the stage that makes units.
const TOKENS: u8 = 2;
/// Number of this stage.
pub const TRAIN: u8 = 4;
/// Number of the packing stage.
pub const PACK: u8 = 3;

/// The advice about other settings for a training that has failed and has checkpoints.
const OTHER_SETTINGS: &str = "Other settings mean another training. They are refused here while this one has checkpoints, so that nothing is \
     lost: try them in another folder (--exp DIR), from the start or with train.init_from set to a copy of an earlier checkpoint, or \
     start again here with --force --stage train. The same command continues from the newest checkpoint, where `flowmill ctl EXP lr RATE` \
     lowers the learning rate within this training";

/// Everything that the part reads.
pub struct Training {
    /// The recipe's section, completed.
    pub section: TrainSection,
    /// The shards.
    pub data: DataPaths,
    /// Files of earlier stages for the model.
    pub artifacts: Artifacts,
    /// The fitted extractors that belong to it.
    pub extractors: Vec<(PathBuf, &'static str)>,
    /// The file of the initial weights, if any.
    pub weights: Option<PathBuf>,
    /// The adapter with the initial values of the adapters, if any.
    pub adapter: Option<AdapterFiles>,
    /// The experiment, whose folder receives commands.
    pub experiment: PathBuf,
    /// The stage's folder, the place of the results.
    pub results: PathBuf,
    /// The split that stage 6 will score.
    pub scored: String,
}

/// The model with its initial weights, and its data.
pub struct Prepared {
    /// The model, complete.
    pub config: Arc<dyn Configured>,
    /// The shards.
    pub data: TrainingData,
    /// The model's loss.
    pub task: FamilyTask,
    /// The initial weights.
    pub parameters: Parameters,
}

/// The description in `config.json` of adapters that are in the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adapted {
    /// Their settings.
    #[serde(flatten)]
    pub settings: LoraConfig,
    /// Their base weights, as named in the recipe.
    pub base: Option<String>,
    /// True if they are merged into the model's weights; otherwise they are in a file of their own.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub merged: bool,
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

impl Training {
    /// Creates the work for a section of `recipe`; `folder` returns the folder of a stage's results.
    pub fn new(section: TrainSection, recipe: &Recipe, folder: &dyn Fn(u8) -> PathBuf) -> Self {
        let pack = folder(PACK);
        let index = |split: &str| pack.join(split).join("index.json");
        let own = index(&section.settings.train_split);
        let train = mixture::corpora(&section.settings.mixture, &own, &folder(TRAIN), &|path| recipe.resolve(path));
        Self {
            data: DataPaths { train, validation: section.settings.validation_split.as_deref().map(index), own },
            artifacts: artifacts(&section, recipe.dir().to_owned(), folder),
            extractors: extractors(&section, folder),
            weights: section.settings.init_from.as_deref().map(|path| init_weights::weight_file(&recipe.resolve(path))),
            adapter: init_weights::adapter_files(&section, recipe),
            results: folder(TRAIN),
            scored: scored_split(&section, recipe),
            experiment: pack.parent().unwrap_or(&pack).to_owned(),
            section,
        }
    }

    /// Trains, resuming an earlier attempt, and makes the results outputs.
    ///
    /// # Errors
    /// Returns the error that stops training; [`StageError::Interrupted`] after saving if the user asked to stop.
    pub fn run(&self, work: &PartWork) -> Result<PartReport, StageError> {
        let world = flowmill_collective::world();
        ranks::on_own_threads(&world, || self.run_in(&world, work))?
    }

    fn run_in(&self, world: &World, work: &PartWork) -> Result<PartReport, StageError> {
        let resumes = work.persisted()?.iter().any(|name| step_of(name).is_some());
        let mut prepared = self.prepare(resumes, &|message| work.message(message))?;
        let weights = prepared.parameters.element_count(true);
        if world.is_shared() {
            work.message(shared_by(world, &self.section));
            world.ranks.call(&Call::Train { resumes }.bytes()).map_err(StageError::other)?;
        }
        let summary = self.train(world, work, &mut prepared)?;
        if summary.interrupted {
            return Err(StageError::Interrupted);
        }
        let published = self.publish(work, &prepared);
        published.map_err(|error| self.complete_but_unpublished(work, error))?;
        // The reported best checkpoint must be one that exists.
        let best = checkpoint::best(&StagedCheckpoints(work)).map_err(StageError::other)?;
        Ok(report(&Summary { best, ..summary }, weights, &prepared.data))
    }

    /// Opens the data and creates the model, and prints notes about both. A model that `resumes` gets its weights
    /// from a checkpoint, so its initial weights need not exist any more; adapters need their base weights.
    ///
    /// # Errors
    /// Returns an error if data, statistics, codebook or weights cannot be read or do not match.
    pub fn prepare(&self, resumes: bool, tell: &dyn Fn(String)) -> Result<Prepared, StageError> {
        splits::check(&self.section, &self.data)?;
        let Self { artifacts, section, .. } = self;
        let config = section.model.completed(artifacts).map_err(StageError::other)?;
        let device = ranks::device(section.settings.device, &flowmill_collective::world());
        let device = device::open(device).map_err(StageError::other)?;
        let data = TrainingData::open(&self.data, &config, section, device.clone())?;
        if data.train_len() == 0 {
            return Err(StageError::new("the training split has no utterances"));
        }
        data.check_corpora(&self.data, tell)?;
        splits::warn_of_scores(&self.scored, &self.data, tell)?;
        announce(tell, &data);
        data.notes().into_iter().for_each(tell);
        let seed = section.run.seed;
        let (model, mut parameters) = config.build(seed).map_err(StageError::other)?;
        config.initialize(&mut parameters, artifacts, seed).map_err(StageError::other)?;
        let weights = self.weights.as_ref().filter(|_| !resumes || section.settings.lora.is_some());
        if let Some(file) = weights {
            if self.adapter.is_none() {
                init_weights::refuse_detached_adapters(file)?;
            }
            let loaded = init_weights::start_from(&mut parameters, file, section.settings.init_partial)?;
            tell(format!("starting from {}: {}", file.display(), loaded.told()));
            if let Some(lora) = &section.settings.lora {
                tell(init_weights::adapt(&mut parameters, lora, &loaded.report, seed)?);
                if let Some(files) = self.adapter.as_ref().filter(|_| !resumes) {
                    tell(init_weights::go_on_from(&mut parameters, lora, files)?);
                }
            }
        }
        device::allow_tf32(section.settings.tf32);
        place(&mut parameters, &device).map_err(StageError::other)?;
        let tf32 = if section.settings.tf32 && !device.is_cpu() { ", products in TF32" } else { "" };
        tell(format!("computing on {}{tf32}", in_words(name_of(&device))));
        let preview = Preview {
            examples: data.examples(section.settings.sample_count, RngKey::new(seed).purpose("preview"))?,
            seed,
            description: self.describe(config.as_ref())?,
            adapted: self.adapted(),
            config: config.clone(),
            extractors: ExtractorFiles::new(self.extractors.clone()),
        };
        Ok(Prepared { config, data, task: FamilyTask { model, preview }, parameters })
    }

    fn train(&self, world: &World, work: &PartWork, prepared: &mut Prepared) -> Result<Summary, StageError> {
        let store = StagedCheckpoints(work);
        let mut watch = Watch::new(work, &self.experiment, &self.results, prepared.config.as_ref());
        let Prepared { data, task, parameters, .. } = prepared;
        let (config, folder) = (&self.section.run, work.staging_dir());
        let trained =
            flowmill_train::train_with(task, parameters, data, config, (&folder, &store), &mut watch, &*world.ranks);
        trained.map_err(with_ways_on)
    }

    /// Makes checkpoints, metrics, the configuration and the base weights of adapters outputs.
    fn publish(&self, work: &PartWork, Prepared { task, parameters, .. }: &Prepared) -> Result<(), StageError> {
        let files = [METRICS_FILE, EVENTS_FILE, REFERENCES_FILE, COMMANDS_FILE];
        let names = files.iter().chain(&[SKIPPED_FOLDER, WANDB_FOLDER]);
        let mut logs: Vec<(String, String)> = names.map(|name| ((*name).to_owned(), (*name).to_owned())).collect();
        for name in work.persisted()? {
            if step_of(&name).is_some() {
                self.publish_checkpoint(work, &name)?;
            } else if let Some(step) = samples_step(&name) {
                logs.push((name, format!("{SAMPLES}/{}", checkpoint::name(step))));
            }
        }
        for (name, output) in logs {
            let path = work.staging_dir().join(&name);
            let is_whole = if files.contains(&name.as_str()) { path.is_file() } else { path.is_dir() };
            if is_whole && let Err(error) = work.output_persisted(&name, &output) {
                work.message(format!(
                    "WARNING: {output} is left out of the results, which do not depend on it: {error}"
                ));
            }
        }
        if self.section.settings.lora.is_some() {
            checkpoint::write_base(parameters, &work.output(BASE_FILE)?).map_err(StageError::other)?;
        }
        let path = work.output(CONFIG_FILE)?;
        std::fs::write(&path, format!("{:#}\n", task.preview.description))
            .map_err(|error| StageError::file(&path, error))
    }

    /// Makes a checkpoint an output, or moves it aside if it was damaged since it was written.
    fn publish_checkpoint(&self, work: &PartWork, name: &str) -> Result<(), StageError> {
        match checkpoint::verify(&work.staging_dir().join(name)) {
            Ok(()) => work.output_persisted(name, &format!("{CHECKPOINTS}/{name}")),
            Err(error @ TrainError::Damaged { .. }) => {
                let aside = work.set_aside(name, &format!("damaged-{name}"))?;
                work.message(format!("WARNING: {error}; it was moved to {}; the others are intact", aside.display()));
                Ok(())
            }
            Err(error) => Err(StageError::other(error)),
        }
    }

    /// Adds to a failure after the last step that nothing is lost.
    fn complete_but_unpublished(&self, work: &PartWork, error: StageError) -> StageError {
        let (full, checkpoints) = (error.is_disk_full(), work.staging_dir());
        let told = format!(
            "{error}. The training is complete and nothing is lost: all checkpoints are in {}. Run the same command again; it will only \
             put the results in place",
            checkpoints.display()
        );
        if full { StageError::DiskFull(told) } else { StageError::new(told) }
    }

    /// Returns the description that is needed to use the weights.
    fn describe(&self, config: &dyn Configured) -> Result<Value, StageError> {
        // All corpora have the same columns.
        let first = self.data.indexes().next().unwrap_or(&self.data.own);
        let index = flowmill_corpus::shard::ShardIndex::read(first).map_err(StageError::other)?;
        let mut described = json!({ "family": config.family(), "model": config.config() });
        if let (Some(fields), Value::Object(own)) =
            (described.as_object_mut(), config.describe(&index).map_err(StageError::other)?)
        {
            fields.extend(own);
        }
        if let Some(adapted) = self.adapted() {
            described["lora"] = json!(adapted);
        }
        Ok(described)
    }

    /// Returns the adapters that are trained, if any.
    fn adapted(&self) -> Option<Adapted> {
        let settings = self.section.settings.lora.clone()?;
        let base = self.section.settings.init_from.as_deref().map(base_name);
        Some(Adapted { settings, base, merged: true })
    }
}

/// Returns the fitted extractors that belong to the model of a training, and their names in its folder; `folder`
/// returns the folder of a stage's results.
pub fn extractors(section: &TrainSection, folder: &dyn Fn(u8) -> PathBuf) -> Vec<(PathBuf, &'static str)> {
    let Artifacts { embed, tokens, .. } = artifacts(section, PathBuf::new(), folder);
    let path = |stage: u8| if stage == EMBED { embed.clone() } else { tokens.clone() };
    section.model.extractors().iter().map(|extractor| (path(extractor.stage), extractor.file)).collect()
}

/// Returns the files of earlier stages that a training reads; `root` is the folder of the recipe.
fn artifacts(section: &TrainSection, root: PathBuf, folder: &dyn Fn(u8) -> PathBuf) -> Artifacts {
    Artifacts {
        root,
        packed: folder(PACK),
        embed: folder(EMBED).join(flowmill_stage_embed::EXTRACTOR),
        tokens: folder(TOKENS).join(flowmill_stage_tokens::CODEBOOK),
        train_split: section.settings.train_split.clone(),
    }
}

/// Returns the name of the base weights of adapters in a description: the path in the recipe, or only the file name
/// of a path that is valid only on this machine.
fn base_name(path: &str) -> String {
    let absolute = Path::new(path).is_absolute();
    let name = Path::new(path).file_name().filter(|_| absolute).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| path.to_owned())
}

/// Returns the split that stage 6 samples and scores: `export.split`, or the validation split, or else the training
/// split.
pub fn scored_split(section: &TrainSection, recipe: &Recipe) -> String {
    // A value of another type is rejected by stage 6, which reads the whole section.
    let given: Option<String> = recipe.value("export.split").ok().flatten();
    given.or_else(|| section.settings.validation_split.clone()).unwrap_or_else(|| section.settings.train_split.clone())
}

/// Adds to a diagnosis that suggests other settings how to try them without losing anything.
fn with_ways_on(error: TrainError) -> StageError {
    match error {
        TrainError::Diverged { .. } | TrainError::LossScale { .. } => {
            StageError::new(format!("{error}. {OTHER_SETTINGS}"))
        }
        other => StageError::other(other),
    }
}

/// Describes the division of the work among ranks.
fn shared_by(world: &World, section: &TrainSection) -> String {
    let (size, engine, batches) = (world.ranks.size(), world.ranks.engine(), section.run.accum_grad);
    let share = match batches {
        _ if batches.is_multiple_of(size) => {
            format!("each computes {} of the {batches} batches of a step", batches / size)
        }
        1 => format!("each computes 1/{size} of the batch of a step"),
        _ => format!("each computes 1/{size} of each of the {batches} batches of a step"),
    };
    format!("training on {size} ranks through {engine}: {share}")
}

fn announce(tell: &dyn Fn(String), data: &TrainingData) {
    if data.validation_len() == 0 {
        tell(
            "no validation split: checkpoints have no validation loss, so stage 5 averages the last ones instead of the best"
                .to_owned(),
        );
    }
    let oversized = data.oversized();
    if let Some(first) = oversized.first() {
        let (count, unit) = (oversized.len(), data.cost_unit());
        tell(format!(
            "{count} utterances cost more {unit} than train.batch.max_frames_in_batch, such as {first}; each gets its own batch"
        ));
    }
}

fn report(summary: &Summary, weights: usize, data: &TrainingData) -> PartReport {
    let mut report = PartReport::summary()
        .fact("parameters", weights)
        .fact("train_utterances", data.train_len())
        .fact("validation_utterances", data.validation_len())
        .fact("steps", summary.steps)
        .fact("epochs", summary.epochs)
        .fact("skipped_steps", summary.skipped);
    if summary.stopped_early {
        report = report.fact("stopped_early", true);
    }
    if let Some(loss) = summary.loss {
        report = report.fact("train_loss", loss);
    }
    if let Some(loss) = summary.validation {
        report = report.fact("validation_loss", loss);
    }
    if let Some(best) = summary.best {
        report = report.fact("best_validation_loss", best.loss).fact("best_step", best.step);
    }
    report
}
