//! The work of the training part.

use std::path::{Path, PathBuf};

use flowmill_models::flow::MelNormalisation;
use flowmill_nn::Parameters;
use flowmill_nn::device::{self, name_of};
use flowmill_runner::{PartReport, PartWork, Recipe, StageError};
use flowmill_stage_pack::MelStatistics;
use flowmill_train::checkpoint::{self, step_of};
use flowmill_train::device::{in_words, place};
use flowmill_train::lora::AdapterFiles;
use flowmill_train::metrics::{EVENTS_FILE, METRICS_FILE, WANDB_FOLDER};
use flowmill_train::steering::COMMANDS_FILE;
use flowmill_train::{LoraConfig, SKIPPED_FOLDER, Summary, TrainError, samples_step};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::data::{DataPaths, FlowData, check_bins};
use crate::store::StagedCheckpoints;
use crate::studio::Studio;
use crate::task::FlowTask;
use crate::watch::Watch;
use crate::{
    BASE_FILE, CHECKPOINTS, CONFIG_FILE, ModelConfig, SAMPLES, TokenEmbedding, TrainSection, codebook, mixture, splits,
    start,
};

/// Number of the stage that makes speaker embeddings.
const EMBED: u8 = 1;
/// Number of the stage that makes units.
const TOKENS: u8 = 2;
/// Number of this stage.
pub const TRAIN: u8 = 4;
/// Number of the packing stage.
pub const PACK: u8 = 3;

/// What other settings mean for the checkpoints of a training that has failed.
const OTHER_SETTINGS: &str = "Other settings are another training. While this one has checkpoints they are refused here, so that nothing is \
     lost: try them in another folder (--exp DIR), from the start or with train.init_from set to a copy of a checkpoint from before, or \
     begin anew here with --force --stage train. The same command goes on from the newest checkpoint, where `flowmill ctl EXP lr RATE` \
     lowers the rate within this training";

/// Everything the part reads.
pub struct Training {
    /// The recipe's section, completed.
    pub section: TrainSection,
    /// The shards.
    pub data: DataPaths,
    /// Mean and deviation of every mel bin.
    pub statistics: PathBuf,
    /// The codebook that the token embedding starts from, if any.
    pub codebook: Option<PathBuf>,
    /// The file that the weights start from, if any.
    pub weights: Option<PathBuf>,
    /// The adapter that the adapters start from, if any.
    pub adapter: Option<AdapterFiles>,
    /// The experiment, in which commands are heard.
    pub experiment: PathBuf,
    /// The stage's folder, where the results will lie.
    pub results: PathBuf,
    /// The split that stage 6 will score.
    pub scored: String,
    /// The fitted extractors of speakers and of tokens.
    pub extractors: [PathBuf; 2],
}

/// The model at its start, and its data.
pub struct Prepared {
    /// The model's settings.
    pub config: ModelConfig,
    /// The shards.
    pub data: FlowData,
    /// The model's loss.
    pub task: FlowTask,
    /// The weights that training starts from.
    pub parameters: Parameters,
}

