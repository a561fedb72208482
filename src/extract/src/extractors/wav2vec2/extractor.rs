//! The `wav2vec2` extractor: recordings in, features per video frame out.

use candle_core::Device;
use flowmill_corpus::Array;
use serde::Deserialize;

use super::config::columns;
use super::{Checkpoint, EmotionClassifier, KIND, SAMPLE_RATE, Wav2Vec2, normalized};
use crate::waveform::recording;
use crate::weights as taken;
use crate::{Column, ExtractError, Extracted, Extractor, Matrix, Media, State, StateError};

/// The length of recordings in seconds that are processed as a whole; it bounds the memory to some 4 GB.
const LONGEST: f64 = 300.0;

/// The encoder as an extractor, with the classifier if there is one.
pub struct Wav2Vec2Extractor {
    encoder: Wav2Vec2,
    classifier: Option<EmotionClassifier>,
    fps: f64,
    only_last: bool,
}

#[derive(Deserialize)]
struct Settings {
    fps: f64,
    only_last_features: bool,
    heads: Option<usize>,
    emotion: bool,
}

impl Wav2Vec2Extractor {
    /// The extractor that a state describes, to run on a device.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub fn from_state(state: &State, device: &Device) -> Result<Self, StateError> {
        let Settings { fps, only_last_features, heads, emotion } = state.settings_as(KIND)?;
        let part = |name: &str| {
            let tensors = taken::kept(state, &format!("{name}."));
            tensors.and_then(Checkpoint::of_plain).map_err(taken::foreign(KIND))
        };
        let encoder = Wav2Vec2::new(&part("speech")?, heads, device).map_err(taken::foreign(KIND))?;
        let classifier = match emotion {
            true => Some(EmotionClassifier::new(&part("emotion")?, None, device).map_err(taken::foreign(KIND))?),
            false => None,
        };
        Ok(Self { encoder, classifier, fps, only_last: only_last_features })
    }

    /// Returns the number of video frames of a number of samples. The sound of a video is as long as its frames, up to rounding by the
    /// resampler.
    pub fn frames(&self, samples: usize) -> usize {
        (samples as f64 * self.fps / f64::from(SAMPLE_RATE)).round().max(1.0) as usize
    }

    /// Returns the features of samples at 16 kHz, for this number of video frames: `[frame, feature]`.
    ///
    /// # Errors
    /// When there are too few samples, or a feature is not finite.
    pub fn features(&self, samples: &[f32], frames: usize) -> Result<Matrix, ExtractError> {
        let features = self.encoder.features(&normalized(samples), frames, self.only_last)?;
        if !features.is_finite() {
            return Err(ExtractError::NotFinite { extractor: KIND });
        }
        Ok(features)
    }

    /// Returns the probability of each emotion for samples at 16 kHz; `None` without a classifier.
    ///
    /// # Errors
    /// When there are too few samples.
    pub fn emotion(&self, samples: &[f32]) -> Result<Option<Vec<f32>>, ExtractError> {
        let classify = |classifier: &EmotionClassifier| classifier.classify(&normalized(samples));
        Ok(self.classifier.as_ref().map(classify).transpose()?.map(|found| found.scores))
    }

    fn width(&self) -> usize {
        let dimensions = self.encoder.dimensions();
        if self.only_last { dimensions.hidden } else { dimensions.layers * dimensions.hidden }
    }
}

impl Extractor for Wav2Vec2Extractor {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        columns(self.width(), self.classifier.is_some())
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let samples = recording(media, SAMPLE_RATE, self.encoder.dimensions().shortest(), LONGEST, KIND)?;
        let frames = self.frames(samples.len());
        let features = self.features(&samples, frames)?;
        let shape = vec![frames, self.width()];
        let array =
            Array::new(shape, features.as_slice().to_vec()).map_err(|error| ExtractError::Media(error.to_string()))?;
        Ok(Extracted::new(std::iter::once(array).chain(self.emotion(&samples)?.map(Array::vector)).collect()))
    }
}
