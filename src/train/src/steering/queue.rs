//! What a run remembers of the commands that it was given.

use std::path::Path;
use std::time::Instant;

use super::{Kept, PutOff};
use crate::TrainError;

/// Commands that are still to come, and what is needed to tell how fast training goes.
#[derive(Debug)]
pub(crate) struct Steering {
    /// Changes of results, those to come included.
    pub(crate) kept: Kept,
    /// Everything else that is to come.
    pub(crate) put_off: PutOff,
    /// What is wrong with the files that they are kept in.
    pub(crate) troubles: Vec<String>,
    began: Instant,
    first_step: u64,
}

impl Steering {
    /// Begins after `step` steps; `folder` holds what earlier processes were told.
    pub(crate) fn open(folder: &Path, step: u64) -> Result<Self, TrainError> {
        let ((kept, wrong), (put_off, wrong_too)) = (Kept::open(folder, step)?, PutOff::open(folder)?);
        let troubles = [wrong, wrong_too].into_iter().flatten().collect();
        Ok(Self { kept, put_off, troubles, began: Instant::now(), first_step: step })
    }

    /// Seconds a step took in this process, on average; `None` before the first.
    pub(crate) fn seconds_per_step(&self, step: u64) -> Option<f64> {
        let steps = step.checked_sub(self.first_step).filter(|steps| *steps > 0)?;
        Some(self.began.elapsed().as_secs_f64() / steps as f64)
    }
}
