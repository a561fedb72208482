//! Residual blocks of dilated convolutions.

use candle_core::Tensor;
use flowmill_extract::waveform::{Convolution, in_tiles, leaky_relu, snake, sum};
use flowmill_nn::{Result, Value};

use super::weights::{Loaded, Tensors};

/// The form of residual blocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum BlockForm {
    /// HiFi-GAN's `ResBlock1`: a dilated convolution and one without dilation, each after a leaky rectifier of this slope.
    Double(f32),
    /// HiFi-GAN's `ResBlock2`: a dilated convolution after a leaky rectifier of this slope.
    Single(f32),
    /// HiFT's: as [`Double`](Self::Double), with the activation Snake.
    Snake,
}

impl BlockForm {
    /// Returns the names of the convolutions of a unit.
    fn convolutions(self) -> &'static [&'static str] {
        match self {
            Self::Single(_) => &["convs"],
            Self::Double(_) | Self::Snake => &["convs1", "convs2"],
        }
    }
}

enum Activation {
    Leaky(f32),
    Snake(Tensor),
}

/// An activation and a convolution.
struct Step {
    activation: Activation,
    convolution: Convolution,
    /// Frames that a frame of the result sees to either side.
    reach: usize,
}

impl Step {
    fn forward(&self, signal: &Value) -> Result<Value> {
        // Both activations keep zeros, so zeros around the signal are zeros around what the convolution gets.
        in_tiles(signal, self.reach, |padded| {
            self.convolution.forward(&match &self.activation {
                Activation::Leaky(slope) => leaky_relu(padded, *slope)?,
                Activation::Snake(frequencies) => snake(padded, frequencies)?,
            })
        })
    }
}

/// A residual block: units of one or two convolutions, each added to its input.
pub(super) struct Block(Vec<Vec<Step>>);

impl Block {
    /// Takes a block's weights. The published dilations of a block with as many units are the default.
    pub(super) fn new(
        tensors: &mut Tensors<'_>,
        name: &str,
        channels: usize,
        form: BlockForm,
        dilations: Option<&[usize]>,
    ) -> Loaded<Self> {
        let [first, ..] = form.convolutions() else { return Ok(Self(Vec::new())) };
        let taps = tensors.needed_axis(&format!("{name}.{first}.0.weight"), 2)?;
        let dilations = dilations.unwrap_or(default_dilations(form, taps));
        let mut units = Vec::new();
        for (unit, dilation) in dilations.iter().enumerate() {
            let mut steps = Vec::new();
            for (number, convolution) in form.convolutions().iter().enumerate() {
                let dilation = if number == 0 { *dilation } else { 1 };
                let shape = [channels, channels, taps];
                let layer = format!("{name}.{convolution}.{unit}");
                let (convolution, reach) = tensors.centered(&layer, shape, dilation, false)?;
                let activation = match form {
                    BlockForm::Double(slope) | BlockForm::Single(slope) => Activation::Leaky(slope),
                    BlockForm::Snake => {
                        let alpha = format!("{name}.activations{}.{unit}.alpha", number + 1);
                        Activation::Snake(tensors.take(&alpha, &[channels])?)
                    }
                };
                steps.push(Step { activation, convolution, reach });
            }
            units.push(steps);
        }
        Ok(Self(units))
    }

    pub(super) fn forward(&self, signal: &Value) -> Result<Value> {
        self.0.iter().try_fold(signal.clone(), |signal, steps| {
            let inner = steps.iter().try_fold(signal.clone(), |inner, step| step.forward(&inner))?;
            sum(&signal, &inner)
        })
    }

    /// Returns the number of frames that a frame of the result sees to either side.
    pub(super) fn reach(&self) -> usize {
        self.0.iter().flatten().map(|step| step.reach).sum()
    }
}

/// Returns the published dilations: of version 3 of HiFi-GAN by the number of taps, and of all other networks.
fn default_dilations(form: BlockForm, taps: usize) -> &'static [usize] {
    match (form, taps) {
        (BlockForm::Single(_), 3) => &[1, 2],
        (BlockForm::Single(_), 5) => &[2, 6],
        (BlockForm::Single(_), _) => &[3, 12],
        _ => &[1, 3, 5],
    }
}
