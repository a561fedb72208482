//! The encoder: convolutions, projection, transformer.

use candle_core::Device;
use flowmill_nn::inference::{LayerNorm, Linear};
use flowmill_nn::{Activation, NnError, Value, host};

use super::convolutions::{Convolutions, interpolate};
use super::transformer::{Transformer, layer_norm, linear};
use super::{Checkpoint, Dimensions};
use crate::{Matrix, UnusableWeights};

/// A wav2vec 2.0 encoder, ready to run on a device.
pub struct Wav2Vec2 {
    dimensions: Dimensions,
    convolutions: Convolutions,
    norm: LayerNorm,
    projection: Linear,
    transformer: Transformer,
}

impl Wav2Vec2 {
    /// Packs the weights of a checkpoint. Without a number of heads it is that of the published models.
    ///
    /// # Errors
    /// When a layer cannot be made of them.
    pub fn new(checkpoint: &Checkpoint, heads: Option<usize>, device: &Device) -> Result<Self, UnusableWeights> {
        let dimensions = *checkpoint.dimensions();
        let heads = heads.unwrap_or_else(|| dimensions.published_heads());
        Ok(Self {
            dimensions,
            convolutions: Convolutions::new(checkpoint, device)?,
            norm: layer_norm(checkpoint, "feature_projection.layer_norm", device)?,
            projection: linear(checkpoint, "feature_projection.projection", device)?,
            transformer: Transformer::new(checkpoint, heads, device)?,
        })
    }

    /// The sizes.
    pub fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    /// Returns the hidden states of normalized samples at 16 kHz, each `[row, channel]`: the input of the first layer of the transformer
    /// and the output of every layer, as transformers 5 gives them (version 4 normalized the last one of the stable form). With a number of frames, the rows of the convolutions are interpolated to it first.
    ///
    /// # Errors
    /// When there are too few samples for a row, or a device cannot compute it.
    pub fn hidden_states(&self, samples: &[f32], frames: Option<usize>) -> Result<Vec<Value>, NnError> {
        let mut rows = self.convolutions.forward(samples)?;
        if let Some(frames) = frames {
            rows = interpolate(&rows, frames)?;
        }
        let rows = self.projection.forward(&self.norm.forward(&rows)?, Activation::Identity)?;
        self.transformer.forward(&rows)
    }

    /// Returns the result of the encoder for normalized samples at 16 kHz, `[row, channel]`: the output of the last layer, which the
    /// stable form normalizes.
    ///
    /// # Errors
    /// Like [`hidden_states`](Self::hidden_states).
    pub fn last_hidden_state(&self, samples: &[f32]) -> Result<Value, NnError> {
        let states = self.hidden_states(samples, None)?;
        let last = states.last().ok_or_else(|| NnError::invalid("wav2vec 2.0", "there is no hidden state"))?;
        self.transformer.finish(last)
    }

    /// Returns the speech features of a number of video frames, `[frame, feature]`: the outputs of all layers one after the other, the
    /// first layer first, or of the last layer only.
    ///
    /// # Errors
    /// Like [`hidden_states`](Self::hidden_states).
    pub fn features(&self, samples: &[f32], frames: usize, only_last: bool) -> Result<Matrix, NnError> {
        let states = self.hidden_states(samples, Some(frames))?;
        let first = if only_last { states.len() - 1 } else { 1 };
        let states = states[first..].iter().map(|state| host::read(state.tensor())).collect::<Result<Vec<_>, _>>()?;
        let width = self.dimensions.hidden;
        let rows =
            (0..frames).flat_map(|frame| states.iter().map(move |state| &state[frame * width..(frame + 1) * width]));
        Ok(Matrix::new(rows.flatten().copied().collect(), states.len() * width))
    }
}
