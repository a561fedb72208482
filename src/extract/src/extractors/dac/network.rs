//! The encoder and the decoder.

use candle_core::{Device, Tensor};
use flowmill_nn::ops::Convolution as Settings;
use flowmill_nn::{NnError, Result, Value, host};

use super::Checkpoint;
use super::dimensions::{DILATIONS, KERNEL, LAST_KERNEL, down_name, up_name};
use crate::UnusableWeights;
use crate::waveform::{Convolution, Upsampling, in_tiles, snake, sum};

type Loaded<T> = std::result::Result<T, UnusableWeights>;

/// A Snake activation.
struct Snake(Tensor);

impl Snake {
    fn new(checkpoint: &Checkpoint, name: &str, device: &Device) -> Loaded<Self> {
        let alpha = checkpoint.tensor(&format!("{name}.alpha"))?;
        let alpha = alpha.flatten_all().and_then(|alpha| alpha.to_device(device)).map_err(NnError::from)?;
        Ok(Self(alpha))
    }

    fn forward(&self, signal: &Value) -> Result<Value> {
        snake(signal, &self.0)
    }
}

/// A convolution that keeps the number of frames.
fn centered(kernel: usize) -> Settings {
    let padding = (kernel - 1) / 2;
    Settings { padding: [padding, padding], ..Settings::default() }
}

/// A residual unit: a dilated convolution and one of one tap, each after an activation.
struct Unit {
    first: (Snake, Convolution),
    second: (Snake, Convolution),
    /// Frames that a frame of the result sees to either side.
    reach: usize,
}

impl Unit {
    fn new(checkpoint: &Checkpoint, name: &str, dilation: usize, device: &Device) -> Loaded<Self> {
        let convolution =
            |part: &str, settings: Settings| checkpoint.convolution(&format!("{name}.{part}"), settings, device);
        let snake = |part: &str| Snake::new(checkpoint, &format!("{name}.{part}"), device);
        Ok(Self {
            first: (snake("block.0")?, convolution("block.1", Settings { dilation, ..Settings::default() })?),
            second: (snake("block.2")?, convolution("block.3", Settings::default())?),
            reach: (KERNEL - 1) / 2 * dilation,
        })
    }

    fn forward(&self, signal: &Value) -> Result<Value> {
        // Snake of zero is zero, so zeros around the signal are zeros around what the convolution gets.
        in_tiles(signal, self.reach, |padded| {
            let inner = self.first.1.forward(&self.first.0.forward(padded)?)?;
            let result = self.second.1.forward(&self.second.0.forward(&inner)?)?;
            let own = padded.tensor().narrow(0, self.reach, result.rows())?;
            sum(&Value::plain(own)?, &result)
        })
    }
}

/// The residual units of a block, which are numbered from `first`.
fn units(checkpoint: &Checkpoint, block: &str, first: usize, device: &Device) -> Loaded<Vec<Unit>> {
    let unit = |(index, dilation): (usize, usize)| {
        Unit::new(checkpoint, &format!("{block}.{}", first + index), dilation, device)
    };
    DILATIONS.into_iter().enumerate().map(unit).collect()
}

fn through(units: &[Unit], signal: Value) -> Result<Value> {
    units.iter().try_fold(signal, |signal, unit| unit.forward(&signal))
}

/// Turns sound into vectors, of which each stands for a frame.
pub struct Encoder {
    first: Convolution,
    blocks: Vec<(Vec<Unit>, Snake, Convolution)>,
    last: (Snake, Convolution),
    hop_length: usize,
}

