//! Samples that a model generates during training, for people to hear and see.

use std::path::Path;

use crate::train::Run;
use crate::{DataSource, Task, TrainError};

/// Prefix of the scheduled samples' names in the store, followed by the step: `samples-000100`.
const PREFIX: &str = "samples-";

/// Media type of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// A mono recording: 16-bit PCM after a header of 44 bytes.
    Wav,
    /// A picture.
    Png,
    /// A video, with its sound.
    Mp4,
}

/// One file that a model generated. The same weights give the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Name of the sampled item: a plain file name without an extension.
    pub name: String,
    /// The media type.
    pub media: Media,
    /// Contents of the file.
    pub bytes: Vec<u8>,
}

impl Sample {
    /// Returns the name of the file, with its extension.
    pub fn file_name(&self) -> String {
        let ending = match self.media {
            Media::Wav => "wav",
            Media::Png => "png",
            Media::Mp4 => "mp4",
        };
        format!("{}.{ending}", self.name)
    }
}

/// Returns the name of the samples after `step` steps in the store.
fn name(step: u64) -> String {
    format!("{PREFIX}{step:06}")
}

/// Returns the step in such a name.
pub fn samples_step(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

impl<T, D> Run<'_, T, D>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    /// Generates the scheduled samples into the store and the metrics. If a model cannot generate, for example because it has diverged,
    /// that is reported and training continues.
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

/// Writes samples into an existing folder.
pub(crate) fn write(folder: &Path, samples: &[Sample]) -> Result<(), TrainError> {
    samples.iter().try_for_each(|sample| {
        let path = folder.join(sample.file_name());
        std::fs::write(&path, &sample.bytes).map_err(TrainError::io("write", path))
    })
}
