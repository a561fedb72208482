//! Result of a run.

use crate::checkpoint::{Score, State};

/// Result of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Steps done, in this and all resumed runs.
    pub steps: u64,
    /// Passes over the data completed.
    pub epochs: u64,
    /// Training loss on the last metrics line.
    pub loss: Option<f64>,
    /// Validation loss of the final weights.
    pub validation: Option<f64>,
    /// The best validation.
    pub best: Option<Score>,
    /// Number of steps skipped because loss or gradient was not finite.
    pub skipped: u64,
    /// The step that this run resumed from, if it did.
    pub resumed_from: Option<u64>,
    /// True if it ended early because validation no longer improved.
    pub stopped_early: bool,
    /// True if it was interrupted before its end; the checkpoint to resume from has been saved.
    pub interrupted: bool,
}

impl Summary {
    pub(crate) fn new(state: &State, resumed_from: Option<u64>, interrupted: bool) -> Self {
        Self {
            steps: state.step,
            epochs: state.epoch,
            loss: state.loss,
            validation: state.validation,
            best: state.best,
            skipped: state.skipped,
            resumed_from,
            stopped_early: state.patience.exhausted,
            interrupted,
        }
    }
}
