//! The place of a training: finished in its stage's folder, or as far as it got.

use std::path::PathBuf;

use flowmill_runner::{Experiment, part_state};
use flowmill_stage_train::{PART, TrainStage};
use flowmill_train::metrics::METRICS_FILE;
use flowmill_train::{checkpoint, samples_step};

use super::names;
use crate::stages;

/// The progress of a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is none.
    None,
    /// It runs, was stopped, or died.
    Unfinished,
    /// It is done.
    Done,
}

/// The folder of a training.
pub struct TrainingFolder {
    /// The progress.
    pub progress: Progress,
    folder: PathBuf,
}

impl TrainingFolder {
    /// The training of an experiment; the one under way, where there is one.
    pub fn find(experiment: &Experiment) -> Self {
        let done = experiment.stage_dir(&TrainStage::new(stages::families()));
        let unfinished = part_state(&done, PART);
        let has_metrics = |folder: &PathBuf| folder.join(METRICS_FILE).exists();
        if has_metrics(&unfinished) {
            Self { progress: Progress::Unfinished, folder: unfinished }
        } else {
            let progress = if has_metrics(&done) { Progress::Done } else { Progress::None };
            Self { progress, folder: done }
        }
    }

    /// The metrics.
    pub fn metrics(&self) -> PathBuf {
        self.folder.join(METRICS_FILE)
    }

    /// The checkpoints by step.
    pub fn checkpoints(&self) -> Vec<(u64, PathBuf)> {
        let folder = match self.progress {
            Progress::Done => self.folder.join("checkpoints"),
            _ => self.folder.clone(),
        };
        let found =
            names(&folder).into_iter().filter_map(|name| Some((checkpoint::step_of(&name)?, folder.join(&name))));
        let mut found: Vec<(u64, PathBuf)> = found.collect();
        found.sort();
        found
    }

    /// The folders of samples by step.
    pub fn samples(&self) -> Vec<(u64, PathBuf)> {
        let (folder, step): (PathBuf, fn(&str) -> Option<u64>) = match self.progress {
            Progress::Done => (self.folder.join("samples"), checkpoint::step_of),
            _ => (self.folder.clone(), samples_step),
        };
        let mut found: Vec<(u64, PathBuf)> =
            names(&folder).into_iter().filter_map(|name| Some((step(&name)?, folder.join(&name)))).collect();
        found.sort();
        found
    }
}
