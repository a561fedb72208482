//! The encoder, the decoder and the codes between them.

use candle_core::Device;
use flowmill_nn::ops::Convolution as Settings;
use flowmill_nn::{Result, Value, host};

use super::dimensions::{STAGES, codebook_name};
use super::lstm::Lstm;
use super::{Checkpoint, Dimensions};
use crate::UnusableWeights;
use crate::residual_quantizer::ResidualQuantizer;
use crate::waveform::{Convolution, Upsampling, elu, sum};

/// A residual block: two convolutions after activations, next to a convolution of one tap.
struct Block {
    first: Convolution,
    second: Convolution,
    shortcut: Convolution,
}

impl Block {
    fn new(checkpoint: &Checkpoint, name: &str, device: &Device) -> std::result::Result<Self, UnusableWeights> {
        let part = |part: &str| checkpoint.convolution(&format!("{name}.{part}.conv"), Settings::default(), device);
        Ok(Self { first: part("block.1")?, second: part("block.3")?, shortcut: part("shortcut")? })
    }

    fn forward(&self, signal: &Value) -> Result<Value> {
        let inner = self.first.forward_causal(&elu(signal)?)?;
        sum(&self.shortcut.forward(signal)?, &self.second.forward(&elu(&inner)?)?)
    }
}

/// Turns sound into vectors, of which each stands for a frame.
pub struct Encoder {
    first: Convolution,
    stages: Vec<(Block, Convolution)>,
    lstm: Lstm,
    last: Convolution,
    hop_length: usize,
}

impl Encoder {
    /// The encoder of a checkpoint, to run on a device.
    ///
    /// # Errors
    /// When the weights cannot be copied to the device.
    pub fn new(checkpoint: &Checkpoint, device: &Device) -> std::result::Result<Self, UnusableWeights> {
        let stage = |stage: usize| {
            let stride = Settings { stride: checkpoint.dimensions().strides[stage], ..Settings::default() };
            let block = Block::new(checkpoint, &format!("encoder.layers.{}", 3 * stage + 1), device)?;
            Ok((block, checkpoint.convolution(&Dimensions::stride_name(stage), stride, device)?))
        };
        Ok(Self {
            first: checkpoint.convolution("encoder.layers.0.conv", Settings::default(), device)?,
            stages: (0..STAGES).map(stage).collect::<std::result::Result<_, UnusableWeights>>()?,
            lstm: Lstm::new(checkpoint, "encoder.layers.13.lstm")?,
            last: checkpoint.convolution("encoder.layers.15.conv", Settings::default(), device)?,
            hop_length: checkpoint.dimensions().hop_length(),
        })
    }

    /// Encodes samples at the model's rate: `[frame, channel]`, a frame for each hop that they begin.
    ///
    /// # Errors
    /// When there is no sample, or a device cannot compute it.
    pub fn encode(&self, samples: &[f32]) -> Result<Value> {
        let signal = Value::from_vec(samples.to_vec(), &[samples.len(), 1])?;
        let mut x = self.first.forward_causal(&signal)?;
        for (block, stride) in &self.stages {
            x = stride.forward_causal(&elu(&block.forward(&x)?)?)?;
        }
        self.last.forward_causal(&elu(&self.lstm.forward(&x)?)?)
    }

    /// Samples of a frame.
    pub fn hop_length(&self) -> usize {
        self.hop_length
    }
}

/// Turns vectors, of which each stands for a frame, into sound.
pub struct Decoder {
    first: Convolution,
    lstm: Lstm,
    stages: Vec<(Upsampling, Block)>,
    last: Convolution,
}

impl Decoder {
    /// The decoder of a checkpoint, to run on a device.
    ///
    /// # Errors
    /// When the weights cannot be copied to the device.
    pub fn new(checkpoint: &Checkpoint, device: &Device) -> std::result::Result<Self, UnusableWeights> {
        let stage = |stage: usize| {
            let upsampling = checkpoint.upsampling(&format!("decoder.layers.{}.conv", 3 * stage + 3), device)?;
            Ok((upsampling, Block::new(checkpoint, &format!("decoder.layers.{}", 3 * stage + 4), device)?))
        };
        Ok(Self {
            first: checkpoint.convolution("decoder.layers.0.conv", Settings::default(), device)?,
            lstm: Lstm::new(checkpoint, "decoder.layers.1.lstm")?,
            stages: (0..STAGES).map(stage).collect::<std::result::Result<_, UnusableWeights>>()?,
            last: checkpoint.convolution("decoder.layers.15.conv", Settings::default(), device)?,
        })
    }

    /// Decodes vectors `[frame, channel]` to samples, a hop for each frame.
    ///
    /// # Errors
    /// When the shape does not fit, or a device cannot compute it.
    pub fn decode(&self, frames: &Value) -> Result<Vec<f32>> {
        let mut x = self.lstm.forward(&self.first.forward_causal(frames)?)?;
        for (upsampling, block) in &self.stages {
            // Causal: what belongs to no input frame is cut at the end.
            x = block.forward(&upsampling.forward(&elu(&x)?, [0, upsampling.stride()])?)?;
        }
        host::read(self.last.forward_causal(&elu(&x)?)?.tensor())
    }
}

/// The quantizer of a checkpoint.
pub(super) fn quantizer(checkpoint: &Checkpoint) -> std::result::Result<ResidualQuantizer, UnusableWeights> {
    let Dimensions { levels, codes, hidden, .. } = *checkpoint.dimensions();
    let centers = (0..levels).map(|level| checkpoint.elements(&codebook_name(level)));
    let centers = centers.collect::<std::result::Result<Vec<_>, _>>()?.concat();
    Ok(ResidualQuantizer::new(&centers, [levels, codes, hidden]))
}
