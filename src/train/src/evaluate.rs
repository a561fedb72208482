//! Validating a checkpoint without training.

use std::path::Path;

use flowmill_nn::Parameters;

use crate::metrics::Measured;
use crate::{DataSource, Observer, Task, TrainError, checkpoint, pass};

/// What validation gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Steps that the checkpoint had done.
    pub step: u64,
    /// Passes over the data that it had done.
    pub epoch: u64,
    /// Whether its averaged weights were taken, as validation during training does when there are any.
    pub averaged: bool,
    /// The loss and its parts.
    pub means: Measured,
}

/// Validates the newest sound checkpoint among `folders`, each the folder of one checkpoint, exactly as training validates it. Nothing
/// is written; `parameters` are those of the checkpoint afterwards.
///
/// # Errors
/// When there is no sound checkpoint or nothing to validate on, or whatever the task or the data report.
pub fn evaluate<T, D>(
    task: &T,
    parameters: &mut Parameters,
    data: &D,
    folders: &[&Path],
    observer: &mut dyn Observer,
) -> Result<Evaluation, TrainError>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    let mut newest_first: Vec<(u64, &Path)> = folders
        .iter()
        .filter_map(|folder| Some((checkpoint::step_of(folder.file_name()?.to_str()?)?, *folder)))
        .collect();
    newest_first.sort_by(|a, b| b.cmp(a));
    for (_, folder) in newest_first {
        let (state, averaged) = match checkpoint::load_weights(folder, parameters) {
            Ok(loaded) => loaded,
            // A running training has removed it since it was listed.
            Err(_) if !folder.exists() => continue,
            Err(error) if !matches!(error, TrainError::Damaged { .. }) => return Err(error),
            Err(error) => {
                observer.message(&format!("WARNING: {error}; trying the one before"));
                continue;
            }
        };
        let means = pass::validate(task, parameters, data, state.seed)?.ok_or(TrainError::NothingToValidate)?;
        return Ok(Evaluation { step: state.step, epoch: state.epoch, averaged, means });
    }
    Err(TrainError::NoCheckpoint)
}
