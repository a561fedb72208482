//! The settings of a training run.

use flowmill_nn::Precision;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::TrainError;
use crate::interval::Interval;
use crate::loss_scale::LossScaleConfig;
use crate::metrics::{Reference, WandbConfig};
use crate::optimizer::OptimConfig;
use crate::schedule::ScheduleConfig;
use crate::stopping::EarlyStopping;

/// Largest number of batches loaded ahead.
const MOST_PREFETCH: usize = 1024;
/// Largest number of loading threads.
const MOST_WORKERS: usize = 256;

/// The settings of a training run, as in a recipe's section `train`: everything that determines the result except the task, the initial
/// weights and the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// The key of every random draw.
    #[serde(skip)]
    pub seed: u64,
    /// The optimizer.
    pub optim: OptimConfig,
    /// The learning rate over the run.
    pub schedule: ScheduleConfig,
    /// Batches that are averaged into one step, each by its number of valid frames. The last step of an epoch may
    /// have fewer.
    ///
    /// Counterparts: `accum_grad`, `gradient_accumulation_steps`.
    pub accum_grad: usize,
    /// Largest norm of the gradient: larger ones are scaled down to it; `null` disables clipping.
    ///
    /// Counterparts: `grad_clip`, `max_grad_norm`.
    pub grad_clip: Option<f64>,
    /// Largest absolute value in a gradient, after the clipping by norm; `null` disables clipping.
    ///
    /// Counterparts: `clip_grad_value_`.
    pub grad_clip_value: Option<f64>,
    /// The number format of forward and backward passes; weights, optimizer and moving average are always `fp32`.
    ///
    /// Counterparts: `mixed_precision`, `--use_amp`, `bf16: {enabled}`, `fp16: {enabled}`.
    pub precision: Precision,
    /// The factor on the loss, with `precision: fp16` only.
    pub loss_scale: Option<LossScaleConfig>,
    /// Recomputes the inside of every block in the backward pass instead of saving it: less memory, more time, the
    /// same results bit for bit.
    ///
    /// Counterparts: `gradient_checkpointing`, `activation_checkpointing`.
    pub gradient_checkpointing: bool,
    /// Division of the optimizer's state among the ranks of a training on several processes: with 1 each rank keeps and updates its share,
    /// with 0 all of it. The results are the same bit for bit. Without other ranks it has no effect.
    ///
    /// Counterparts: `zero_optimization.stage` (ZeRO).
    pub zero: u8,
    /// Decay of the moving average of the weights, such as 0.9999. The average is validated and saved next to the weights; `null`
    /// disables it.
    ///
    /// Counterparts: `ema_decay`.
    pub ema_decay: Option<f64>,
    /// Number of steps after which training stops; `null` leaves the end to `max_epochs`. The limit that is reached first counts.
    ///
    /// Counterparts: steps.
    pub max_steps: Option<u64>,
    /// Number of epochs after which training stops; `null` leaves the end to `max_steps`, or means 100 if that is `null` too.
    ///
    /// Counterparts: `max_epoch`, `num_train_epochs`.
    pub max_epochs: Option<u64>,
    /// Ends training when the validation loss stops improving, such as `{patience: 10, min_delta: 0}`; `null`
    /// disables it.
    pub early_stopping: Option<EarlyStopping>,
    /// Seconds after which training saves and stops like on Ctrl-C (exit status 130), so that the same command
    /// continues it; `null` means no limit.
    ///
    /// Counterparts: Slurm's time limit.
    pub max_seconds: Option<u64>,
    /// Steps between validations, or `{epochs: N}`; with 0 only checkpoints are validated.
    ///
    /// Counterparts: `validation_steps`.
    pub validate_every: Interval,
    /// Steps between checkpoints, or `{epochs: N}`; with 0 there is one at the end only. Every checkpoint is validated.
    ///
    /// Counterparts: `save_per_step`, `save_steps`, `--save-step`.
    pub save_every: Interval,
    /// Steps between lines of the metrics (`metrics.jsonl`, TensorBoard, W&B), which contain means over these steps.
    ///
    /// Counterparts: `logging_steps`, `log_interval`, `--log-step`.
    pub log_every: u64,
    /// Adds the gradient norm, weight norm and update ratio of each parameter group to the metrics.
    pub log_groups: bool,
    /// Steps between histograms of the gradients in the TensorBoard events; 0 disables them.
    pub log_gradients: u64,
    /// Steps between previews: validation utterances generated into `4-train/samples/` (wav and spectrogram) and
    /// TensorBoard; 0 disables them.
    ///
    /// Counterparts: `--sample-step`.
    pub sample_every: u64,
    /// An offline run of Weights & Biases; `null` disables it.
    ///
    /// Counterparts: `wandb.init`, `report_to: wandb`.
    pub wandb: Option<WandbConfig>,
    /// Writes dates into the TensorBoard events and the Weights & Biases run. Without it both count steps as seconds since
    /// 1970, and two runs of one recipe write the same bytes; with it these two logs differ from run to run.
    ///
    /// Counterparts: what `SummaryWriter` and `wandb.init` always do.
    pub wall_clock: bool,
    /// Names the TensorBoard tags `train_loss`, `val_loss` and `learning_rate`, like trainers on Accelerate, and not `train/loss`,
    /// `validation/loss` and `train/lr`.
    ///
    /// Counterparts: the tags of PMG's trainer.
    pub plain_tags: bool,
    /// The configuration that a Weights & Biases run shows.
    #[serde(skip)]
    pub described: Value,
    /// Values of metrics that are shown next to those of the run.
    #[serde(skip)]
    pub references: &'static [Reference],
    /// Checkpoints to keep.
    pub keep: KeepConfig,
    /// Batches loaded ahead, 0 to 1024.
    ///
    /// Counterparts: `prefetch`.
    pub prefetch: usize,
    /// Threads that load batches, 1 to 256. The share of time spent waiting for batches is printed.
    ///
    /// Counterparts: `num_workers`, `dataloader_num_workers`.
    pub num_workers: usize,
    /// Number of skipped steps, newest first, whose weights are kept for `train --replay`.
    pub skipped_weights: u64,
    /// Number of consecutive steps without a finite loss and gradient after which the run stops. Each is skipped, counted and dumped
    /// (`skipped/step-N.json`).
    pub max_skipped_in_a_row: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            optim: OptimConfig::default(),
            schedule: ScheduleConfig::default(),
            accum_grad: 1,
            grad_clip: Some(5.0),
            grad_clip_value: None,
            precision: Precision::Fp32,
            loss_scale: None,
            gradient_checkpointing: false,
            zero: 0,
            ema_decay: None,
            max_steps: None,
            max_epochs: None,
            early_stopping: None,
            max_seconds: None,
            validate_every: Interval::Steps(1000),
            save_every: Interval::Steps(1000),
            log_every: 10,
            log_groups: false,
            log_gradients: 0,
            sample_every: 0,
            wandb: None,
            wall_clock: false,
            plain_tags: false,
            described: Value::Null,
            references: &[],
            keep: KeepConfig::default(),
            prefetch: 4,
            num_workers: 2,
            skipped_weights: 1,
            max_skipped_in_a_row: 10,
        }
    }
}

