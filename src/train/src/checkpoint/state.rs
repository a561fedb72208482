//! The human-readable part of a checkpoint: the progress of the training.

use flowmill_nn::device::DeviceName;
use serde::{Deserialize, Serialize};

use crate::identity::{Identity, RunIdentity};
use crate::metrics::{MetricsLengths, Window};
use crate::steering::Positive;
use crate::stopping::{EarlyStopping, Limits, Patience};
use crate::{LossScale, TrainError};

/// Version of the checkpoint layout. Version 1 had a hash instead of the settings and did not record the end of the run; version 2 did
/// not record what the run was started with.
pub const FORMAT: u32 = 3;

/// Progress of the training between two steps. There are no random states: every draw is a function of seed, epoch and position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Version of the layout.
    pub format: u32,
    /// The settings that determine the run: a checkpoint continues only a run with the same ones.
    pub run: RunIdentity,
    /// A record of what the run was started with, in the terms of the owner of its checkpoints ([`crate::CheckpointStore::record`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<serde_json::Value>,
    /// Checksum of the base weights of adapters, which the checkpoint does not hold; `None` if it holds all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Key of every draw.
    pub seed: u64,
    /// The device that computed the last step; the CPU if absent.
    #[serde(default = "cpu", skip_serializing_if = "is_cpu")]
    pub device: DeviceName,
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// The settings that `steps` follows from; `None` in the first format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Passes over the data done.
    pub epoch: u64,
    /// Batches of the current epoch done.
    pub position: u64,
    /// Steps skipped because loss or gradient was not finite.
    pub skipped: u64,
    /// Number of consecutive skipped steps up to now.
    pub skipped_in_a_row: u64,
    /// The full learning rate, if a command has changed it.
    pub lr: Option<Positive>,
    /// The loss scale of the next step, in half precision.
    pub loss_scale: Option<LossScale>,
    /// Training loss on the last metrics line.
    pub loss: Option<f64>,
    /// Validation loss of exactly these weights.
    pub validation: Option<f64>,
    /// The best validation so far.
    pub best: Option<Score>,
    /// Number of validations without an improvement, which may end the run.
    pub patience: Patience,
    /// True if it was made at a step where every run of this configuration makes one, not by command or on an interruption.
    pub scheduled: bool,
    /// True if it was made between two of the schedule because its validation was the best so far.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub for_best: bool,
    /// Lengths of the metrics files.
    pub metrics: MetricsLengths,
    /// Sums since the last metrics line.
    pub window: Window,
}

fn cpu() -> DeviceName {
    DeviceName::Cpu
}

fn is_cpu(name: &DeviceName) -> bool {
    *name == DeviceName::Cpu
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
    /// Creates the state at the start of a run.
    pub fn new(run: Identity, limits: Limits, steps: u64) -> Self {
        let seed = run.seed;
        Self {
            format: FORMAT,
            run: RunIdentity::Listed(Box::new(run)),
            record: None,
            base: None,
            seed,
            device: DeviceName::Cpu,
            step: 0,
            steps,
            limits: Some(limits),
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

    /// Reads the state that a checkpoint's file holds.
    ///
    /// # Errors
    /// When its layout is newer than this program, or it cannot be parsed.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, TrainError> {
        /// The field that every layout has.
        #[derive(Deserialize)]
        struct Layout {
            format: u32,
        }
        match serde_json::from_slice::<Layout>(bytes) {
            Ok(Layout { format }) if format > FORMAT => {
                let reason = format!(
                    "its layout is version {format}, this program knows versions up to {FORMAT}: use the version of Flowmill that made it"
                );
                Err(TrainError::checkpoint(name, reason))
            }
            _ => serde_json::from_slice(bytes)
                .map_err(|error| TrainError::checkpoint(name, format!("{}: {error}", super::STATE_FILE))),
        }
    }

    /// Records a validation loss of the current weights, and whether it ends the run.
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