/// What `config.json` says of adapters that the weights hold beside what they adapt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adapted {
    /// What they are like.
    #[serde(flatten)]
    pub settings: LoraConfig,
    /// What they adapt, as the recipe calls it.
    pub base: Option<String>,
    /// Whether a model's weights have them merged in, rather than beside them in a file of their own.
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
    /// What a section of `recipe` asks for; `folder` knows where a stage's results lie.
    pub fn new(section: TrainSection, recipe: &Recipe, folder: &dyn Fn(u8) -> PathBuf) -> Self {
        let pack = folder(PACK);
        let index = |split: &str| pack.join(split).join("index.json");
        let own = index(&section.train_split);
        let train = mixture::corpora(&section.mixture, &own, &|path| recipe.resolve(path));
        Self {
            data: DataPaths { train, validation: section.validation_split.as_deref().map(index), own },
            statistics: pack.join("mel_statistics.json"),
            codebook: match section.token_embedding {
                TokenEmbedding::Random => None,
                TokenEmbedding::Codebook => Some(folder(TOKENS).join(flowmill_stage_tokens::CODEBOOK)),
            },
            weights: section.init_from.as_deref().map(|path| start::weight_file(&recipe.resolve(path))),
            adapter: start::adapter_files(&section, recipe),
            extractors: [
                folder(EMBED).join(flowmill_stage_embed::EXTRACTOR),
                folder(TOKENS).join(flowmill_stage_tokens::CODEBOOK),
            ],
            results: folder(TRAIN),
            scored: scored_split(&section, recipe),
            experiment: pack.parent().unwrap_or(&pack).to_owned(),
            section,
        }
    }

    /// Trains, resuming what an earlier attempt left, and makes the results outputs.
    ///
    /// # Errors
    /// Whatever stops training; [`StageError::Interrupted`] after saving when the person asked to stop.
    pub fn run(&self, work: &PartWork) -> Result<PartReport, StageError> {
        let resumes = work.persisted()?.iter().any(|name| step_of(name).is_some());
        let mut prepared = self.prepare(resumes, &|message| work.message(message))?;
        let weights = prepared.parameters.element_count(true);
        let summary = self.train(work, &mut prepared)?;
        if summary.interrupted {
            return Err(StageError::Interrupted);
        }
        let published = self.publish(work, &prepared);
        published.map_err(|error| self.complete_but_unpublished(work, error))?;
        // The best one that is reported is one that there is.
        let best = checkpoint::best(&StagedCheckpoints(work)).map_err(StageError::other)?;
        Ok(report(&Summary { best, ..summary }, weights, &prepared.data))
    }

    /// Opens the data and makes the model, telling what a person should know of both. A model that `resumes` gets its weights from a
    /// checkpoint, so those that training began with need not be there any more; adapters need what they are adapters of.
    ///
    /// # Errors
    /// When data, statistics, codebook or weights cannot be read or do not fit.
    pub fn prepare(&self, resumes: bool, tell: &dyn Fn(String)) -> Result<Prepared, StageError> {
        splits::check(&self.section, &self.data)?;
        let config = self.resolved()?;
        let data = FlowData::open(&self.data, config.flow(), &self.section)?;
        if data.train_len() == 0 {
            return Err(StageError::new("the training split has no utterances"));
        }
        data.check_corpora(&self.data, tell)?;
        splits::warn_of_scores(&self.scored, &self.data, tell)?;
        announce(tell, &data);
        let seed = self.section.train_config().seed;
        let (model, mut parameters) = config.build(seed).map_err(StageError::other)?;
        if let Some(codebook) = &self.codebook {
            codebook::start_from(&mut parameters, codebook, config.flow(), seed)?;
        }
        let weights = self.weights.as_ref().filter(|_| !resumes || self.section.lora.is_some());
        if let Some(file) = weights {
            if self.adapter.is_none() {
                start::refuse_apart(file)?;
            }
            let loaded = start::start_from(&mut parameters, file, self.section.init_partial)?;
            tell(format!("starting from {}: {}", file.display(), loaded.told()));
            if let Some(lora) = &self.section.lora {
                tell(start::adapt(&mut parameters, lora, &loaded.report, seed)?);
                if let Some(files) = self.adapter.as_ref().filter(|_| !resumes) {
                    tell(start::go_on_from(&mut parameters, lora, files)?);
                }
            }
        }
        let device = device::open(self.section.device).map_err(StageError::other)?;
        device::allow_tf32(self.section.tf32);
        place(&mut parameters, &device).map_err(StageError::other)?;
        let tf32 = if self.section.tf32 && !device.is_cpu() { ", products in TF32" } else { "" };
        tell(format!("computing on {}{tf32}", in_words(name_of(&device))));
        let studio = Studio {
            utterances: data.held_out(self.section.sample_count)?,
            seed,
            description: self.describe(&config)?,
            adapter_scale: self.section.lora.as_ref().map(LoraConfig::scale),
            extractors: self.extractors.clone(),
        };
        Ok(Prepared { config, data, task: FlowTask { model, studio }, parameters })
    }

    fn train(&self, work: &PartWork, prepared: &mut Prepared) -> Result<Summary, StageError> {
        let settings = self.section.train_config();
        let bins = prepared.config.flow().output_size;
        let (store, mut watch) = (StagedCheckpoints(work), Watch::new(work, &self.experiment, &self.results, bins));
        let Prepared { data, task, parameters, .. } = prepared;
        let trained = flowmill_train::train(task, parameters, data, &settings, &work.staging_dir(), &store, &mut watch);
        trained.map_err(with_ways_on)
    }

    /// The model's settings with the normalisation that the recipe asks for.
    fn resolved(&self) -> Result<ModelConfig, StageError> {
        let mut config = self.section.model.clone();
        if self.section.normalise_mel && config.flow().mel_normalisation.is_none() {
            let normalisation = self.normalisation(config.flow().output_size)?;
            config.flow_mut().mel_normalisation = Some(normalisation);
        }
        match config.check() {
            Ok(()) => Ok(config),
            Err((key, message)) => Err(StageError::new(format!("train.model.{key}: {message}"))),
        }
    }

    fn normalisation(&self, bins: usize) -> Result<MelNormalisation, StageError> {
        let path = &self.statistics;
        let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => StageError::new(format!(
                "{} is not there: stage 3 takes the statistics to normalise by of the stored mels of train.train_split (`{}`); without \
                 these set train.normalise_mel: false",
                path.display(),
                self.section.train_split
            )),
            _ => StageError::file(path, error),
        })?;
        let statistics: MelStatistics =
            serde_json::from_str(&text).map_err(|error| StageError::new(format!("{}: {error}", path.display())))?;
        if statistics.split != self.section.train_split {
            return Err(StageError::new(format!(
                "{}: the statistics are those of the split `{}`, and train.train_split is `{}`: run stage 3 again (--stage pack), which takes \
                 them of that split",
                path.display(),
                statistics.split,
                self.section.train_split
            )));
        }
        check_bins(statistics.mean.len(), bins)?;
        let single = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
        Ok(MelNormalisation { mean: single(&statistics.mean), deviation: single(&statistics.std) })
    }

    /// Makes checkpoints, metrics, the configuration and what adapters stand beside outputs.
    fn publish(&self, work: &PartWork, Prepared { config, parameters, .. }: &Prepared) -> Result<(), StageError> {
        let mut logs: Vec<(String, String)> = [METRICS_FILE, EVENTS_FILE, SKIPPED_FOLDER, COMMANDS_FILE, WANDB_FOLDER]
            .iter()
            .map(|name| ((*name).to_owned(), (*name).to_owned()))
            .collect();
        for name in work.persisted()? {
            if step_of(&name).is_some() {
                self.publish_checkpoint(work, &name)?;
            } else if let Some(step) = samples_step(&name) {
                logs.push((name, format!("{SAMPLES}/{}", checkpoint::name(step))));
            }
        }
        for (name, output) in logs {
            let path = work.staging_dir().join(&name);
            let is_whole = if [METRICS_FILE, EVENTS_FILE, COMMANDS_FILE].contains(&name.as_str()) {
                path.is_file()
            } else {
                path.is_dir()
            };
            if is_whole && let Err(error) = work.output_persisted(&name, &output) {
                work.message(format!(
                    "WARNING: {output} is left out of the results, which need it for nothing: {error}"
                ));
            }
        }
        if self.section.lora.is_some() {
            checkpoint::write_base(parameters, &work.output(BASE_FILE)?).map_err(StageError::other)?;
        }
        let path = work.output(CONFIG_FILE)?;
        std::fs::write(&path, format!("{:#}\n", self.describe(config)?)).map_err(|error| StageError::file(&path, error))
    }

    /// Makes a checkpoint an output, or moves it aside when it was damaged since it was written.
    fn publish_checkpoint(&self, work: &PartWork, name: &str) -> Result<(), StageError> {
        match checkpoint::verify(&work.staging_dir().join(name)) {
            Ok(()) => work.output_persisted(name, &format!("{CHECKPOINTS}/{name}")),
            Err(error @ TrainError::Damaged { .. }) => {
                let aside = work.set_aside(name, &format!("damaged-{name}"))?;
                work.message(format!("WARNING: {error}; it is moved to {}, the others are whole", aside.display()));
                Ok(())
            }
            Err(error) => Err(StageError::other(error)),
        }
    }

    /// Says of a failure after the last step that nothing is lost.
    fn complete_but_unpublished(&self, work: &PartWork, error: StageError) -> StageError {
        let (full, checkpoints) = (error.is_disk_full(), work.staging_dir());
        let told = format!(
            "{error}. The training is complete and nothing of it is lost: all checkpoints are in {}. Run the same command again, which only \
             puts the results in place",
            checkpoints.display()
        );
        if full { StageError::DiskFull(told) } else { StageError::new(told) }
    }

    /// What it takes to use the weights.
    fn describe(&self, config: &ModelConfig) -> Result<Value, StageError> {
        // All corpora have the same mels.
        let first = self.data.indexes().next().unwrap_or(&self.data.own);
        let index = flowmill_corpus::shard::ShardIndex::read(first).map_err(StageError::other)?;
        let mut described = json!({
            "family": config.family(),
            "model": config.settings(),
            "mel": index.mel,
            "speaker_embedding": self.section.speaker_embedding,
        });
        if let Some(lora) = &self.section.lora {
            described["lora"] = json!(Adapted {
                settings: lora.clone(),
                base: self.section.init_from.as_deref().map(base_name),
                merged: true
            });
        }
        Ok(described)
    }
}

