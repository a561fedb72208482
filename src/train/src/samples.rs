//! What a model generates now and then while it is trained, to be heard and seen.

use std::path::Path;

use crate::train::Run;
use crate::{DataSource, Task, TrainError};

/// Samples of the schedule lie in the store under this and the step: `samples-000100`.
const PREFIX: &str = "samples-";

/// What a sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// A mono recording: 16-bit PCM behind a header of 44 bytes.
    Wav,
    /// A picture.
    Png,
}

/// One file that a model generated. The same weights give the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// What of: a plain file name without an ending.
    pub name: String,
    /// How to read it.
    pub media: Media,
    /// The file.
    pub bytes: Vec<u8>,
}

impl Sample {
    /// The name of the file, with its ending.
    pub fn file_name(&self) -> String {
        let ending = match self.media {
            Media::Wav => "wav",
            Media::Png => "png",
        };
        format!("{}.{ending}", self.name)
    }
}

/// The name in the store of the samples after so many steps.
fn name(step: u64) -> String {
    format!("{PREFIX}{step:06}")
}

/// The step in such a name.
pub fn samples_step(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

impl<T, D> Run<'_, T, D>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    /// Generates the examples of the schedule into the store and the metrics. That a model gives none, as one that has diverged, is
    /// said and does not stop its training.
    pub(crate) fn sample(&mut self) -> Result<(), TrainError> {
        let (task, step) = (self.task, self.state.step);
        let samples = match self.averaged(|parameters| Ok(task.samples(parameters)))? {
            Ok(samples) => samples,
            Err(error) => {
                self.observer.message(&format!("step {step}: no samples: {error}"));
                return Ok(());
            }
        };
        self.store.save(&name(step), &mut |folder| write(folder, &samples))?;
        self.metrics.samples(step, &samples)
    }
}

/// Writes samples into a folder that is there.
pub(crate) fn write(folder: &Path, samples: &[Sample]) -> Result<(), TrainError> {
    samples.iter().try_for_each(|sample| {
        let path = folder.join(sample.file_name());
        std::fs::write(&path, &sample.bytes).map_err(TrainError::io("write", path))
    })
}
