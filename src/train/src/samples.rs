//! What a model generates now and then while it is trained, to be heard and seen.

use std::path::Path;

use crate::TrainError;

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
    fn file_name(&self) -> String {
        let ending = match self.media {
            Media::Wav => "wav",
            Media::Png => "png",
        };
        format!("{}.{ending}", self.name)
    }
}

/// Writes samples into a folder that is there.
pub(crate) fn write(folder: &Path, samples: &[Sample]) -> Result<(), TrainError> {
    samples.iter().try_for_each(|sample| {
        let path = folder.join(sample.file_name());
        std::fs::write(&path, &sample.bytes).map_err(TrainError::io("write", path))
    })
}
