//! The media and the text of a row, as an extractor reads them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use flowmill_audio::Audio;
use flowmill_corpus::{Array, Role};
use flowmill_image::{Limits, Raster};
use flowmill_video::Clip;
use flowmill_video::crop::Frames;

use crate::ExtractError;
use crate::video::{LazyClip, VideoPart};

type LoadFiles = dyn Fn(Role) -> Result<Vec<Vec<u8>>, MediaError> + Send + Sync;

/// The media of one row, loaded when an extractor asks for them, and its text for extractors that read it.
#[derive(Default)]
pub struct Media {
    audio: Option<LazyAudio>,
    files: Option<Box<LoadFiles>>,
    clip: LazyClip,
    text: Option<String>,
    language: Option<String>,
    columns: BTreeMap<String, Array>,
}

impl Media {
    /// A recording that `load` decodes when an extractor first asks for it.
    pub fn audio<E: Into<MediaError>>(load: impl Fn() -> Result<Audio, E> + Send + Sync + 'static) -> Self {
        Self { audio: Some(LazyAudio::new(load)), ..Self::default() }
    }

    /// Adds other media, whose files `load` reads: the video, or the pictures in their order; none that the row does not have.
    #[must_use]
    pub fn with_files(self, load: impl Fn(Role) -> Result<Vec<Vec<u8>>, MediaError> + Send + Sync + 'static) -> Self {
        Self { files: Some(Box::new(load)), ..self }
    }

    /// Adds which part of its video a row is; without it, the row is the whole video.
    #[must_use]
    pub fn with_video_part(self, part: VideoPart) -> Self {
        Self { clip: LazyClip::new(part), ..self }
    }

    /// Adds the text of the row and its language, as the data name it; `None` if they name none.
    #[must_use]
    pub fn with_text(self, text: impl Into<String>, language: Option<String>) -> Self {
        Self { text: Some(text.into()), language, ..self }
    }

    /// Adds columns of the row, as stage 0 read them.
    #[must_use]
    pub fn with_columns(self, columns: BTreeMap<String, Array>) -> Self {
        Self { columns, ..self }
    }

    /// The texts of a column of the row; none if the row lacks it or it has other values.
    pub fn texts(&self, column: &str) -> Option<&[String]> {
        self.columns.get(column)?.values().ok()
    }

    /// The text of a row, for an extractor that reads.
    ///
    /// # Errors
    /// [`ExtractError::NoText`] if the row has none, or none with a letter or a digit.
    pub fn text(&self, extractor: &'static str) -> Result<&str, ExtractError> {
        let text = self.text.as_deref().filter(|text| text.contains(char::is_alphanumeric));
        text.ok_or(ExtractError::NoText { extractor })
    }

    /// The language of the row's text, as the data name it.
    pub fn language(&self) -> Option<&str> {
        self.language.as_deref()
    }

    /// The recording of a row, for an extractor that listens.
    ///
    /// # Errors
    /// [`ExtractError::NoMedia`] if the row has none.
    pub fn as_audio(&self, extractor: &'static str) -> Result<&LazyAudio, ExtractError> {
        self.audio.as_ref().ok_or(ExtractError::NoMedia { extractor, wanted: Role::Audio })
    }

    /// The files of a row's video or pictures, in their own formats, for an extractor that watches.
    ///
    /// # Errors
    /// [`ExtractError::NoMedia`] if the row has none; why a file cannot be read.
    pub fn files(&self, extractor: &'static str, role: Role) -> Result<Vec<Vec<u8>>, ExtractError> {
        let files = self.files.as_ref().map(|load| load(role)).transpose().map_err(ExtractError::from)?;
        files.filter(|files| !files.is_empty()).ok_or(ExtractError::NoMedia { extractor, wanted: role })
    }

    /// The first image of a row, decoded: 8 bits, upright, on white.
    ///
    /// # Errors
    /// [`ExtractError::NoMedia`] if the row has none; why it cannot be decoded.
    pub fn image(&self, extractor: &'static str) -> Result<Raster, ExtractError> {
        let files = self.files(extractor, Role::Images)?;
        // `files` gives at least one.
        decode(&files[0])
    }

    /// All images of a row in their order, decoded like [`Media::image`].
    ///
    /// # Errors
    /// Those of [`Media::image`].
    pub fn images(&self, extractor: &'static str) -> Result<Vec<Raster>, ExtractError> {
        self.files(extractor, Role::Images)?.iter().map(|bytes| decode(bytes)).collect()
    }

