//! The choice of checkpoints for the mean.

use std::path::PathBuf;

use flowmill_runner::StageError;
use flowmill_train::checkpoint::{EMA_FILE, MODEL_FILE, STATE_FILE, read_state};

use crate::config::{AverageSection, Which};

/// A checkpoint of the training stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The folder.
    pub folder: PathBuf,
    /// The number of finished steps.
    pub step: u64,
    /// Validation loss.
    pub validation: Option<f64>,
}

impl Candidate {
    /// Reads the data for the choice from a checkpoint's folder.
    ///
    /// # Errors
    /// Returns an error if its state cannot be read.
    pub fn read(folder: PathBuf) -> Result<Self, StageError> {
        let state = read_state(&folder).map_err(StageError::other)?;
        Ok(Self { folder, step: state.step, validation: state.validation })
    }

    /// Returns the path of its state.
    pub fn state(&self) -> PathBuf {
        self.folder.join(STATE_FILE)
    }

    /// Returns the file of its weights: the moving average, if training has one.
    pub fn weights(&self) -> PathBuf {
        let average = self.folder.join(EMA_FILE);
        if average.exists() { average } else { self.folder.join(MODEL_FILE) }
    }
}

/// Returns the order in the section. If there was no validation split (which training refuses unless it is explicit),
/// no checkpoint has a validation loss, and the order is the newest first.
pub fn order(section: &AverageSection, candidates: &[Candidate]) -> Which {
    let scored = candidates.iter().any(|candidate| candidate.validation.is_some());
    if scored { section.which } else { Which::Last }
}

/// Returns the chosen checkpoints, oldest first.
///
/// # Errors
/// Returns an error if there is none to choose from.
pub fn choose(section: &AverageSection, mut candidates: Vec<Candidate>) -> Result<Vec<Candidate>, StageError> {
    if candidates.is_empty() {
        return Err(StageError::new("there are no checkpoints; run the training stage again with --force"));
    }
    candidates.sort_by_key(|candidate| candidate.step);
    match order(section, &candidates) {
        Which::Last => candidates.reverse(),
        Which::Best => {
            candidates.retain(|candidate| candidate.validation.is_some());
            let score = |candidate: &Candidate| candidate.validation.unwrap_or(f64::INFINITY);
            candidates.sort_by(|a, b| score(a).total_cmp(&score(b)));
        }
    }
    candidates.truncate(section.count);
    candidates.sort_by_key(|candidate| candidate.step);
    Ok(candidates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates() -> Vec<Candidate> {
        let losses = [(30, Some(0.2)), (10, Some(0.3)), (40, None), (20, Some(0.2)), (50, Some(0.5))];
        let candidate = |(step, validation)| Candidate { folder: PathBuf::from(format!("{step}")), step, validation };
        losses.into_iter().map(candidate).collect()
    }

    fn steps(which: Which, count: usize) -> Vec<u64> {
        let chosen = choose(&AverageSection { which, count }, candidates()).unwrap();
        chosen.iter().map(|candidate| candidate.step).collect()
    }

    #[test]
    fn the_last_are_the_newest() {
        assert_eq!(steps(Which::Last, 2), [40, 50]);
        assert_eq!(steps(Which::Last, 9), [10, 20, 30, 40, 50]);
    }

    #[test]
    fn the_best_have_the_lowest_loss_and_of_equal_ones_the_earlier() {
        assert_eq!(steps(Which::Best, 1), [20]);
        assert_eq!(steps(Which::Best, 3), [10, 20, 30]);
        assert_eq!(steps(Which::Best, 9), [10, 20, 30, 50]);
    }

    #[test]
    fn without_validation_the_best_are_the_last() {
        let section = AverageSection { which: Which::Best, count: 2 };
        let unscored = |candidate| Candidate { validation: None, ..candidate };
        let chosen = choose(&section, candidates().into_iter().map(unscored).collect()).unwrap();
        assert_eq!(chosen.iter().map(|candidate| candidate.step).collect::<Vec<_>>(), [40, 50]);
    }

    #[test]
    fn nothing_to_choose_from_is_an_error() {
        let section = AverageSection { which: Which::Best, count: 1 };
        assert!(choose(&section, Vec::new()).is_err());
    }
}
