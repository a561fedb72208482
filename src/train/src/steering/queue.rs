//! The commands of a run.

use std::path::Path;
use std::time::Instant;

use super::{CommandLog, PutOff};
use crate::TrainError;

/// Scheduled commands, and the measurements of training speed.
#[derive(Debug)]
pub(crate) struct Steering {
    /// Changes of results, including future ones.
    pub(crate) log: CommandLog,
    /// All other scheduled commands.
    pub(crate) put_off: PutOff,
    /// Problems with the files of these commands.
    pub(crate) troubles: Vec<String>,
    began: Instant,
    first_step: u64,
}

impl Steering {
    /// Starts after `step` steps; `folder` contains the commands to earlier processes.
    pub(crate) fn open(folder: &Path, step: u64) -> Result<Self, TrainError> {
        let ((log, wrong), (put_off, wrong_too)) = (CommandLog::open(folder, step)?, PutOff::open(folder)?);
        let troubles = [wrong, wrong_too].into_iter().flatten().collect();
        Ok(Self { log, put_off, troubles, began: Instant::now(), first_step: step })
    }

    /// Returns the average seconds per step in this process; `None` before the first.
    pub(crate) fn seconds_per_step(&self, step: u64) -> Option<f64> {
        let steps = step.checked_sub(self.first_step).filter(|steps| *steps > 0)?;
        Some(self.began.elapsed().as_secs_f64() / steps as f64)
    }
}
