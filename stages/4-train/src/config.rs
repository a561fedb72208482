//! The recipe's `train` section.

use flowmill_corpus::ColumnSpec;
use flowmill_corpus::sampling::{BatchSize, Order, Phase, SamplingOptions, curriculum};
use flowmill_corpus::shard::speech;
use flowmill_nn::Precision;
use flowmill_nn::device::{self, DeviceName};
use flowmill_runner::{Recipe, RecipeError};
use flowmill_train::metrics::{WandbConfig, WandbRun};
use flowmill_train::{
    EarlyStopping, Interval, KeepConfig, LoraConfig, LossScaleConfig, OptimConfig, RunLength, ScheduleConfig,
    TrainConfig, TrainError,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::mixture::{self, MixtureEntry};
use crate::{ModelConfig, start};

/// The section's name.
pub const SECTION: &str = "train";
/// Passes over the data when the recipe gives neither steps nor passes.
const DEFAULT_EPOCHS: u64 = 100;
/// The most utterances that are generated now and then while training waits.
const MOST_SAMPLES: usize = 100;

/// What is trained, on what, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSection {
    /// The network: its family, and below it its dimensions.
    pub model: ModelConfig,
    /// The embedding of the speaker that the model is given.
    pub speaker_embedding: SpeakerEmbedding,
    /// What the embedding of the speech tokens starts from.
    pub token_embedding: TokenEmbedding,
    /// Weights to start from: a file, or the folder of a checkpoint or of an exported model; null: random ones.
    pub init_from: Option<String>,
    /// Takes what fits of `init_from`, by name and shape, and starts the rest at random; otherwise all must fit.
    pub init_partial: bool,
    /// Trains low-rank adapters on the weights of `init_from` instead of the weights themselves; null: all weights are trained.
    pub lora: Option<LoraConfig>,
    /// Whether the model sees mels of mean 0 and deviation 1 per bin, by the statistics that packing took over the training split.
    /// The published model sees them as they are. Without effect when `model.mel_normalisation` is given.
    pub normalise_mel: bool,
    /// The split to train on.
    pub train_split: String,
    /// The split to validate on.
    pub validation_split: Option<String>,
    /// How utterances are shuffled and batched.
    pub batch: BatchConfig,
    /// The order of the epochs, in phases; the last one lasts to the end.
    pub curriculum: Vec<Phase>,
    /// The corpora to train on, with the share of each; empty: the recipe's own training split alone.
    #[serde(deserialize_with = "mixture::null_is_none")]
    pub mixture: Vec<MixtureEntry>,
    /// The optimiser.
    pub optim: OptimConfig,
    /// The learning rate over the steps.
    pub schedule: ScheduleConfig,
    /// Batches averaged into one step.
    pub accum_grad: usize,
    /// Longest gradient allowed; null: no clipping.
    pub grad_clip: Option<f64>,
    /// Largest gradient value allowed, after the clipping by length; null: no clipping.
    pub grad_clip_value: Option<f64>,
    /// The number format of forward and backward passes; weights and optimiser are always single precision.
    pub precision: Precision,
    /// The factor on the loss with `precision: fp16`, which alone needs one.
    pub loss_scale: Option<LossScaleConfig>,
    /// Computes the inside of every block again in the backward pass instead of keeping it: less memory, more time, the same results.
    pub gradient_checkpointing: bool,
    /// Decay of the moving average of the weights; null: none.
    pub ema_decay: Option<f64>,
    /// Stop after so many steps; null: after `max_epochs`.
    pub max_steps: Option<u64>,
    /// Stop after so many passes over the data; null: after `max_steps`, or 100 when both are null.
    pub max_epochs: Option<u64>,
    /// Ends training when the validation loss does not improve any more; null: never.
    pub early_stopping: Option<EarlyStopping>,
    /// Saves and stops as on Ctrl-C after so many seconds, so that the next run goes on; null: never.
    pub max_seconds: Option<u64>,
    /// Validate every so many steps, or `{epochs: N}`; 0: only with every checkpoint.
    pub validate_every: Interval,
    /// Save a checkpoint every so many steps, or `{epochs: N}`; 0: only at the end.
    pub save_every: Interval,
    /// Write a metrics line every so many steps.
    pub log_every: u64,
    /// Adds the gradient norm, weight norm and update ratio of each parameter group to the metrics.
    pub log_groups: bool,
    /// Write histograms of the gradients into the TensorBoard events every so many steps; 0: never.
    pub log_gradients: u64,
    /// Generate a few validation utterances every so many steps; 0: never.
    pub sample_every: u64,
    /// How many of them, the first of the split; also by command.
    pub sample_count: usize,
    /// A Weights & Biases run beside the other metrics; null: none.
    pub wandb: Option<WandbConfig>,
    /// Which checkpoints stay.
    pub keep: KeepConfig,
    /// Batches loaded ahead.
    pub prefetch: usize,
    /// Threads that load batches.
    pub num_workers: usize,
    /// Of how many skipped steps the weights are kept, for `train --replay`; the newest ones.
    pub skipped_weights: u64,
    /// So many steps in a row without a finite loss and gradient stop the run.
    pub max_skipped_in_a_row: u64,
    /// Key of every draw; null: the recipe's `seed`.
    pub seed: Option<u64>,
    /// What computes: `auto` (a GPU that works, else the CPU), `cpu`, `cuda:N` or `metal`.
    pub device: DeviceName,
}

