//! Validation of a checkpoint without training.

use std::path::Path;

use flowmill_nn::Parameters;

use crate::metrics::Measured;
use crate::{DataSource, Observer, Task, TrainError, checkpoint, pass};

/// Result of a validation.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Steps that the checkpoint had done.
    pub step: u64,
    /// Passes over the data that it had done.
    pub epoch: u64,
    /// True if its averaged weights were used, like validation during training does if there are any.
    pub averaged: bool,
    /// The loss and its parts.
    pub means: Measured,
}

/// Validates the newest intact checkpoint among `folders`, each the folder of one checkpoint, exactly like training validates it. Nothing
/// is written; `parameters` are set to those of the checkpoint.
///
/// # Errors
/// When there is no intact checkpoint or nothing to validate on; errors of the task and the data.
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
            // A running training has removed it since the folders were listed.
            Err(_) if !folder.exists() => continue,
            Err(error) if !matches!(error, TrainError::Damaged { .. }) => return Err(error),
            Err(error) => {
                observer.message(&format!("WARNING: {error}; trying the previous one"));
                continue;
            }
        };
        let means = pass::validate(task, parameters, data, state.seed)?.ok_or(TrainError::NothingToValidate)?;
        return Ok(Evaluation { step: state.step, epoch: state.epoch, averaged, means });
    }
    Err(TrainError::NoCheckpoint)
}