/// What a description calls the weights that adapters are for: the path as the recipe has it, or the name alone of one that holds for
/// this machine only.
fn base_name(path: &str) -> String {
    let absolute = Path::new(path).is_absolute();
    let name = Path::new(path).file_name().filter(|_| absolute).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| path.to_owned())
}

/// The split that stage 6 samples and scores: `export.split`, or the one that is validated on, or else the one that is trained on.
pub fn scored_split(section: &TrainSection, recipe: &Recipe) -> String {
    // A value of another type is refused by stage 6, which reads the whole section.
    let given: Option<String> = recipe.value("export.split").ok().flatten();
    given.or_else(|| section.validation_split.clone()).unwrap_or_else(|| section.train_split.clone())
}

/// Adds to a diagnosis that asks for other settings how they are tried without losing anything.
fn with_ways_on(error: TrainError) -> StageError {
    match error {
        TrainError::Diverged { .. } | TrainError::LossScale { .. } => {
            StageError::new(format!("{error}. {OTHER_SETTINGS}"))
        }
        other => StageError::other(other),
    }
}

fn announce(tell: &dyn Fn(String), data: &FlowData) {
    if data.validation_len() == 0 {
        tell(
            "nothing is held out: checkpoints have no validation loss, none is the best, and stage 5 averages the last"
                .to_owned(),
        );
    }
    let oversized = data.oversized();
    if let Some(first) = oversized.first() {
        let count = oversized.len();
        tell(format!(
            "{count} utterances are longer than train.batch.max_frames_in_batch, such as {first}; each is a batch of its own"
        ));
    }
}

fn report(summary: &Summary, weights: usize, data: &FlowData) -> PartReport {
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