impl Default for TrainSection {
    fn default() -> Self {
        let train = TrainConfig::default();
        Self {
            model: ModelConfig::default(),
            speaker_embedding: SpeakerEmbedding::default(),
            token_embedding: TokenEmbedding::default(),
            init_from: None,
            init_partial: false,
            lora: None,
            normalise_mel: true,
            train_split: flowmill_stage_prep::TRAIN_SPLIT.to_owned(),
            validation_split: Some("dev".to_owned()),
            batch: BatchConfig::default(),
            curriculum: SamplingOptions::default().curriculum,
            mixture: Vec::new(),
            optim: train.optim,
            schedule: train.schedule,
            accum_grad: train.accum_grad,
            grad_clip: train.grad_clip,
            grad_clip_value: train.grad_clip_value,
            precision: train.precision,
            loss_scale: train.loss_scale,
            gradient_checkpointing: train.gradient_checkpointing,
            ema_decay: train.ema_decay,
            max_steps: train.max_steps,
            max_epochs: train.max_epochs,
            early_stopping: train.early_stopping,
            max_seconds: train.max_seconds,
            validate_every: train.validate_every,
            save_every: train.save_every,
            log_every: train.log_every,
            log_groups: train.log_groups,
            log_gradients: train.log_gradients,
            sample_every: train.sample_every,
            sample_count: 2,
            wandb: None,
            keep: train.keep,
            prefetch: train.prefetch,
            num_workers: train.num_workers,
            skipped_weights: train.skipped_weights,
            max_skipped_in_a_row: train.max_skipped_in_a_row,
            seed: None,
            device: DeviceName::Auto,
        }
    }
}

/// Which embedding stands for the speaker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpeakerEmbedding {
    /// The utterance's own, as the public models are trained.
    #[default]
    Utterance,
    /// The mean over the speaker's utterances.
    Speaker,
}

impl SpeakerEmbedding {
    /// The column that holds it.
    pub fn spec(self) -> ColumnSpec {
        match self {
            Self::Utterance => speech::utt_embedding(),
            Self::Speaker => speech::spk_embedding(),
        }
    }

    /// The name of that column.
    pub fn column(self) -> &'static str {
        match self {
            Self::Utterance => speech::UTT_EMBEDDING,
            Self::Speaker => speech::SPK_EMBEDDING,
        }
    }
}

/// What the embedding of the speech tokens starts from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenEmbedding {
    /// Random vectors, as the public models start.
    #[default]
    Random,
    /// The centres of stage 2's k-means codebook, standardised and projected at random: units that sound alike start alike.
    Codebook,
}

/// How utterances are shuffled and batched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// The most mel frames of a batch after padding: its longest utterance times its count.
    pub max_frames_in_batch: u32,
    /// The most utterances of a batch; 0: no limit but the frames.
    pub max_utterances_in_batch: u32,
    /// So many utterances in every batch, whatever their lengths, instead of those two limits; null: the limits.
    pub batch_size: Option<u32>,
    /// Utterances are shuffled within windows of this many.
    pub shuffle_size: u32,
    /// Runs of this many are sorted by length before they are cut into batches; 1: no sorting.
    pub sort_size: u32,
    /// Width of the buckets of `order: bucketed`, in mel frames.
    pub bucket_frames: u32,
}

impl Default for BatchConfig {
    fn default() -> Self {
        let options = SamplingOptions::default();
        Self {
            max_frames_in_batch: 10_000,
            max_utterances_in_batch: 0,
            batch_size: None,
            shuffle_size: options.shuffle_size,
            sort_size: options.sort_size,
            bucket_frames: options.bucket_frames,
        }
    }
}

