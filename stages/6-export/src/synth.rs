//! The use of an exported model on a user's inputs.

use std::path::{Path, PathBuf};

use flowmill_family::{Made, Play, Registry, Request, Synthesis, Synthesizer};
use flowmill_nn::device::{self, DeviceName};
use flowmill_runner::WholeFile;
use flowmill_train::Media;
use serde_json::Value;

use crate::ExportError;
use crate::model_folder::{self, CONFIG, WEIGHTS};

/// The options of using a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SynthOptions {
    /// The options of the family, a mapping; by default the model's own.
    pub options: Value,
    /// The seed of the noise.
    pub seed: u64,
    /// The device of the model.
    pub device: DeviceName,
    /// True if the model must be one that speaks texts.
    pub speaks: bool,
    /// Adapters that are added to the weights: an exported adapter or a checkpoint.
    pub adapter: Option<PathBuf>,
}

/// The result of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synthesized {
    /// The files, the main one first.
    pub files: Vec<PathBuf>,
    /// Figures about it, as text.
    pub figures: Vec<String>,
}

/// A model folder opened for use.
pub struct Synth(Box<dyn Synthesizer>);

impl Synth {
    /// Opens a folder that stage 6 wrote.
    ///
    /// # Errors
    /// [`ExportError`] with the missing or invalid file, or the device or option that cannot be used;
    /// [`ExportError::Silent`].
    pub fn open(registry: &Registry, folder: &Path, options: SynthOptions) -> Result<Self, ExportError> {
        let device = device::open(options.device)?;
        let config = folder.join(CONFIG);
        let adapter = options.adapter.as_deref();
        let model = model_folder::load_adapted(registry, &config, &folder.join(WEIGHTS), adapter, &device)?;
        if let (family, false) = model.family()
            && options.speaks
        {
            return Err(ExportError::Silent { folder: folder.to_owned(), family });
        }
        let synthesizer = model.synthesizer(options.options, options.seed);
        Ok(Self(synthesizer.map_err(ExportError::Model)?))
    }

    /// Runs a request and writes the files `NAME.*` in `folder`.
    ///
    /// # Errors
    /// [`ExportError::Model`] if an input cannot be read or the model fails; [`ExportError::File`].
    pub fn run(&self, request: &Request, folder: &Path) -> Result<Synthesized, ExportError> {
        self.run_observed(request, folder, &mut |_, _| {})
    }

    /// Runs a request like [`run`](Self::run), and calls `progress` with the numbers of steps that are done and of those
    /// there are at most.
    ///
    /// # Errors
    /// See [`run`](Self::run).
    pub fn run_observed(
        &self,
        request: &Request,
        folder: &Path,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Synthesized, ExportError> {
        let Synthesis { made, figures } = self.make(request, progress)?;
        Ok(Synthesized { files: write_files(&made, &request.name, folder)?, figures })
    }

    /// Runs a request like [`run_observed`](Self::run_observed), and returns the result instead of writing files.
    ///
    /// # Errors
    /// [`ExportError::Model`] if an input cannot be read or the model fails.
    pub fn make(&self, request: &Request, progress: &mut dyn FnMut(usize, usize)) -> Result<Synthesis, ExportError> {
        self.0.run_observed(request, progress).map_err(ExportError::Model)
    }

    /// Runs a request, and passes its sound to `play` part by part as it is made: mono samples and their number per second.
    ///
    /// # Errors
    /// [`ExportError::Model`] if an input cannot be read, the model fails or makes no sound, or `play` fails.
    pub fn stream(&self, request: &Request, play: &mut Play<'_>) -> Result<Synthesis, ExportError> {
        self.0.stream(request, play).map_err(ExportError::Model)
    }

    /// Returns the speaker embedding of a recording.
    ///
    /// # Errors
    /// [`ExportError::Model`] if it cannot be read, or the model has no speaker embeddings.
    pub fn voice(&self, recording: &Path) -> Result<Vec<f32>, ExportError> {
        self.0.voice(recording).map_err(ExportError::Model)
    }

    /// Checks that a speaker embedding is one for this model.
    ///
    /// # Errors
    /// [`ExportError::Model`] with the difference.
    pub fn check_voice(&self, embedding: &[f32]) -> Result<(), ExportError> {
        self.0.check_voice(embedding).map_err(ExportError::Model)
    }

    /// Returns what is spoken in a recording, as phonemes.
    ///
    /// # Errors
    /// [`ExportError::Model`] if it cannot be read, or the model does not transcribe.
    pub fn transcribe(&self, recording: &Path) -> Result<String, ExportError> {
        self.0.transcribe(recording).map_err(ExportError::Model)
    }
}

/// Writes the files `NAME.*` of a result in `folder`, and returns their paths.
///
/// # Errors
/// [`ExportError::Model`] if the result cannot be encoded; [`ExportError::File`].
pub fn write_files(made: &Made, name: &str, folder: &Path) -> Result<Vec<PathBuf>, ExportError> {
    write_files_except(made, name, folder, None)
}

/// Writes files like [`write_files`], except those of a medium that is written already.
///
/// # Errors
/// See [`write_files`].
pub fn write_files_except(
    made: &Made,
    name: &str,
    folder: &Path,
    written: Option<Media>,
) -> Result<Vec<PathBuf>, ExportError> {
    let mut files = Vec::new();
    for file in made.files(name).map_err(ExportError::Model)? {
        if written == Some(file.media) {
            continue;
        }
        let path = folder.join(file.file_name());
        write_whole(&path, &file.bytes)?;
        files.push(path);
    }
    Ok(files)
}

/// Writes a file in one step, so that no reader sees an incomplete one.
///
/// # Errors
/// [`ExportError::File`].
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let failed = |source| ExportError::file(path, source);
    let file = WholeFile::beside(path).map_err(failed)?;
    std::fs::write(file.path(), bytes).map_err(failed)?;
    file.put().map_err(failed)
}
