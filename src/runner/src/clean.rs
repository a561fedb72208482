//! `clean`: removes the folders of stages.

use std::path::PathBuf;

use crate::lockfile::{Lock, Patience};
use crate::session::{StageRange, folders, in_order, select};
use crate::{Experiment, Holder, Interrupt, Reporter, RunError, Stage, files, holder};

/// Removes everything that the selected stages have written, including other files in their folders, and returns the
/// folders. With `dry_run` it only returns which folders it would remove. Fails while a run works on the experiment.
///
/// # Errors
/// Returns an error if a stage does not exist, the experiment is in use, or a folder cannot be removed.
pub fn clean(
    stages: &[Box<dyn Stage>],
    experiment: &Experiment,
    range: &StageRange,
    dry_run: bool,
    command: &str,
    reporter: &Reporter,
) -> Result<Vec<PathBuf>, RunError> {
    let stages = in_order(stages);
    let selected = select(&stages, range)?;
    let doomed: Vec<PathBuf> = folders(experiment, &stages[selected]).into_iter().filter(|dir| dir.exists()).collect();
    if dry_run {
        return Ok(doomed);
    }
    if let Some(holder) = holder(experiment) {
        return Err(RunError::Locked { dir: experiment.dir().to_owned(), holder: Some(Box::new(holder)), file: None });
    }
    if doomed.is_empty() {
        return Ok(doomed);
    }
    let patience = Patience { wait: false, interrupt: &Interrupt::default(), reporter };
    let _lock = Lock::take(experiment, &Holder::this(command), patience)?;
    for dir in &doomed {
        // The record of a complete result goes first: a half-removed stage must not look finished.
        files::remove_any(&dir.join(".previous")).map_err(RunError::experiment)?;
        files::remove_any(&dir.join("stage.json")).map_err(RunError::experiment)?;
        files::remove_any(dir).map_err(RunError::experiment)?;
    }
    Ok(doomed)
}