    /// The video of a row as frames at a constant rate, cropped, resized and augmented by the settings of an extractor that watches, with its
    /// sound in step: frame `n` belongs to the samples from `n / fps` seconds on, and the sound is as long as the frames. It is decoded once
    /// per row, however often it is asked for.
    ///
    /// # Errors
    /// [`ExtractError::NoMedia`] if the row has no video; [`ExtractError::Media`] with the reason why it cannot be used.
    pub fn video(&self, extractor: &'static str, frames: &Frames) -> Result<Arc<Clip>, ExtractError> {
        self.clip.get(frames, || self.video_bytes(extractor))
    }

    /// The sound of a row's video, in step with the frames that [`Media::video`] gives at `fps` frames per second, without decoding them:
    /// their number is its length times `fps`, rounded. `None` if the video has no sound.
    ///
    /// # Errors
    /// Those of [`Media::video`].
    pub fn video_sound(&self, extractor: &'static str, fps: f64) -> Result<Option<Audio>, ExtractError> {
        self.clip.sound(fps, &self.video_bytes(extractor)?)
    }

    fn video_bytes(&self, extractor: &'static str) -> Result<Vec<u8>, ExtractError> {
        let mut files = self.files(extractor, Role::Video)?;
        // `files` gives at least one.
        Ok(files.swap_remove(0))
    }
}

fn decode(bytes: &[u8]) -> Result<Raster, ExtractError> {
    flowmill_image::decode(bytes, &Limits::default())
        .map_err(|error| ExtractError::Media(format!("unreadable picture: {error}")))
}

/// The reason why media cannot be loaded. Any error that can be displayed converts to a fault of the media themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaError {
    reason: String,
    of_machine: bool,
}

impl MediaError {
    /// A reason of the media, or of this machine at this time.
    pub fn new(reason: impl std::fmt::Display, of_machine: bool) -> Self {
        Self { reason: reason.to_string(), of_machine }
    }
}

impl<E: std::fmt::Display> From<E> for MediaError {
    fn from(error: E) -> Self {
        Self::new(error, false)
    }
}

impl From<MediaError> for ExtractError {
    fn from(MediaError { reason, of_machine }: MediaError) -> Self {
        if of_machine { Self::Machine(reason) } else { Self::Media(reason) }
    }
}

type Load = dyn Fn() -> Result<Audio, MediaError> + Send + Sync;

/// A recording that is decoded once, when it is first needed, and dropped with its row.
pub struct LazyAudio {
    load: Box<Load>,
    decoded: OnceLock<Result<Mono, MediaError>>,
}

struct Mono {
    samples: Vec<f32>,
    sample_rate: u32,
}

impl LazyAudio {
    /// A recording that `load` decodes; `load` applies the row's segment.
    pub fn new<E: Into<MediaError>>(load: impl Fn() -> Result<Audio, E> + Send + Sync + 'static) -> Self {
        Self { load: Box::new(move || load().map_err(Into::into)), decoded: OnceLock::new() }
    }

    /// The mean of the channels at the given sample rate (Hz).
    ///
    /// # Errors
    /// [`ExtractError::Media`] with the decoder's reason, or the resampler's.
    pub fn mono_at(&self, sample_rate: u32) -> Result<Vec<f32>, ExtractError> {
        let mono = self.mono()?;
        Ok(flowmill_audio::resample(&mono.samples, mono.sample_rate, sample_rate)?)
    }

    /// Returns the mean of the channels, and its sample rate in Hz, as recorded.
    ///
    /// # Errors
    /// [`ExtractError::Media`] with the decoder's reason.
    pub fn recorded(&self) -> Result<(&[f32], u32), ExtractError> {
        let mono = self.mono()?;
        Ok((&mono.samples, mono.sample_rate))
    }

    /// Returns the length of the recording in seconds.
    ///
    /// # Errors
    /// [`ExtractError::Media`] with the decoder's reason.
    pub fn seconds(&self) -> Result<f64, ExtractError> {
        let mono = self.mono()?;
        Ok(mono.samples.len() as f64 / f64::from(mono.sample_rate))
    }

    fn mono(&self) -> Result<&Mono, ExtractError> {
        let decoded = self.decoded.get_or_init(|| {
            let audio = (self.load)()?;
            let sample_rate = audio.sample_rate;
            if sample_rate == 0 {
                return Err("the sample rate is 0".into());
            }
            Ok(Mono { samples: audio.into_mono(), sample_rate })
        });
        decoded.as_ref().map_err(|error| error.clone().into())
    }
}
