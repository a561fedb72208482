//! Linear layers.

use crate::init::{Builder, Init};
use crate::low_rank::LowRank;
use crate::{Activation, Context, ParameterId, Result, Value};

/// `x weight^T + bias`: parameters `weight` `[output, input]` and an optional `bias` `[output]`. If the weight has an adapter
/// ([`low_rank`](crate::low_rank)), its contribution is added.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: ParameterId,
    bias: Option<ParameterId>,
}

impl Linear {
    /// Creates a layer with a bias and PyTorch's default initialization.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(builder: Builder, inputs: usize, outputs: usize) -> Result<Self> {
        let init = Init::default_for(inputs);
        Self::with_init(builder, inputs, outputs, init, Some(init))
    }

    /// Creates a layer without a bias.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn without_bias(builder: Builder, inputs: usize, outputs: usize) -> Result<Self> {
        Self::with_init(builder, inputs, outputs, Init::default_for(inputs), None)
    }

    /// Creates a layer with the given initial distributions; without a distribution for the bias there is no bias.
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
        let weight = builder.add_linear([outputs, inputs], weight)?;
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

    /// Maps `[.., input]` to `[.., output]`.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn forward(&self, context: &Context, input: &Value) -> Result<Value> {
        let (weight, bias) = self.values(context);
        let beside = self.beside(context, input, None)?;
        input.linear_onto(&weight, bias.as_ref(), beside.as_ref())
    }

    fn is_adapted(&self, context: &Context) -> bool {
        context.parameters().low_rank(self.weight).is_some()
    }

    /// Returns the value that `x weight^T + bias` is added to: the residual plus the contribution of the adapter, if any.
    fn beside(&self, context: &Context, input: &Value, residual: Option<&Value>) -> Result<Option<Value>> {
        let Some(LowRank { down, up, settings }) = context.parameters().low_rank(self.weight) else {
            return Ok(residual.cloned());
        };
        let input = context.dropout(input, settings.dropout)?;
        let inner = input.linear(&context.parameter(down), None)?.affine(settings.scale, 0.0)?;
        inner.linear_onto(&context.parameter(up), None, residual).map(Some)
    }

    /// `f(x weight^T + bias)`.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn forward_activated(&self, context: &Context, input: &Value, activation: Activation) -> Result<Value> {
        if self.is_adapted(context) {
            return self.forward(context, input)?.activate(activation);
        }
        let (weight, bias) = self.values(context);
        input.linear_activated(&weight, bias.as_ref(), activation)
    }

    /// `residual + x weight^T + bias`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward_onto(&self, context: &Context, input: &Value, residual: &Value) -> Result<Value> {
        let (weight, bias) = self.values(context);
        let beside = self.beside(context, input, Some(residual))?;
        input.linear_onto(&weight, bias.as_ref(), beside.as_ref())
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
    /// Creates the block from its two layers; `dropout` applies to the activations between them.
    pub fn new(first: Linear, second: Linear, activation: Activation, dropout: f32) -> Self {
        Self { first, second, activation, dropout }
    }

    /// `second(dropout(f(first(x))))`. One fused operation if nothing is dropped and both layers have biases.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, context: &Context, input: &Value) -> Result<Value> {
        let drops = context.is_training() && self.dropout > 0.0;
        if let (false, Some((first, second))) = (drops, self.fusible(context)) {
            return input.feed_forward(first.each_ref(), second.each_ref(), self.activation, None);
        }
        let inner = self.first.forward_activated(context, input, self.activation)?;
        self.second.forward(context, &context.dropout(&inner, self.dropout)?)
    }

    /// Weights and biases of both layers if they can be one operation: both have biases and neither has an adapter.
    fn fusible(&self, context: &Context) -> Option<([Value; 2], [Value; 2])> {
        if self.first.is_adapted(context) || self.second.is_adapted(context) {
            return None;
        }
        let ((w1, b1), (w2, b2)) = (self.first.values(context), self.second.values(context));
        Some(([w1, b1?], [w2, b2?]))
    }

    /// `residual + dropout(second(dropout(f(first(x)))))`, the last dropout at rate `outer_dropout`. One fused operation if
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
        if let (false, Some((first, second))) = (drops, self.fusible(context)) {
            return input.feed_forward(first.each_ref(), second.each_ref(), self.activation, Some(residual));
        }
        let inner = self.first.forward_activated(context, input, self.activation)?;
        let inner = context.dropout(&inner, self.dropout)?;
        if !drops || outer_dropout == 0.0 {
            return self.second.forward_onto(context, &inner, residual);
        }
        context.dropout(&self.second.forward(context, &inner)?, outer_dropout)?.add(residual)
    }
}
