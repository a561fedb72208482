//! The look-ahead convolutions before an encoder, and the encoder that has nothing else.

use super::TokenLengths;
use crate::flow::rows::Rows;
use crate::flow::{FlowConfig, Result};
use flowmill_nn::init::Builder;
use flowmill_nn::layers::Conv1d;
use flowmill_nn::ops::Convolution;
use flowmill_nn::{Activation, Context, Ragged, Value};

/// Two convolutions with a residual, the first of which sees some tokens ahead.
#[derive(Debug, Clone)]
pub(super) struct PreLookahead {
    first: Conv1d,
    second: Conv1d,
}

impl PreLookahead {
    /// Creates the layer; the channels are those of the tokens, and those between the convolutions.
    pub(super) fn new(mut builder: Builder, [channels, inner]: [usize; 2], lookahead: usize) -> Result<Self> {
        let ahead = Convolution { padding: [0, lookahead], ..Convolution::default() };
        let first = Conv1d::new(builder.scope("conv1"), channels, inner, lookahead + 1, ahead)?;
        let second = Conv1d::new(builder.scope("conv2"), inner, channels, 3, Convolution::causal(3))?;
        Ok(Self { first, second })
    }

    pub(super) fn forward(&self, context: &Context, input: &Value, items: &Ragged) -> Result<Value> {
        let ahead = self.first.forward_packed(context, input, items)?.activate(Activation::LeakyRelu)?;
        Ok(self.second.forward_packed(context, &ahead, items)?.add(input)?)
    }
}

/// CosyVoice 3's way from tokens to frames: the look-ahead convolutions, and every token repeated.
#[derive(Debug, Clone)]
pub(in crate::flow) struct Repeated {
    pre_lookahead: PreLookahead,
    ratio: usize,
    channels: usize,
}

impl Repeated {
    /// Creates the encoder with `inner` channels between its convolutions.
    pub(super) fn new(mut builder: Builder, flow: &FlowConfig, inner: usize) -> Result<Self> {
        let (channels, scope) = (flow.input_size, builder.scope("pre_lookahead_layer"));
        let pre_lookahead = PreLookahead::new(scope, [channels, inner], flow.pre_lookahead_len)?;
        Ok(Self { pre_lookahead, ratio: flow.token_mel_ratio, channels })
    }

    /// Encodes embedded tokens; see [`Encoder::forward`](super::Encoder::forward).
    pub(super) fn forward(&self, context: &Context, tokens: &Value, lengths: &TokenLengths) -> Result<(Value, Rows)> {
        let given = lengths.given();
        let state = self.pre_lookahead.forward(context, tokens, &given)?;
        let state = state.pack_rows(&given.shortened(&lengths.all)?)?;
        let rows = lengths.rows()?;
        let frames = rows.repeated(self.ratio);
        let repeated = state.reshape(&[1, rows.all.total(), self.channels])?.repeat_frames(self.ratio)?;
        Ok((repeated.reshape(&[frames.all.total(), self.channels])?, frames))
    }
}
