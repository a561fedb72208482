//! How a run ended.

use crate::checkpoint::{Score, State};

/// How a run ended.
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
    /// Steps skipped because loss or gradient was not finite.
    pub skipped: u64,
    /// The step that this run resumed from, if it did.
    pub resumed_from: Option<u64>,
    /// Whether it ended early because validation did not improve any more.
    pub stopped_early: bool,
    /// Whether it was interrupted rather than finished; the checkpoint to go on from has been saved.
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