/// Checkpoints to keep: those that at least one of three rules selects.
///
/// Counterparts: `keep`, `average_num`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeepConfig {
    /// Number of newest checkpoints to keep, at least 1.
    pub last: usize,
    /// Number of best checkpoints by validation loss to keep; of equal ones the earlier. A validation between two checkpoints that is the
    /// best so far is saved too, unless this is 0.
    pub best: usize,
    /// Keeps checkpoints at multiples of this number of steps; 0 disables this rule.
    pub every: u64,
}

impl Default for KeepConfig {
    fn default() -> Self {
        Self { last: 5, best: 5, every: 0 }
    }
}

impl TrainConfig {
    /// Returns the settings of the loss scale, if the precision needs one.
    pub fn loss_scale(&self) -> Option<LossScaleConfig> {
        (self.precision == Precision::Fp16).then(|| self.loss_scale.clone().unwrap_or_default())
    }

    /// Checks that the settings can be used.
    pub fn check(&self) -> Result<(), TrainError> {
        self.optim.check()?;
        self.schedule.check(self.optim.lr)?;
        let fail = |key, reason: &str| Err(TrainError::Config { key, reason: reason.to_owned() });
        crate::ranks::check(self)?;
        if self.accum_grad == 0 {
            return fail("accum_grad", "must be at least 1");
        }
        if self.grad_clip.is_some_and(|limit| !(limit > 0.0 && limit.is_finite())) {
            return fail("grad_clip", "must be a positive number, or null for no clipping");
        }
        if self.grad_clip_value.is_some_and(|limit| !(limit > 0.0 && limit.is_finite())) {
            return fail("grad_clip_value", "must be a positive number, or null for no clipping");
        }
        match (&self.loss_scale, self.precision) {
            (Some(scale), Precision::Fp16) => scale.check()?,
            (Some(_), _) => return fail("loss_scale", "is for `precision: fp16`: no other precision needs it"),
            (None, _) => {}
        }
        if self.ema_decay.is_some_and(|decay| !(0.0..1.0).contains(&decay)) {
            return fail("ema_decay", "must be at least 0 and less than 1, or null for no average");
        }
        if self.max_steps.is_none() && self.max_epochs.is_none() {
            return fail("max_steps", "set max_steps, max_epochs or both: a run needs an end");
        }
        if self.max_steps == Some(0) {
            return fail("max_steps", "must be at least 1");
        }
        if self.max_epochs == Some(0) {
            return fail("max_epochs", "must be at least 1");
        }
        if self.max_seconds == Some(0) {
            return fail("max_seconds", "must be at least 1, or null for no limit");
        }
        if let Some(rule) = &self.early_stopping {
            rule.check()?;
        }
        if self.prefetch > MOST_PREFETCH {
            return fail("prefetch", &format!("must be 0 to {MOST_PREFETCH}: all of them wait in memory"));
        }
        if !(1..=MOST_WORKERS).contains(&self.num_workers) {
            return fail("num_workers", &format!("must be 1 to {MOST_WORKERS}"));
        }
        if self.log_every == 0 {
            return fail("log_every", "must be at least 1");
        }
        if let Some(wandb) = &self.wandb {
            wandb.check()?;
        }
        if self.keep.last == 0 {
            return fail("keep.last", "must be at least 1: the newest checkpoint is the one to resume from");
        }
        if self.max_skipped_in_a_row == 0 {
            return fail("max_skipped_in_a_row", "must be at least 1");
        }
        Ok(())
    }
}
