//! Layers of long short-term memory with a skip connection.

use flowmill_nn::inference::Linear;
use flowmill_nn::{Activation, Result, Value, host};

use super::Checkpoint;
use super::dimensions::LSTM_LAYERS;
use crate::UnusableWeights;

/// Stacked LSTM layers; the result is added to the input. They run on the CPU.
pub(super) struct Lstm {
    layers: Vec<Layer>,
}

/// A layer: the gates of a frame are a linear function of the frame and of the previous output.
struct Layer {
    of_input: Linear,
    of_output: Linear,
}

impl Lstm {
    /// The layers under a name.
    pub(super) fn new(checkpoint: &Checkpoint, name: &str) -> std::result::Result<Self, UnusableWeights> {
        let layer = |layer: usize| {
            let part = |part: &str| checkpoint.tensor(&format!("{name}.{part}_l{layer}"));
            // Both biases are added to the same gates.
            let bias = (part("bias_ih")? + part("bias_hh")?).map_err(flowmill_nn::NnError::from)?;
            let of_input = Linear::new(part("weight_ih")?, Some(&bias))?;
            Ok(Layer { of_input, of_output: Linear::new(part("weight_hh")?, None)? })
        };
        Ok(Self { layers: (0..LSTM_LAYERS).map(layer).collect::<std::result::Result<_, UnusableWeights>>()? })
    }

    /// Runs all layers over a signal `[frame, channel]`.
    pub(super) fn forward(&self, signal: &Value) -> Result<Value> {
        let device = signal.tensor().device().clone();
        let input = Value::plain(host::fetch(signal.tensor())?)?;
        let mut x = input.clone();
        for layer in &self.layers {
            x = layer.forward(&x)?;
        }
        crate::waveform::sum(&x, &input)?.on(&device)
    }
}

impl Layer {
    fn forward(&self, signal: &Value) -> Result<Value> {
        let (frames, channels) = (signal.rows(), self.of_output.inputs());
        let of_inputs = self.of_input.forward(signal, Activation::Identity)?;
        let of_inputs = host::slice("lstm", of_inputs.tensor())?;
        let mut outputs = Vec::with_capacity(frames * channels);
        let (mut cell, mut output) = (vec![0.0f32; channels], vec![0.0f32; channels]);
        for of_input in of_inputs.chunks_exact((4 * channels).max(1)) {
            let previous = Value::from_vec(output, &[1, channels])?;
            let of_output = self.of_output.forward(&previous, Activation::Identity)?;
            let of_output = host::slice("lstm", of_output.tensor())?;
            // The gates in PyTorch's order: input, forget, cell, output.
            let gate = |gate: usize, channel: usize| {
                of_input[gate * channels + channel] + of_output[gate * channels + channel]
            };
            output = Vec::with_capacity(channels);
            for (channel, cell) in cell.iter_mut().enumerate() {
                let new = sigmoid(gate(0, channel)) * gate(2, channel).tanh();
                *cell = sigmoid(gate(1, channel)) * *cell + new;
                output.push(sigmoid(gate(3, channel)) * cell.tanh());
            }
            outputs.extend_from_slice(&output);
        }
        Value::from_vec(outputs, &[frames, channels])
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
