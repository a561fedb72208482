//! Convolutions over time and over images.

use crate::init::{Builder, Init};
use crate::ops::{Convolution, Convolution2d, concatenate};
use crate::{Context, NnError, ParameterId, Ragged, Result, Value};

/// Convolution over time, channels innermost: parameters `weight` `[output, input, tap]` and `bias` `[output]`.
#[derive(Debug, Clone)]
pub struct Conv1d {
    weight: ParameterId,
    bias: ParameterId,
    settings: Convolution,
}

impl Conv1d {
    /// Creates the layer with PyTorch's default initialization.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(builder: Builder, inputs: usize, outputs: usize, kernel: usize, settings: Convolution) -> Result<Self> {
        let init = Init::default_for(inputs * kernel);
        Self::with_init(builder, [outputs, inputs, kernel], settings, init, init)
    }

    /// Creates the layer with the given initial distributions; `shape` is `[output, input, tap]`.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn with_init(
        mut builder: Builder,
        shape: [usize; 3],
        settings: Convolution,
        weight: Init,
        bias: Init,
    ) -> Result<Self> {
        let weight = builder.add("weight", &shape, weight)?;
        let bias = builder.add("bias", &shape[..1], bias)?;
        Ok(Self { weight, bias, settings })
    }

    /// Convolves a padded batch `[item, time, input]`; see [`Value::conv1d`].
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn forward(&self, context: &Context, input: &Value, lengths: Option<&[usize]>) -> Result<Value> {
        let (weight, bias) = (context.parameter(self.weight), context.parameter(self.bias));
        input.conv1d(&weight, Some(&bias), self.settings, lengths)
    }

    /// Convolves a packed batch `[row, input]`; see [`Value::conv1d_packed`].
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn forward_packed(&self, context: &Context, input: &Value, items: &Ragged) -> Result<Value> {
        let (weight, bias) = (context.parameter(self.weight), context.parameter(self.bias));
        input.conv1d_packed(&weight, Some(&bias), self.settings, items)
    }
}

/// Convolution over time in groups of channels, channels innermost: each group of output channels reads one group of input channels.
/// Parameters `weight` `[output, input of a group, tap]` and `bias` `[output]`.
#[derive(Debug, Clone)]
pub struct GroupedConv1d {
    weight: ParameterId,
    bias: ParameterId,
    groups: usize,
    settings: Convolution,
}

impl GroupedConv1d {
    /// Creates the layer with PyTorch's default initialization; `channels` is the number of input channels and of output channels.
    ///
    /// # Errors
    /// When the channels cannot be divided into groups, or a name is taken.
    pub fn new(
        mut builder: Builder,
        channels: usize,
        groups: usize,
        kernel: usize,
        settings: Convolution,
    ) -> Result<Self> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(NnError::invalid("grouped convolution", format!("{channels} channels in {groups} groups")));
        }
        let inputs = channels / groups;
        let init = Init::default_for(inputs * kernel);
        let weight = builder.add("weight", &[channels, inputs, kernel], init)?;
        let bias = builder.add("bias", &[channels], init)?;
        Ok(Self { weight, bias, groups, settings })
    }

    /// Convolves a packed batch `[row, input]`; see [`Value::conv1d_packed`].
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn forward_packed(&self, context: &Context, input: &Value, items: &Ragged) -> Result<Value> {
        let weight = context.parameter(self.weight);
        let &[channels, inputs, kernel] = weight.dims() else {
            return Err(NnError::shape("grouped convolution", "[output, input, tap]", weight.dims()));
        };
        let (rows, groups) = (input.rows(), self.groups);
        if input.dims() != [rows, channels] {
            return Err(NnError::shape("grouped convolution", format!("[row, {channels}]"), input.dims()));
        }
        // One row for each group, of weights and of inputs.
        let weights = weight.reshape(&[groups, channels / groups * inputs * kernel])?;
        let inputs_of = input.reshape(&[rows, groups, inputs])?.swap_middle()?.reshape(&[groups, rows * inputs])?;
        let convolve = |group: usize| {
            let weight = weights.select_rows(&[group])?.reshape(&[channels / groups, inputs, kernel])?;
            let input = inputs_of.select_rows(&[group])?.reshape(&[rows, inputs])?;
            input.conv1d_packed(&weight, None, self.settings, items)
        };
        let outputs = (0..groups).map(convolve).collect::<Result<Vec<_>>>()?;
        concatenate(&outputs.iter().collect::<Vec<_>>())?.add_channels(&context.parameter(self.bias))
    }
}

/// Transposed convolution over time, channels innermost: parameters `weight` `[input, output, tap]` and `bias` `[output]`.
#[derive(Debug, Clone)]
pub struct ConvTranspose1d {
    weight: ParameterId,
    bias: ParameterId,
    stride: usize,
}

impl ConvTranspose1d {
    /// Creates the layer with PyTorch's default initialization; `shape` is `[input, output, tap]`.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(mut builder: Builder, shape: [usize; 3], stride: usize) -> Result<Self> {
        let [_, outputs, kernel] = shape;
        let init = Init::default_for(outputs * kernel);
        let weight = builder.add("weight", &shape, init)?;
        let bias = builder.add("bias", &shape[1..2], init)?;
        Ok(Self { weight, bias, stride })
    }

    /// Computes `stride` frames for each row of a packed batch `[row, input]`; see [`Value::conv_transpose1d_packed`].
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn forward_packed(&self, context: &Context, input: &Value, items: &Ragged) -> Result<Value> {
        let (weight, bias) = (context.parameter(self.weight), context.parameter(self.bias));
        input.conv_transpose1d_packed(&weight, &bias, self.stride, items)
    }
}

/// Convolution of images, channels innermost: parameters `weight` `[output, input, tap, tap]` and an optional `bias` `[output]`.
#[derive(Debug, Clone)]
pub struct Conv2d {
    weight: ParameterId,
    bias: Option<ParameterId>,
    settings: Convolution2d,
}

impl Conv2d {
    /// Creates the layer with a bias and PyTorch's default initialization; `kernel` is the size of the window along both axes.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(
        mut builder: Builder,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        settings: Convolution2d,
    ) -> Result<Self> {
        let layer = Self::without_bias(builder.scope_here(), inputs, outputs, kernel, settings)?;
        Ok(Self { bias: Some(builder.add("bias", &[outputs], Self::init(inputs, kernel))?), ..layer })
    }

    /// PyTorch's default initialization.
    fn init(inputs: usize, kernel: usize) -> Init {
        Init::default_for(inputs.saturating_mul(kernel).saturating_mul(kernel))
    }

    /// Creates the layer without a bias.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn without_bias(
        mut builder: Builder,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        settings: Convolution2d,
    ) -> Result<Self> {
        let init = Init::default_for(inputs.saturating_mul(kernel).saturating_mul(kernel));
        let weight = builder.add("weight", &[outputs, inputs, kernel, kernel], init)?;
        Ok(Self { weight, bias: None, settings })
    }

    /// Convolves a batch of images `[item, height, width, input]`; see [`Value::conv2d`].
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn forward(&self, context: &Context, input: &Value) -> Result<Value> {
        let bias = self.bias.map(|bias| context.parameter(bias));
        input.conv2d(&context.parameter(self.weight), bias.as_ref(), self.settings)
    }
}