impl Encoder {
    /// The encoder of a checkpoint, to run on a device.
    ///
    /// # Errors
    /// When the weights cannot be copied to the device.
    pub fn new(checkpoint: &Checkpoint, device: &Device) -> Loaded<Self> {
        let rates = &checkpoint.dimensions().encoder_rates;
        let hop_length = checkpoint.dimensions().hop_length();
        let hop_length = hop_length.ok_or_else(|| UnusableWeights("the strides of both networks differ".to_owned()))?;
        let block = |(block, rate): (usize, &usize)| {
            let name = format!("encoder.block.{}.block", block + 1);
            let padding = rate.div_ceil(2);
            let stride = Settings { stride: *rate, padding: [padding, padding], ..Settings::default() };
            let snake = Snake::new(checkpoint, &format!("{name}.3"), device)?;
            Ok((
                units(checkpoint, &name, 0, device)?,
                snake,
                checkpoint.convolution(&down_name(block), stride, device)?,
            ))
        };
        let (snake, last) =
            (format!("encoder.block.{}", rates.len() + 1), format!("encoder.block.{}", rates.len() + 2));
        Ok(Self {
            first: checkpoint.convolution("encoder.block.0", centered(KERNEL), device)?,
            blocks: rates.iter().enumerate().map(block).collect::<Loaded<_>>()?,
            last: (
                Snake::new(checkpoint, &snake, device)?,
                checkpoint.convolution(&last, centered(LAST_KERNEL), device)?,
            ),
            hop_length,
        })
    }

    /// Encodes samples at the model's rate: `[frame, channel]`, a frame for each hop that they begin; zeros fill the last one.
    ///
    /// # Errors
    /// When there is no sample, or a device cannot compute it.
    pub fn encode(&self, samples: &[f32]) -> Result<Value> {
        let mut samples = samples.to_vec();
        samples.resize(samples.len().next_multiple_of(self.hop_length.max(1)), 0.0);
        let length = samples.len();
        let mut x = self.first.forward(&Value::from_vec(samples, &[length, 1])?)?;
        for (units, snake, stride) in &self.blocks {
            x = stride.forward(&snake.forward(&through(units, x)?)?)?;
        }
        self.last.1.forward(&self.last.0.forward(&x)?)
    }
}

/// Turns vectors, of which each stands for a frame, into sound.
pub struct Decoder {
    first: Convolution,
    blocks: Vec<(Snake, Upsampling, Vec<Unit>)>,
    last: (Snake, Convolution),
}

impl Decoder {
    /// The decoder of a checkpoint, to run on a device.
    ///
    /// # Errors
    /// When the weights cannot be copied to the device.
    pub fn new(checkpoint: &Checkpoint, device: &Device) -> Loaded<Self> {
        let blocks = checkpoint.dimensions().decoder_rates.len();
        let block = |block: usize| {
            let name = format!("decoder.model.{}.block", block + 1);
            let snake = Snake::new(checkpoint, &format!("{name}.0"), device)?;
            Ok((snake, checkpoint.upsampling(&up_name(block), device)?, units(checkpoint, &name, 2, device)?))
        };
        let (snake, last) = (format!("decoder.model.{}", blocks + 1), format!("decoder.model.{}", blocks + 2));
        Ok(Self {
            first: checkpoint.convolution("decoder.model.0", centered(KERNEL), device)?,
            blocks: (0..blocks).map(block).collect::<Loaded<_>>()?,
            last: (Snake::new(checkpoint, &snake, device)?, checkpoint.convolution(&last, centered(KERNEL), device)?),
        })
    }

    /// Decodes vectors `[frame, channel]` to samples, a hop for each frame; fewer by some if a stride is odd.
    ///
    /// # Errors
    /// When the shape does not fit, or a device cannot compute it.
    pub fn decode(&self, frames: &Value) -> Result<Vec<f32>> {
        let mut x = self.first.forward(frames)?;
        for (snake, upsampling, units) in &self.blocks {
            let cut = upsampling.stride().div_ceil(2);
            x = through(units, upsampling.forward(&snake.forward(&x)?, [cut, cut])?)?;
        }
        let samples = host::read(self.last.1.forward(&self.last.0.forward(&x)?)?.tensor())?;
        Ok(samples.into_iter().map(f32::tanh).collect())
    }
}
