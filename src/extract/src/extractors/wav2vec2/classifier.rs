//! The speech emotion classifier: an encoder, the mean of its last hidden states, and two linear layers.

use candle_core::Device;
use flowmill_nn::inference::Linear;
use flowmill_nn::{Activation, NnError, Ragged, host};

use super::transformer::linear;
use super::{Checkpoint, Wav2Vec2};
use crate::UnusableWeights;

/// The emotions of the published classifier, in the order of its outputs.
pub const EMOTIONS: [&str; 7] = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"];

/// The classifier's outputs for a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct EmotionScores {
    /// The outputs of the last layer.
    pub logits: Vec<f32>,
    /// The probability of each emotion.
    pub scores: Vec<f32>,
}

/// An encoder with a classifier.
pub struct EmotionClassifier {
    encoder: Wav2Vec2,
    dense: Linear,
    output: Linear,
}

impl EmotionClassifier {
    /// Packs the weights of a checkpoint. Without a number of heads it is that of the published models.
    ///
    /// # Errors
    /// When it has no classifier, or a layer cannot be made of the weights.
    pub fn new(checkpoint: &Checkpoint, heads: Option<usize>, device: &Device) -> Result<Self, UnusableWeights> {
        Ok(Self {
            dense: linear(checkpoint, "classifier.dense", device)?,
            output: linear(checkpoint, "classifier.out_proj", device)?,
            encoder: Wav2Vec2::new(checkpoint, heads, device)?,
        })
    }

    /// The encoder.
    pub fn encoder(&self) -> &Wav2Vec2 {
        &self.encoder
    }

    /// Classifies normalized samples at 16 kHz.
    ///
    /// # Errors
    /// When there are too few samples for a row, or a device cannot compute it.
    pub fn classify(&self, samples: &[f32]) -> Result<EmotionScores, NnError> {
        let last = self.encoder.last_hidden_state(samples)?;
        let mean = last.mean_items(&Ragged::packed(&[last.rows()]))?;
        let inner = self.dense.forward(&mean, Activation::Tanh)?;
        let logits = host::read(self.output.forward(&inner, Activation::Identity)?.tensor())?;
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f32> = logits.iter().map(|logit| (logit - largest).exp()).collect();
        let sum: f32 = powers.iter().sum();
        Ok(EmotionScores { scores: powers.iter().map(|power| power / sum).collect(), logits })
    }
}
