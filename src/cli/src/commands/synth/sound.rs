//! Sound that is written as it is made.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use flowmill_audio::{GrowingWav, pcm16};
use flowmill_family::BoxError;

/// The place of a sound that grows.
pub enum Sound<'a> {
    /// The standard output, as raw PCM.
    Raw(&'a mut dyn Write),
    /// A WAV file.
    File(PartFile),
}

impl Sound<'_> {
    /// Adds samples.
    ///
    /// # Errors
    /// Returns an error if they cannot be written.
    pub fn play(&mut self, samples: &[f32], sample_rate: u32) -> Result<(), BoxError> {
        match self {
            Self::Raw(out) => {
                out.write_all(&pcm16(samples))?;
                Ok(out.flush()?)
            }
            Self::File(file) => file.push(samples, sample_rate),
        }
    }
}

/// The WAV file `NAME.part.wav`, which becomes `NAME.wav` when it is whole. So a sound that breaks off replaces no whole one.
pub struct PartFile {
    part: PathBuf,
    place: PathBuf,
    wav: Option<GrowingWav<File>>,
}

impl PartFile {
    /// Names the files; the first samples create them.
    pub fn new(folder: &Path, name: &str) -> Self {
        let file = |ending: &str| folder.join(format!("{name}{ending}"));
        Self { part: file(".part.wav"), place: file(".wav"), wav: None }
    }

    fn push(&mut self, samples: &[f32], sample_rate: u32) -> Result<(), BoxError> {
        let cannot = |error: io::Error| format!("cannot write {}: {error}", self.part.display());
        if self.wav.is_none() {
            let file = File::create(&self.part).map_err(cannot)?;
            self.wav = Some(GrowingWav::new(file, sample_rate)?);
        }
        match &mut self.wav {
            Some(wav) => Ok(wav.push(samples)?),
            None => Ok(()),
        }
    }

    /// Gives the whole file its name.
    ///
    /// # Errors
    /// Returns an error if it cannot be renamed.
    pub fn finish(self) -> anyhow::Result<PathBuf> {
        let Self { part, place, wav } = self;
        drop(wav);
        fs::rename(&part, &place)
            .with_context(|| format!("cannot rename {} to {}", part.display(), place.display()))?;
        Ok(place)
    }
}
