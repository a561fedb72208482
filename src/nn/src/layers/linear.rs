//! Linear layers.

use crate::init::{Builder, Init};
use crate::{Activation, Context, ParameterId, Result, Value};

/// `x weight^T + bias`: parameters `weight` `[output, input]` and, where wanted, `bias` `[output]`.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: ParameterId,
    bias: Option<ParameterId>,
}

impl Linear {
    /// With a bias, initialised as PyTorch does.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(builder: Builder, inputs: usize, outputs: usize) -> Result<Self> {
        let init = Init::default_for(inputs);
        Self::with_init(builder, inputs, outputs, init, Some(init))
    }

    /// Without a bias.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn without_bias(builder: Builder, inputs: usize, outputs: usize) -> Result<Self> {
        Self::with_init(builder, inputs, outputs, Init::default_for(inputs), None)
    }

    /// With the given initial distributions; no bias when its distribution is absent.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn with_init(
        mut builder: Builder,
        inputs: usize,
        outputs: usize,
        weight: Init,
        bias: Option<Init>,
    ) -> Result<Self> {
        let weight = builder.add("weight", &[outputs, inputs], weight)?;
        let bias = bias.map(|bias| builder.add("bias", &[outputs], bias)).transpose()?;
        Ok(Self { weight, bias })
    }

    /// The weight `[output, input]`.
    pub fn weight(&self) -> ParameterId {
        self.weight
    }

    /// The bias `[output]`, if there is one.
    pub fn bias(&self) -> Option<ParameterId> {
        self.bias
    }

    fn values(&self, context: &Context) -> (Value, Option<Value>) {
        (context.parameter(self.weight), self.bias.map(|bias| context.parameter(bias)))
    }

    /// `[.., input]` to `[.., output]`.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn forward(&self, context: &Context, input: &Value) -> Result<Value> {
        let (weight, bias) = self.values(context);
        input.linear(&weight, bias.as_ref())
    }

    /// `f(x weight^T + bias)`.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn forward_activated(&self, context: &Context, input: &Value, activation: Activation) -> Result<Value> {
        let (weight, bias) = self.values(context);
        input.linear_activated(&weight, bias.as_ref(), activation)
    }

    /// `residual + x weight^T + bias`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward_onto(&self, context: &Context, input: &Value, residual: &Value) -> Result<Value> {
        let (weight, bias) = self.values(context);
        input.linear_onto(&weight, bias.as_ref(), Some(residual))
    }
}

/// Two linear layers with an activation between them.
#[derive(Debug, Clone)]
pub struct FeedForward {
    first: Linear,
    second: Linear,
    activation: Activation,
    dropout: f32,
}

impl FeedForward {
    /// From its two layers; `dropout` applies to the activations between them.
    pub fn new(first: Linear, second: Linear, activation: Activation, dropout: f32) -> Self {
        Self { first, second, activation, dropout }
    }

    /// `second(dropout(f(first(x))))`. One fused operation where nothing is dropped and both layers have biases.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, context: &Context, input: &Value) -> Result<Value> {
        let drops = context.is_training() && self.dropout > 0.0;
        let (w1, b1) = self.first.values(context);
        let (w2, b2) = self.second.values(context);
        if let (false, Some(b1), Some(b2)) = (drops, &b1, &b2) {
            return input.feed_forward([&w1, b1], [&w2, b2], self.activation, None);
        }
        let inner = input.linear_activated(&w1, b1.as_ref(), self.activation)?;
        context.dropout(&inner, self.dropout)?.linear(&w2, b2.as_ref())
    }

    /// `residual + dropout(second(dropout(f(first(x)))))`, the last dropout at rate `outer_dropout`. One fused operation where
    /// nothing is dropped and both layers have biases.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward_onto(
        &self,
        context: &Context,
        input: &Value,
        residual: &Value,
        outer_dropout: f32,
    ) -> Result<Value> {
        let drops = context.is_training() && (self.dropout > 0.0 || outer_dropout > 0.0);
        let (w1, b1) = self.first.values(context);
        let (w2, b2) = self.second.values(context);
        if let (false, Some(b1), Some(b2)) = (drops, &b1, &b2) {
            return input.feed_forward([&w1, b1], [&w2, b2], self.activation, Some(residual));
        }
        let inner = input.linear_activated(&w1, b1.as_ref(), self.activation)?;
        let inner = context.dropout(&inner, self.dropout)?;
        if !drops || outer_dropout == 0.0 {
            return inner.linear_onto(&w2, b2.as_ref(), Some(residual));
        }
        context.dropout(&inner.linear(&w2, b2.as_ref())?, outer_dropout)?.add(residual)
    }
}
