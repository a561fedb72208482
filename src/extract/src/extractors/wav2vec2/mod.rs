//! The `wav2vec2` extractor: hidden states of wav2vec 2.0 (Baevski et al., arXiv 2006.11477) for every video frame, as FLOAT
//! (arXiv 2412.01064) reads speech, and optionally the emotion of the voice by its classifier.
//!
//! Seven convolutions turn 16 kHz samples into about 50 rows a second. FLOAT interpolates these linearly to the number of video frames;
//! a transformer with a convolutional position follows. There are two forms. The base form normalizes the first convolution
//! over time and each transformer layer after its sums. The large ("stable") form normalizes every convolution over channels and each
//! transformer layer before its parts. The convolutions' normalization tells the form of a file.
//!
//! Names are those of Hugging Face (`Wav2Vec2Model`), behind any prefix: `facebook/wav2vec2-base-960h`, the modules inside of
//! FLOAT's `float.pth`, or the speech emotion classifier (`Wav2Vec2ForSpeechClassification`). All sizes except the number of
//! attention heads follow from the shapes.

mod classifier;
mod config;
mod convolutions;
mod dimensions;
mod extractor;
mod names;
mod network;
mod transformer;

pub use classifier::{EMOTIONS, EmotionClassifier, EmotionScores};
pub use config::{EMOTION, FEATURES, Wav2Vec2Config};
pub use dimensions::{Dimensions, Form};
pub use extractor::Wav2Vec2Extractor;
pub use network::Wav2Vec2;

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::UnusableWeights;
use crate::waveform;

/// The extractor's kind.
pub const KIND: &str = "wav2vec2";

/// The sample rate of the sound, in Hz.
pub const SAMPLE_RATE: u32 = 16_000;

/// The sizes of a model and its weights, under the names of Hugging Face.
pub type Checkpoint = waveform::Checkpoint<Dimensions>;

impl Checkpoint {
    /// Takes the weights of an encoder out of a `state_dict`, behind any prefix. Of several encoders it takes one without a classifier.
    ///
    /// # Errors
    /// When there is no encoder, or a weight of it is missing or of another shape.
    pub fn of_encoder(tensors: BTreeMap<String, Tensor>) -> Result<Self, UnusableWeights> {
        Self::of_plain(names::encoder(tensors, false)?)
    }

    /// Takes the weights of an encoder with a classifier out of a `state_dict`, behind any prefix.
    ///
    /// # Errors
    /// When there is no such encoder, or a weight of it is missing or of another shape.
    pub fn of_classifier(tensors: BTreeMap<String, Tensor>) -> Result<Self, UnusableWeights> {
        Self::of_plain(names::encoder(tensors, true)?)
    }
}

/// Scales samples to mean 0 and variance 1, as the models were trained with.
pub fn normalized(samples: &[f32]) -> Vec<f32> {
    let count = samples.len().max(1) as f64;
    let mean = samples.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
    let variance = samples.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
    let scale = 1.0 / (variance + 1e-7).sqrt();
    samples.iter().map(|x| ((f64::from(*x) - mean) * scale) as f32).collect()
}
