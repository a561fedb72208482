//! The SFM head, which predicts the start of the flow from the encoder's frames.

use crate::flow::Result;
use flowmill_nn::init::Builder;
use flowmill_nn::layers::{Conv1d, LayerNorm, Linear};
use flowmill_nn::objectives::ShallowPrediction;
use flowmill_nn::ops::Convolution;
use flowmill_nn::{Activation, Context, Ragged, Value};

const TAPS: usize = 3;
const EPSILON: f32 = 1e-5;

/// Two convolutions, each with layer norm, ReLU and dropout, then a projection to `X_h`, `t_h` and `log sigma_h^2`.
#[derive(Debug, Clone)]
pub struct SfmHead {
    convolutions: [Conv1d; 2],
    norms: [LayerNorm; 2],
    projection: Linear,
    bins: usize,
    dropout: f32,
}

impl SfmHead {
    /// Creates a head from `channels` of the encoder to `bins` of the mel.
    ///
    /// # Errors
    /// Returns an error if a parameter name is already used.
    pub fn new(mut builder: Builder, channels: usize, bins: usize, dropout: f32) -> Result<Self> {
        let settings = Convolution { padding: [TAPS / 2, TAPS / 2], ..Convolution::default() };
        let mut convolution = |name| Conv1d::new(builder.scope(name), channels, channels, TAPS, settings);
        let convolutions = [convolution("conv1")?, convolution("conv2")?];
        let mut norm = |name| LayerNorm::new(builder.scope(name), channels, EPSILON);
        let norms = [norm("layernorm1")?, norm("layernorm2")?];
        let projection = Linear::new(builder.scope("proj"), channels, bins + 2)?;
        Ok(Self { convolutions, norms, projection, bins, dropout })
    }

    /// Returns the predictions for the frames `[row, channel]` of a packed batch: `X_h` per frame, and time and log
    /// variance as means over the frames of each item.
    ///
    /// # Errors
    /// Returns an error if the shape is wrong.
    pub fn forward(&self, context: &Context, frames: &Value, rows: &Ragged) -> Result<ShallowPrediction> {
        let mut state = frames.clone();
        for (convolution, norm) in self.convolutions.iter().zip(&self.norms) {
            state = convolution.forward_packed(context, &state, rows)?;
            state = norm.forward_activated(context, &state, Activation::Relu)?;
            state = context.dropout(&state, self.dropout)?;
        }
        let output = self.projection.forward(context, &state)?;
        let (time, log_variance) = (self.bins..self.bins + 1, self.bins + 1..self.bins + 2);
        Ok(ShallowPrediction {
            mean: output.channels(0..self.bins)?,
            time: output.channels(time)?.activate(Activation::Sigmoid)?.mean_items(rows)?,
            log_variance: output.channels(log_variance)?.mean_items(rows)?,
        })
    }
}
