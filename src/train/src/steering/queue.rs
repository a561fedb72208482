//! What a run remembers of the commands that it was given.

use std::path::Path;
use std::time::Instant;

use super::{Command, Kept};
use crate::TrainError;

/// Commands that are still to come, and what is needed to tell how fast training goes.
#[derive(Debug)]
pub(crate) struct Steering {
    /// Changes of results, those to come included.
    pub(crate) kept: Kept,
    later: Vec<(u64, Command)>,
    began: Instant,
    first_step: u64,
}

impl Steering {
    /// Begins after `step` steps; `folder` holds what was kept.
    pub(crate) fn open(folder: &Path, step: u64) -> Result<Self, TrainError> {
        Ok(Self { kept: Kept::open(folder)?, later: Vec::new(), began: Instant::now(), first_step: step })
    }

    /// Puts a command off until so many steps are done.
    pub(crate) fn put_off(&mut self, step: u64, command: Command) {
        self.later.push((step, command));
    }

    /// The commands put off until now, in the order in which they were given.
    pub(crate) fn due(&mut self, step: u64) -> Vec<Command> {
        let (due, later) = self.later.iter().partition(|(at, _)| *at <= step);
        self.later = later;
        due.into_iter().map(|(_, command)| command).collect()
    }

    /// Seconds a step took in this process, on average; `None` before the first.
    pub(crate) fn seconds_per_step(&self, step: u64) -> Option<f64> {
        let steps = step.checked_sub(self.first_step).filter(|steps| *steps > 0)?;
        Some(self.began.elapsed().as_secs_f64() / steps as f64)
    }
}
