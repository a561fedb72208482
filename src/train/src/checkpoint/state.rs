//! The part of a checkpoint that people can read: where training stands.

use serde::{Deserialize, Serialize};

use crate::LossScale;
use crate::metrics::{MetricsLengths, Window};
use crate::steering::Positive;
use crate::stopping::{EarlyStopping, Patience};

/// Version of the checkpoint layout.
pub const FORMAT: u32 = 1;

/// Where training stands between two steps. There are no random states: every draw is a function of seed, epoch and position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Version of the layout.
    pub format: u32,
    /// Hash of configuration and parameter shapes: a checkpoint continues only the run that made it.
    pub run: String,
    /// Checksum of the weights that adapters stand beside, and that the checkpoint does not hold; none where it holds all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Key of every draw.
    pub seed: u64,
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Passes over the data done.
    pub epoch: u64,
    /// Batches of the present epoch done.
    pub position: u64,
    /// Steps skipped because loss or gradient was not finite.
    pub skipped: u64,
    /// How many of them were the last ones.
    pub skipped_in_a_row: u64,
    /// The full learning rate, when a command has changed it.
    pub lr: Option<Positive>,
    /// The loss scale of the next step, in half precision.
    pub loss_scale: Option<LossScale>,
    /// Training loss on the last metrics line.
    pub loss: Option<f64>,
    /// Validation loss of exactly these weights.
    pub validation: Option<f64>,
    /// The best validation so far.
    pub best: Option<Score>,
    /// How long validation has not improved, when that may end the run.
    pub patience: Patience,
    /// Made at a step where every run of this configuration makes one, rather than by command or on an interruption.
    pub scheduled: bool,
    /// Made between two of the schedule because its validation was the best so far.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub for_best: bool,
    /// How far the metrics files had got.
    pub metrics: MetricsLengths,
    /// Sums since the last metrics line.
    pub window: Window,
}

/// A validation loss and the step it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Steps done.
    pub step: u64,
    /// Validation loss.
    pub loss: f64,
}

impl State {
    /// The start of a run.
    pub fn new(run: String, seed: u64, steps: u64) -> Self {
        Self {
            format: FORMAT,
            run,
            base: None,
            seed,
            step: 0,
            steps,
            epoch: 0,
            position: 0,
            skipped: 0,
            skipped_in_a_row: 0,
            lr: None,
            loss_scale: None,
            loss: None,
            validation: None,
            best: None,
            patience: Patience::default(),
            scheduled: true,
            for_best: false,
            metrics: MetricsLengths::default(),
            window: Window::default(),
        }
    }

    /// Notes a validation loss of the present weights, and whether it ends the run.
    pub fn validated(&mut self, loss: f64, early_stopping: Option<&EarlyStopping>) {
        if let Some(rule) = early_stopping {
            self.patience.validated(loss, rule);
        }
        self.validation = loss.is_finite().then_some(loss);
        if let Some(loss) = self.validation
            && self.best.is_none_or(|best| loss < best.loss)
        {
            self.best = Some(Score { step: self.step, loss });
        }
    }
}
