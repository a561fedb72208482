//! The settings of a training run.

use flowmill_nn::Precision;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::TrainError;
use crate::interval::Interval;
use crate::loss_scale::LossScaleConfig;
use crate::metrics::WandbConfig;
use crate::optimizer::OptimConfig;
use crate::schedule::ScheduleConfig;
use crate::stopping::EarlyStopping;

/// The most batches loaded ahead.
const MOST_PREFETCH: usize = 1024;
/// The most threads that load.
const MOST_WORKERS: usize = 256;

/// The settings of a training run, as a recipe's section `train` has them: everything that decides its course beside the task, the weights it
/// starts from and the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// The key of every random draw.
    #[serde(skip)]
    pub seed: u64,
    /// The optimiser.
    pub optim: OptimConfig,
    /// The learning rate over the steps.
    pub schedule: ScheduleConfig,
    /// Batches averaged into one step, each by its weight. An epoch's last step may have fewer.
    pub accum_grad: usize,
    /// Longest gradient allowed: longer ones are scaled down to it; null: no clipping.
    pub grad_clip: Option<f64>,
    /// Largest gradient value allowed, after the clipping by length; null: no clipping.
    pub grad_clip_value: Option<f64>,
    /// The number format of forward and backward passes; weights and optimiser are always single precision.
    pub precision: Precision,
    /// The factor on the loss with `precision: fp16`, which alone needs one.
    pub loss_scale: Option<LossScaleConfig>,
    /// Computes the inside of every block again in the backward pass instead of keeping it: less memory, more time, the same results.
    pub gradient_checkpointing: bool,
    /// Decay of the moving average of the weights, such as 0.9999; null: none.
    pub ema_decay: Option<f64>,
    /// Stop after this many steps; null: after `max_epochs`.
    pub max_steps: Option<u64>,
    /// Stop after this many passes over the data; null: after `max_steps`, or 100 when both are null. The first one reached counts.
    pub max_epochs: Option<u64>,
    /// Ends training when the validation loss does not improve any more; null: never.
    pub early_stopping: Option<EarlyStopping>,
    /// Saves and stops as on Ctrl-C after this many seconds, so that the next run continues; null: never.
    pub max_seconds: Option<u64>,
    /// Validate every N steps, or `{epochs: N}`; 0: only with every checkpoint.
    pub validate_every: Interval,
    /// Save a checkpoint every N steps, or `{epochs: N}`; 0: only at the end.
    pub save_every: Interval,
    /// Write a metrics line every N steps, averaged over them.
    pub log_every: u64,
    /// Adds the gradient norm, weight norm and update ratio of each parameter group to the metrics.
    pub log_groups: bool,
    /// Write histograms of the gradients into the TensorBoard events every N steps; 0: never.
    pub log_gradients: u64,
    /// Generate a few validation examples every N steps; 0: never.
    pub sample_every: u64,
    /// A Weights & Biases run next to the other metrics; null: none.
    pub wandb: Option<WandbConfig>,
    /// What a Weights & Biases run shows as its configuration.
    #[serde(skip)]
    pub described: Value,
    /// Which checkpoints stay.
    pub keep: KeepConfig,
    /// Batches loaded ahead of the one in use.
    pub prefetch: usize,
    /// Threads that load batches.
    pub num_workers: usize,
    /// The number of skipped steps whose weights are kept for `train --replay`; the newest ones.
    pub skipped_weights: u64,
    /// This many steps in a row without a finite loss and gradient stop the run.
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
            described: Value::Null,
            keep: KeepConfig::default(),
            prefetch: 4,
            num_workers: 2,
            skipped_weights: 1,
            max_skipped_in_a_row: 10,
        }
    }
}

/// Which checkpoints stay: those that any of the three rules wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeepConfig {
    /// The newest so many, at least 1.
    pub last: usize,
    /// The best so many by validation loss; of equal ones the earlier.
    pub best: usize,
    /// Those at multiples of so many steps; 0: none for this reason.
    pub every: u64,
}

impl Default for KeepConfig {
    fn default() -> Self {
        Self { last: 5, best: 5, every: 0 }
    }
}

impl TrainConfig {
    /// The loss scale, where the precision needs one.
    pub fn loss_scale(&self) -> Option<LossScaleConfig> {
        (self.precision == Precision::Fp16).then(|| self.loss_scale.clone().unwrap_or_default())
    }

    /// Refuses settings that cannot be used.
    pub fn check(&self) -> Result<(), TrainError> {
        self.optim.check()?;
        self.schedule.check(self.optim.lr)?;
        let fail = |key, reason: &str| Err(TrainError::Config { key, reason: reason.to_owned() });
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
