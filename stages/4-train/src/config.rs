//! The recipe's `train` section.

use flowmill_corpus::sampling::SamplingOptions;
use flowmill_nn::Precision;
use flowmill_runner::{Recipe, RecipeError};
use flowmill_train::{KeepConfig, LossScaleConfig, OptimConfig, ScheduleConfig, TrainConfig, TrainError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{ModelConfig, start};

/// The section's name.
pub const SECTION: &str = "train";
/// Passes over the data when the recipe gives neither steps nor passes.
const DEFAULT_EPOCHS: u64 = 100;

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
    /// Whether the model sees mels of mean 0 and deviation 1 per bin, by the statistics that packing took over the training split.
    /// The published model sees them as they are. Without effect when `model.mel_normalisation` is given.
    pub normalise_mel: bool,
    /// The split to train on.
    pub train_split: String,
    /// The split to validate on.
    pub validation_split: String,
    /// How utterances are shuffled and batched.
    pub batch: BatchConfig,
    /// The optimiser.
    pub optim: OptimConfig,
    /// The learning rate over the steps.
    pub schedule: ScheduleConfig,
    /// Batches averaged into one step.
    pub accum_grad: usize,
    /// Longest gradient allowed; null: no clipping.
    pub grad_clip: Option<f64>,
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
    /// Validate every so many steps; 0: only with every checkpoint.
    pub validate_every: u64,
    /// Save a checkpoint every so many steps; 0: only at the end.
    pub save_every: u64,
    /// Write a metrics line every so many steps.
    pub log_every: u64,
    /// Which checkpoints stay.
    pub keep: KeepConfig,
    /// Batches loaded ahead.
    pub prefetch: usize,
    /// So many steps in a row without a finite loss and gradient stop the run.
    pub max_skipped_in_a_row: u64,
    /// Key of every draw; null: the recipe's `seed`.
    pub seed: Option<u64>,
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
            normalise_mel: true,
            train_split: "train".to_owned(),
            validation_split: "dev".to_owned(),
            batch: BatchConfig::default(),
            optim: train.optim,
            schedule: train.schedule,
            accum_grad: train.accum_grad,
            grad_clip: train.grad_clip,
            precision: train.precision,
            loss_scale: train.loss_scale,
            gradient_checkpointing: train.gradient_checkpointing,
            ema_decay: train.ema_decay,
            max_steps: train.max_steps,
            max_epochs: train.max_epochs,
            validate_every: train.validate_every,
            save_every: train.save_every,
            log_every: train.log_every,
            keep: train.keep,
            prefetch: train.prefetch,
            max_skipped_in_a_row: train.max_skipped_in_a_row,
            seed: None,
        }
    }
}

/// Which embedding stands for the speaker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpeakerEmbedding {
    /// The utterance's own.
    Utterance,
    /// The mean over the speaker's utterances.
    #[default]
    Speaker,
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
    /// Utterances are shuffled within windows of this many.
    pub shuffle_size: u32,
    /// Runs of this many are sorted by length before they are cut into batches; 1: no sorting.
    pub sort_size: u32,
}

impl Default for BatchConfig {
    fn default() -> Self {
        let options = SamplingOptions::default();
        Self {
            max_frames_in_batch: options.max_frames_in_batch,
            max_utterances_in_batch: options.max_utterances_in_batch,
            shuffle_size: options.shuffle_size,
            sort_size: options.sort_size,
        }
    }
}

impl TrainSection {
    /// Reads, completes and checks the section.
    pub fn read(recipe: &Recipe) -> Result<Self, RecipeError> {
        let mut section: Self = recipe.section(SECTION)?;
        section.seed.get_or_insert(recipe.seed());
        if section.max_steps.is_none() {
            section.max_epochs.get_or_insert(DEFAULT_EPOCHS);
        }
        section.check(recipe)?;
        section.loss_scale = section.train_config().loss_scale();
        Ok(section)
    }

    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let refuse = |key: &str, reason: &str| Err(recipe.error(&format!("{SECTION}.{key}"), reason));
        match self.train_config().check() {
            Ok(()) => {}
            Err(TrainError::Config { key, reason }) => return refuse(key, &reason),
            Err(other) => return refuse("optim", &other.to_string()),
        }
        if let Err((key, message)) = self.model.check() {
            return refuse(format!("model.{key}").trim_end_matches('.'), &message);
        }
        if self.batch.max_frames_in_batch == 0 {
            return refuse("batch.max_frames_in_batch", "must be at least 1");
        }
        for (key, split) in [("train_split", &self.train_split), ("validation_split", &self.validation_split)] {
            let plain = !split.is_empty() && split.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
            if !plain || split.starts_with('.') {
                return refuse(key, &format!("\"{split}\" is no name of a split: letters, digits, -, _ and . only"));
            }
        }
        self.check_start(recipe)?;
        if self.train_split == self.validation_split {
            return refuse("validation_split", "is the split that is trained on: validation would measure memory");
        }
        Ok(())
    }

    /// Whether there is something to start from, and only one.
    fn check_start(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let refuse = |key: &str, reason: &str| Err(recipe.error(&format!("{SECTION}.{key}"), reason));
        let Some(path) = &self.init_from else {
            if self.init_partial {
                return refuse("init_partial", "says how much of `init_from` must fit, but there is no `init_from`");
            }
            return Ok(());
        };
        if self.token_embedding == TokenEmbedding::Codebook && !self.init_partial {
            let reason =
                "`codebook` would be overwritten by `init_from`; leave one of them out, or set init_partial: true";
            return refuse("token_embedding", reason);
        }
        let file = start::weight_file(&recipe.resolve(path));
        if !file.is_file() {
            return refuse("init_from", &format!("there is no file {}", file.display()));
        }
        Ok(())
    }

    /// The fields that decide what comes out: all but how far loading runs ahead and what is computed twice.
    pub fn fingerprint(&self) -> Value {
        let mut fields = json!(self);
        if let Some(fields) = fields.as_object_mut() {
            fields.remove("prefetch");
            fields.remove("gradient_checkpointing");
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
            precision: self.precision,
            loss_scale: self.loss_scale.clone(),
            gradient_checkpointing: self.gradient_checkpointing,
            ema_decay: self.ema_decay,
            max_steps: self.max_steps,
            max_epochs: self.max_epochs,
            validate_every: self.validate_every,
            save_every: self.save_every,
            log_every: self.log_every,
            keep: self.keep.clone(),
            prefetch: self.prefetch,
            max_skipped_in_a_row: self.max_skipped_in_a_row,
        }
    }

    /// What the sampler needs.
    pub fn sampling(&self) -> SamplingOptions {
        let BatchConfig { max_frames_in_batch, max_utterances_in_batch, shuffle_size, sort_size } = self.batch;
        let seed = self.seed.unwrap_or_default();
        SamplingOptions { max_frames_in_batch, max_utterances_in_batch, shuffle_size, sort_size, seed }
    }
}
