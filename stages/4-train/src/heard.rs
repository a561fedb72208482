//! Speech that a command makes to listen to, next to the results of the stages.

use std::fs;
use std::path::{Path, PathBuf};

use flowmill_family::Examples;
use flowmill_nn::Parameters;
use flowmill_runner::StageError;
use flowmill_train::Observer;

use crate::task::FamilyTask;

/// The written speech.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// The files.
    pub files: Vec<PathBuf>,
    /// The distance of each output from the real recording, with the id of its utterance.
    pub distances: Vec<(String, f64)>,
}

impl Heard {
    /// Returns the mean of the distances; `None` without any.
    pub fn mean_distance(&self) -> Option<f64> {
        let sum: f64 = self.distances.iter().map(|(_, distance)| distance).sum();
        (!self.distances.is_empty()).then(|| sum / self.distances.len() as f64)
    }
}

/// Generates examples into files of `folder`. If the model cannot generate, that is reported.
///
/// # Errors
/// Returns an error if a file cannot be written.
pub fn hear(
    task: &FamilyTask,
    parameters: &Parameters,
    examples: &Examples,
    folder: &Path,
    observer: &mut dyn Observer,
) -> Result<Option<Heard>, StageError> {
    let preview = &task.preview;
    let made = preview.made(task.model.as_ref(), parameters, examples).and_then(|made| {
        let samples = preview.files(&made)?;
        Ok((samples, task.model.distances(&made)?))
    });
    let (samples, distances) = match made {
        Ok(made) => made,
        Err(error) => {
            observer.message(&format!("no speech to listen to: {error}"));
            return Ok(None);
        }
    };
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| StageError::file(&path, error)
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let mut files = Vec::new();
    for sample in samples {
        let path = folder.join(sample.file_name());
        fs::write(&path, &sample.bytes).map_err(failed(&path))?;
        files.push(path);
    }
    Ok(Some(Heard { files, distances }))
}