impl BatchConfig {
    /// The key that cannot be used, and why.
    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        match self {
            Self { max_frames_in_batch: 0, .. } => Err(("max_frames_in_batch", "must be at least 1")),
            Self { batch_size: Some(0), .. } => Err(("batch_size", "must be at least 1, or null")),
            Self { batch_size: Some(_), max_utterances_in_batch: 1.., .. } => {
                Err(("batch_size", "and max_utterances_in_batch say the same thing; leave one of them out"))
            }
            Self { bucket_frames: 0, .. } => Err(("bucket_frames", "must be at least 1")),
            _ => Ok(()),
        }
    }

    fn size(&self) -> BatchSize {
        match self.batch_size {
            Some(size) => BatchSize::Static(size),
            None => BatchSize::Dynamic { frames: self.max_frames_in_batch, utterances: self.max_utterances_in_batch },
        }
    }
}

impl TrainSection {
    /// Reads, completes and checks the section.
    pub fn read(recipe: &Recipe) -> Result<Self, RecipeError> {
        let mut section: Self = recipe.section(SECTION)?;
        section.seed.get_or_insert(recipe.seed());
        if let Some(wandb) = &mut section.wandb {
            wandb.name.get_or_insert(recipe.name().to_owned());
        }
        if section.max_steps.is_none() {
            section.max_epochs.get_or_insert(DEFAULT_EPOCHS);
        }
        section.check(recipe)?;
        section.loss_scale = section.train_config().loss_scale();
        Ok(section)
    }

    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let refuse = |key: &str, reason: &str| Err(recipe.error(&format!("{SECTION}.{key}"), reason));
        let given = |key: &str| recipe.sets(&format!("{SECTION}.{key}"));
        let settings = self.schedule.refuse_foreign(&given).and_then(|()| self.train_config().check());
        match settings.and_then(|()| self.lora.as_ref().map_or(Ok(()), LoraConfig::check)) {
            Ok(()) => {}
            Err(TrainError::Config { key, reason }) => return refuse(key, &reason),
            Err(other) => return refuse("optim", &other.to_string()),
        }
        if let Err((key, message)) = self.model.check() {
            return refuse(format!("model.{key}").trim_end_matches('.'), &message);
        }
        if !(1..=MOST_SAMPLES).contains(&self.sample_count) {
            return refuse("sample_count", &format!("must lie between 1 and {MOST_SAMPLES}"));
        }
        if let Err((key, reason)) = self.batch.check() {
            return refuse(&format!("batch.{key}"), reason);
        }
        if let Err((key, reason)) = curriculum::check(&self.curriculum) {
            return refuse(&format!("curriculum{key}"), &reason);
        }
        if let Err((key, reason)) = mixture::check(&self.mixture, &|path| recipe.resolve(path)) {
            return refuse(&format!("mixture{key}"), &reason);
        }
        let validation = self.validation_split.as_ref().map(|split| ("validation_split", split));
        for (key, split) in [("train_split", &self.train_split)].into_iter().chain(validation) {
            let plain = !split.is_empty() && split.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
            if !plain || split.starts_with('.') {
                return refuse(key, &format!("\"{split}\" is no name of a split: letters, digits, -, _ and . only"));
            }
        }
        self.check_start(recipe)?;
        if self.early_stopping.is_some() && self.validation_split.is_none() {
            let reason =
                "ends the run by the validation loss, and train.validation_split is null: name a split to validate on";
            return refuse("early_stopping", reason);
        }
        if self.validation_split.as_ref() == Some(&self.train_split) {
            return refuse("validation_split", "is the split that is trained on: validation would measure memory");
        }
        Ok(())
    }

    /// Whether there is something to start from, and only one.
    fn check_start(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let refuse = |key: &str, reason: &str| Err(recipe.error(&format!("{SECTION}.{key}"), reason));
        if self.init_from.is_none() {
            if self.init_partial {
                return refuse("init_partial", "says how much of `init_from` must fit, but there is no `init_from`");
            }
            if self.lora.is_some() {
                let reason = "adapters are trained on weights that are there already: set train.init_from to them";
                return refuse("lora", reason);
            }
            return Ok(());
        }
        if self.token_embedding == TokenEmbedding::Codebook && !self.init_partial {
            let reason = "`codebook` would be overwritten by `init_from`: set train.token_embedding: random (also where a base recipe gives codebook), \
                 leave init_from out, or set init_partial: true";
            return refuse("token_embedding", reason);
        }
        Ok(())
    }

    /// Refuses a device that this build or this machine does not have.
    ///
    /// # Errors
    /// `train.device`, and how to get one.
    pub fn check_device(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let opened = device::open(self.device).map(drop);
        opened.map_err(|error| recipe.error(&format!("{SECTION}.device"), error))
    }

    /// Refuses corpora that are not there.
    ///
    /// # Errors
    /// The key that names the first one that is missing.
    pub fn check_corpora(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        mixture::check_files(&self.mixture, &|path| recipe.resolve(path))
            .map_err(|(key, reason)| recipe.error(&format!("{SECTION}.mixture{key}"), reason))
    }

    /// Refuses weights to start from that are not there.
    ///
    /// # Errors
    /// The key that names them.
    pub fn check_weights(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        match self.init_from.as_ref().map(|path| start::check_weight_file(&recipe.resolve(path))) {
            Some(Err(reason)) => Err(recipe.error(&format!("{SECTION}.init_from"), reason)),
            _ => Ok(()),
        }
    }

    /// Refuses files to start from and corpora that are not there.
    ///
    /// # Errors
    /// The key that names the first one that is missing.
    pub fn check_files(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        self.check_corpora(recipe)?;
        self.check_weights(recipe)?;
        let refuse = |key: &str, reason: &str| Err(recipe.error(&format!("{SECTION}.{key}"), reason));
        let adapter = start::adapter_files(self, recipe);
        let mut files = adapter.iter().flat_map(|files| [&files.model, &files.config]);
        if let Some(file) = files.find(|file| !file.is_file()) {
            return refuse("lora.init_from", &format!("there is no file {}", file.display()));
        }
        Ok(())
    }

    /// Warnings about settings that will not do what they seem to, as far as that is known without the data.
    pub fn warnings(&self) -> Vec<String> {
        let config = self.train_config();
        let length = RunLength::limits(&config);
        let mut found = config.warnings(length, self.validation_split.is_some());
        let mut begins = 0u64;
        for (at, phase) in self.curriculum.iter().enumerate() {
            if let Some(epochs) = length.epochs.filter(|epochs| at > 0 && begins >= *epochs) {
                found.push(format!(
                    "train.curriculum[{at}]: begins after {begins} epochs, and the run has {epochs}: it is never reached"
                ));
                break;
            }
            begins = begins.saturating_add(phase.epochs.unwrap_or(u64::MAX));
        }
        found
    }

    /// The section as a run of Weights & Biases shows it, without what differs between machines. The name of the run's file follows from it.
    fn described(&self) -> Value {
        let mut fields = json!(self);
        if let Some(fields) = fields.as_object_mut() {
            for without_effect in ["prefetch", "num_workers", "max_seconds", "gradient_checkpointing", "device"] {
                fields.remove(without_effect);
            }
        }
        fields
    }

    /// What the loop needs.
    pub fn train_config(&self) -> TrainConfig {
        TrainConfig {
            seed: self.seed.unwrap_or_default(),
            optim: self.optim.clone(),
            schedule: self.schedule.clone(),
            accum_grad: self.accum_grad,
            grad_clip: self.grad_clip,
            grad_clip_value: self.grad_clip_value,
            precision: self.precision,
            loss_scale: self.loss_scale.clone(),
            gradient_checkpointing: self.gradient_checkpointing,
            ema_decay: self.ema_decay,
            max_steps: self.max_steps,
            max_epochs: self.max_epochs,
            early_stopping: self.early_stopping,
            max_seconds: self.max_seconds,
            validate_every: self.validate_every,
            save_every: self.save_every,
            log_every: self.log_every,
            log_groups: self.log_groups,
            log_gradients: self.log_gradients,
            sample_every: self.sample_every,
            wandb: self.wandb.clone().map(|settings| WandbRun { settings, config: self.described() }),
            keep: self.keep.clone(),
            prefetch: self.prefetch,
            num_workers: self.num_workers,
            skipped_weights: self.skipped_weights,
            max_skipped_in_a_row: self.max_skipped_in_a_row,
        }
    }

    /// What the sampler needs.
    pub fn sampling(&self) -> SamplingOptions {
        let BatchConfig { shuffle_size, sort_size, bucket_frames, .. } = self.batch;
        let (curriculum, seed) = (self.curriculum.clone(), self.seed.unwrap_or_default());
        SamplingOptions { size: self.batch.size(), shuffle_size, sort_size, bucket_frames, curriculum, seed }
    }

    /// Whether the order of some epoch needs to know the speakers.
    pub fn balances_speakers(&self) -> bool {
        self.curriculum.iter().any(|phase| phase.order == Order::BySpeaker)
    }
}
