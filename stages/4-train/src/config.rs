//! The recipe's `train` section.

use flowmill_corpus::sampling::{BatchSize, Order, Phase, SamplingOptions, curriculum};
use flowmill_nn::Precision;
use flowmill_nn::device::{self, DeviceName};
use flowmill_runner::{Recipe, RecipeError};
use flowmill_train::metrics::{WandbConfig, WandbRun};
use flowmill_train::{
    EarlyStopping, Interval, KeepConfig, LoraConfig, LossScaleConfig, OptimConfig, RunLength, ScheduleConfig,
    TrainConfig, TrainError,
};
use schemars::JsonSchema;
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

/// Settings of stage 4, `train`: the model, the data, and how it is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSection {
    /// The network: its family and its dimensions. The defaults of a family are the published model.
    pub model: ModelConfig,
    /// The embedding that stands for the speaker.
    ///
    /// Counterparts: `use_spk_embedding`: `False` (CosyVoice and Step-Audio in training) is `utterance`, `True`
    /// (their fine-tuning on one speaker) is `speaker`.
    pub speaker_embedding: SpeakerEmbedding,
    /// First values of the embedding of the speech tokens.
    pub token_embedding: TokenEmbedding,
    /// Weights to start from: `.pt`, `.pth`, `.bin` or `.safetensors`, an index of shards, or the folder of a
    /// checkpoint, of an exported model or of a published one (`pytorch_model.bin`; of CosyVoice, known by its
    /// `cosyvoice*.yaml`, `flow.pt`). All must fit by name and shape, unless `init_partial` is set. A prefix
    /// (`module.`, `_orig_mod.`, `model.`, `ema_model.`) or a wrapper inside of names is removed where that explains
    /// all names, and the log says so.
    ///
    /// Counterparts: `--ckpt_file`, `--checkpoint`.
    pub init_from: Option<String>,
    /// Takes what fits of `init_from` by name and shape, lists the rest, and starts the rest at random.
    ///
    /// Counterparts: `load_state_dict(strict=False)`.
    pub init_partial: bool,
    /// Trains low-rank adapters on the weights of `init_from` instead of the weights themselves.
    ///
    /// Counterparts: VALL-E's `--lora`, PEFT's `LoraConfig`.
    pub lora: Option<LoraConfig>,
    /// Normalizes mels to mean 0 and deviation 1 per bin, by the statistics of the training split. The exported
    /// `flow.pt` then makes normalized mels, which `synth` denormalizes and public inference code does not: set
    /// `false` for weights that public code is to use. Without effect where `model.mel_normalisation` is given.
    pub normalise_mel: bool,
    /// The split to train on. Stage 3 takes the statistics of mels from it, stage 6 its trivial answers.
    ///
    /// Counterparts: `--train_data`.
    pub train_split: String,
    /// The split to validate on. With `null` nothing is validated: stage 5 averages the last checkpoints, and stage 6
    /// scores the training split unless `export.split` names another.
    ///
    /// Counterparts: `--cv_data`.
    pub validation_split: Option<String>,
    /// Shuffling and batching of utterances.
    pub batch: BatchConfig,
    /// The order of utterances in each epoch, as phases such as `[{epochs: 1, order: sorted}, {order: shuffled}]`.
    /// The last phase lasts to the end.
    ///
    /// Counterparts: VALL-E: sorted by duration first, then shuffled, then by speaker.
    pub curriculum: Vec<Phase>,
    /// Several corpora by weight, such as `[{weight: 1}, {index: ../other/exp/other/3-pack/train, weight: 3}]`. An
    /// epoch has as many utterances as all corpora together, shared by weight. Empty: the training split of this
    /// recipe alone.
    ///
    /// Counterparts: concatenated `data.list`.
    #[serde(deserialize_with = "mixture::null_is_none")]
    #[schemars(with = "Option<Vec<MixtureEntry>>")]
    pub mixture: Vec<MixtureEntry>,
    /// The optimizer.
    pub optim: OptimConfig,
    /// The learning rate over the run.
    pub schedule: ScheduleConfig,
    /// Batches that are averaged into one step, each by its number of valid frames. The last step of an epoch may
    /// have fewer.
    ///
    /// Counterparts: `accum_grad`, `gradient_accumulation_steps`.
    pub accum_grad: usize,
    /// Largest norm of the gradient: longer ones are scaled down to it; `null` is no clipping.
    ///
    /// Counterparts: `grad_clip`, `max_grad_norm`.
    pub grad_clip: Option<f64>,
    /// Largest absolute value in a gradient, after the clipping by norm; `null` is no clipping.
    ///
    /// Counterparts: `clip_grad_value_`.
    pub grad_clip_value: Option<f64>,
    /// The number format of forward and backward passes; weights, optimizer and moving average are always `fp32`.
    ///
    /// Counterparts: `mixed_precision`, `--use_amp`, `bf16: {enabled}`, `fp16: {enabled}`.
    pub precision: Precision,
    /// The factor on the loss, with `precision: fp16` only.
    pub loss_scale: Option<LossScaleConfig>,
    /// Recomputes the inside of every block in the backward pass instead of keeping it: less memory, more time, the
    /// same results bit for bit.
    ///
    /// Counterparts: `gradient_checkpointing`, `activation_checkpointing`.
    pub gradient_checkpointing: bool,
    /// Decay of the moving average of the weights, such as 0.9999, which is validated and saved next to them; `null`
    /// is none.
    ///
    /// Counterparts: `ema_decay`.
    pub ema_decay: Option<f64>,
    /// Step that training stops after; `null` leaves the end to `max_epochs`. The first of both counts.
    ///
    /// Counterparts: steps.
    pub max_steps: Option<u64>,
    /// Epoch that training stops after; `null` leaves the end to `max_steps`, or is 100 where that is `null` too.
    ///
    /// Counterparts: `max_epoch`, `num_train_epochs`.
    pub max_epochs: Option<u64>,
    /// Ends training when the validation loss stops improving, such as `{patience: 10, min_delta: 0}`; `null` is
    /// never.
    pub early_stopping: Option<EarlyStopping>,
    /// Seconds after which training saves and stops as on Ctrl-C (exit status 130), so that the same command
    /// continues it; `null` is no limit.
    ///
    /// Counterparts: Slurm's time limit.
    pub max_seconds: Option<u64>,
    /// Steps between validations, or `{epochs: N}`; 0 is only with every checkpoint.
    ///
    /// Counterparts: `validation_steps`.
    pub validate_every: Interval,
    /// Steps between checkpoints, or `{epochs: N}`; 0 is only at the end. Every checkpoint is validated.
    ///
    /// Counterparts: `save_per_step`, `save_steps`, `--save-step`.
    pub save_every: Interval,
    /// Steps between lines of the metrics (`metrics.jsonl`, TensorBoard, W&B), which hold means over them.
    ///
    /// Counterparts: `logging_steps`, `log_interval`, `--log-step`.
    pub log_every: u64,
    /// Adds the gradient norm, weight norm and update ratio of each parameter group to the metrics.
    pub log_groups: bool,
    /// Steps between histograms of the gradients in the TensorBoard events; 0 is never.
    pub log_gradients: u64,
    /// Steps between previews: validation utterances generated into `4-train/samples/` (wav and spectrogram) and
    /// TensorBoard; 0 is never.
    ///
    /// Counterparts: `--sample-step`.
    pub sample_every: u64,
    /// Utterances that are generated at a time, the first ones of the validation split, 1 to 100; also by the command
    /// `sample`.
    ///
    /// Counterparts: `--num-samples`.
    pub sample_count: usize,
    /// An offline run of Weights & Biases; `null` is none.
    ///
    /// Counterparts: `wandb.init`, `report_to: wandb`.
    pub wandb: Option<WandbConfig>,
    /// Checkpoints that stay.
    pub keep: KeepConfig,
    /// Batches loaded ahead, 0 to 1024.
    ///
    /// Counterparts: `prefetch`.
    pub prefetch: usize,
    /// Threads that load batches, 1 to 256. The share of time spent waiting for them is printed.
    ///
    /// Counterparts: `num_workers`, `dataloader_num_workers`.
    pub num_workers: usize,
    /// Number of skipped steps, the newest ones, whose weights are kept for `train --replay`.
    pub skipped_weights: u64,
    /// Steps in a row without a finite loss and gradient that stop the run. Each is skipped, counted and dumped
    /// (`skipped/step-N.json`).
    pub max_skipped_in_a_row: u64,
    /// Key of every random draw of the training (first weights, order, dropout, noise); without it the recipe's
    /// `seed`.
    pub seed: Option<u64>,
    /// The device that trains and samples; `--device` of `run`, `train` and `synth` overrides it. GPUs need a build
    /// that supports them (docs/DEVICES.md).
    ///
    /// Counterparts: `CUDA_VISIBLE_DEVICES`, `--gpu`, `device`.
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

