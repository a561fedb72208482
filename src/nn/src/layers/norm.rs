//! Layer and group normalization with gain and bias, and normalization by the root mean square with gain.

use crate::init::{Builder, Init};
use crate::ops::Normalization;
use crate::{Activation, Context, NnError, ParameterId, Result, Value};

/// Layer normalization over the innermost axis: parameters `weight` and `bias` `[channel]`.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: ParameterId,
    bias: ParameterId,
    epsilon: f32,
}

impl LayerNorm {
    /// Creates the layer with gain 1 and bias 0.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(mut builder: Builder, channels: usize, epsilon: f32) -> Result<Self> {
        let weight = builder.add("weight", &[channels], Init::Constant(1.0))?;
        let bias = builder.add("bias", &[channels], Init::Constant(0.0))?;
        Ok(Self { weight, bias, epsilon })
    }

    /// Normalizes `[.., channel]`.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn forward(&self, context: &Context, input: &Value) -> Result<Value> {
        self.forward_activated(context, input, Activation::Identity)
    }

    /// Normalizes `[.., channel]`, then applies an activation, in one pass.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn forward_activated(&self, context: &Context, input: &Value, activation: Activation) -> Result<Value> {
        let (weight, bias) = (context.parameter(self.weight), context.parameter(self.bias));
        input.layer_norm(Some(&weight), Some(&bias), Normalization { epsilon: self.epsilon, activation })
    }
}

/// Normalization by the root mean square over the innermost axis: parameter `weight` `[channel]`.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    weight: ParameterId,
    epsilon: f32,
}

impl RmsNorm {
    /// Creates the layer with gain 1.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn new(mut builder: Builder, channels: usize, epsilon: f32) -> Result<Self> {
        let weight = builder.add("weight", &[channels], Init::Constant(1.0))?;
        Ok(Self { weight, epsilon })
    }

    /// The gain `[channel]`.
    pub fn weight(&self) -> ParameterId {
        self.weight
    }

    /// Normalizes `[.., channel]`.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn forward(&self, context: &Context, input: &Value) -> Result<Value> {
        input.rms_norm(&context.parameter(self.weight), self.epsilon)
    }
}

/// Group normalization of images or sequences: parameters `weight` and `bias` `[channel]`.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    weight: ParameterId,
    bias: ParameterId,
    groups: usize,
    epsilon: f32,
}

impl GroupNorm {
    /// Creates the layer with gain 1 and bias 0.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(mut builder: Builder, groups: usize, channels: usize, epsilon: f32) -> Result<Self> {
        let weight = builder.add("weight", &[channels], Init::Constant(1.0))?;
        let bias = builder.add("bias", &[channels], Init::Constant(0.0))?;
        Ok(Self { weight, bias, groups, epsilon })
    }

    /// Normalizes the groups of channels of each item, `[item, .., channel]`, then applies an activation; see [`Value::group_norm`].
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn forward_activated(&self, context: &Context, input: &Value, activation: Activation) -> Result<Value> {
        let (weight, bias) = (context.parameter(self.weight), context.parameter(self.bias));
        let &[items, .., channels] = input.dims() else {
            return Err(NnError::shape("group norm", "[item, .., channel]", input.dims()));
        };
        let places = input.rows() / items.max(1);
        let rows = input.reshape(&[items, places, channels])?;
        let settings = Normalization { epsilon: self.epsilon, activation };
        rows.group_norm(self.groups, &weight, &bias, settings)?.reshape(input.dims())
    }
}
