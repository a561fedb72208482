//! Going back to an earlier checkpoint of a training that went wrong.

use std::path::Path;

use flowmill_family::Registry;
use flowmill_runner::{Experiment, Interrupt, Reporter, Rollback, RolledBack, RunError, StageError};
use flowmill_train::checkpoint::{self, step_of};
use flowmill_train::{samples_step, steering};

use crate::{PART, TrainStage, resume_status};

/// Makes `step` the newest checkpoint of the training in an experiment, finished or not. The next run continues from
/// there and truncates the logs there. Newer files are moved aside.
///
/// # Errors
/// Returns an error if a run holds the experiment, there is no checkpoint of that step, or it is damaged or cannot be
/// read.
pub fn rollback(
    registry: &Registry,
    experiment: &Experiment,
    step: u64,
    command: &str,
    version: &str,
    interrupt: &Interrupt,
    reporter: &Reporter,
) -> Result<RolledBack, RunError> {
    let what = Rollback {
        part: PART,
        to: checkpoint::name(step),
        points: &|names| {
            let mut steps: Vec<u64> = names.iter().filter_map(|name| step_of(name)).collect();
            steps.sort_unstable();
            steps.into_iter().map(checkpoint::name).collect()
        },
        is_newer: &|name| step_of(name).or_else(|| samples_step(name)).is_some_and(|of| of > step),
        check: &|folder| checkpoint::verify(folder).map_err(StageError::other),
        trim: &|folder| forget_commands(folder, step),
        resumable: resume_status::resumable(registry),
    };
    flowmill_runner::rollback(
        &TrainStage::new(registry.clone()),
        experiment,
        &what,
        command,
        version,
        interrupt,
        reporter,
    )
}

/// Removes the commands that were given for later steps.
fn forget_commands(folder: &Path, step: u64) -> Result<Vec<String>, StageError> {
    let dropped = steering::forget_from(folder, step).map_err(StageError::other)?;
    Ok(dropped
        .into_iter()
        .map(|command| format!("the command `{command}` was removed; give it again if needed"))
        .collect())
}