/// The embedding that stands for the speaker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SpeakerEmbedding {
    /// That of the utterance, as the public models are trained.
    #[default]
    Utterance,
    /// The mean over the speaker's utterances.
    Speaker,
}

/// First values of the embedding of the speech tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenEmbedding {
    /// Random vectors, as the public models start.
    #[default]
    Random,
    /// The centers of stage 2's k-means codebook, standardized and projected at random: units that sound alike start
    /// alike.
    Codebook,
}

/// Shuffling and batching of utterances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Most mel frames of a batch after padding: its longest utterance times its number of utterances.
    ///
    /// Counterparts: `max_frames_in_batch` with `batch_type: dynamic`; VALL-E's batches by total duration.
    pub max_frames_in_batch: u32,
    /// Most utterances of a batch; 0 is no limit.
    pub max_utterances_in_batch: u32,
    /// Utterances of every batch, whatever their lengths, instead of the two limits; validation has batches of the
    /// same size.
    ///
    /// Counterparts: `batch_type: static`, `batch_size`, `train_batch_size`, `val_batch_size`.
    pub batch_size: Option<u32>,
    /// Size of the windows, in utterances, that are shuffled.
    ///
    /// Counterparts: `shuffle_size`.
    pub shuffle_size: u32,
    /// Size of the windows, in utterances, that are sorted by length before they are cut into batches; 1 is no
    /// sorting.
    ///
    /// Counterparts: `sort_size`.
    pub sort_size: u32,
    /// Width of the buckets of `order: bucketed`, in mel frames; 50 are a second.
    ///
    /// Counterparts: VALL-E's buckets of 1 s.
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
