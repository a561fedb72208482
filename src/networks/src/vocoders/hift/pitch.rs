//! The network from a mel to its pitch.

use flowmill_extract::waveform::{Convolution, elu};
use flowmill_nn::inference::Linear;
use flowmill_nn::{Activation, Result, Value, host};

use super::super::weights::{Loaded, Tensors};

/// Taps of the convolutions.
const TAPS: usize = 3;

/// Convolutions and a linear layer.
pub(super) struct PitchPredictor {
    convolutions: Vec<Convolution>,
    classifier: Linear,
}

impl PitchPredictor {
    pub(super) fn new(tensors: &mut Tensors<'_>, bands: usize) -> Loaded<Self> {
        // Activations are the modules with odd numbers.
        let name = |number: usize| format!("f0_predictor.condnet.{}", 2 * number);
        let mut inputs = bands;
        let mut convolutions = Vec::new();
        for number in 0.. {
            let name = name(number);
            let channels = tensors.axis(&format!("{name}.weight"), 0);
            if channels == 0 {
                break;
            }
            convolutions.push(tensors.centered(&name, [channels, inputs, TAPS], 1, true)?.0);
            inputs = channels;
        }
        let classifier = tensors.linear("f0_predictor.classifier", [1, inputs])?;
        Ok(Self { convolutions, classifier })
    }

    /// Returns the number of frames before and after a frame that its pitch depends on.
    pub(super) fn reach(&self) -> usize {
        self.convolutions.len() * (TAPS / 2)
    }

    /// Returns the pitch of each frame in hertz.
    pub(super) fn forward(&self, mel: &Value) -> Result<Vec<f32>> {
        let mut x = mel.clone();
        for convolution in &self.convolutions {
            x = elu(&convolution.forward(&x)?)?;
        }
        let pitch = host::read(self.classifier.forward(&x, Activation::Identity)?.tensor())?;
        Ok(pitch.into_iter().map(f32::abs).collect())
    }
}
