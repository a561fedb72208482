//! CosyVoice 2's estimator: a causal one-dimensional U-Net whose residual blocks are followed by transformer blocks.

use crate::flow::{Result, UNetConfig};
use flowmill_nn::init::{Builder, Init};
use flowmill_nn::layers::{Conv1d, ConvTranspose1d, FeedForward, LayerNorm, Linear, sinusoidal_time};
use flowmill_nn::ops::{Attention, Convolution, concatenate};
use flowmill_nn::{Activation, AttentionMask, Context, Ragged, Value};
use std::rc::Rc;

pub(in crate::flow) const EPSILON: f32 = 1e-5;
pub(in crate::flow) const TAPS: usize = 3;
/// The number of frames of a level that become one frame of the next.
pub(in crate::flow) const HALF: usize = 2;

/// Returns the number of channels of the time embedding.
fn time_channels(config: &UNetConfig) -> usize {
    4 * config.channels[0]
}

/// Creates a linear layer with Kaiming normal weights and zero biases, like the published estimator.
fn linear(builder: Builder, inputs: usize, outputs: usize, with_bias: bool) -> Result<Linear> {
    let bias = with_bias.then_some(Init::Constant(0.0));
    Ok(Linear::with_init(builder, inputs, outputs, Init::kaiming_normal(inputs), bias)?)
}

fn causal_conv(builder: Builder, inputs: usize, outputs: usize, kernel: usize) -> Result<Conv1d> {
    let shape = [outputs, inputs, kernel];
    let (weight, bias) = (Init::kaiming_normal(inputs * kernel), Init::Constant(0.0));
    Ok(Conv1d::with_init(builder, shape, Convolution::causal(kernel), weight, bias)?)
}

/// Causal convolution, layer norm, Mish.
#[derive(Debug, Clone)]
struct ConvBlock {
    conv: Conv1d,
    norm: LayerNorm,
}

impl ConvBlock {
    fn new(mut builder: Builder, inputs: usize, outputs: usize) -> Result<Self> {
        let mut builder = builder.scope("block");
        let conv = causal_conv(builder.scope(0), inputs, outputs, TAPS)?;
        Ok(Self { conv, norm: LayerNorm::new(builder.scope(2), outputs, EPSILON)? })
    }

    fn forward(&self, context: &Context, input: &Value, items: &Ragged) -> Result<Value> {
        let output = self.conv.forward_packed(context, input, items)?;
        Ok(self.norm.forward_activated(context, &output, Activation::Mish)?)
    }
}

/// Two convolution blocks with the time added between them, around a projected residual.
#[derive(Debug, Clone)]
struct ResnetBlock {
    time: Linear,
    first: ConvBlock,
    second: ConvBlock,
    residual: Conv1d,
}

impl ResnetBlock {
    fn new(mut builder: Builder, inputs: usize, outputs: usize, time_channels: usize) -> Result<Self> {
        let time = linear(builder.scope("mlp").scope(1), time_channels, outputs, true)?;
        Ok(Self {
            time,
            first: ConvBlock::new(builder.scope("block1"), inputs, outputs)?,
            second: ConvBlock::new(builder.scope("block2"), outputs, outputs)?,
            residual: causal_conv(builder.scope("res_conv"), inputs, outputs, 1)?,
        })
    }

    /// Runs the block; `time` is the activated time embedding `[item, channel]`.
    fn forward(&self, context: &Context, input: &Value, time: &Value, items: &Ragged) -> Result<Value> {
        let state = self.first.forward(context, input, items)?;
        let state = state.add_items(&self.time.forward(context, time)?, items)?;
        let state = self.second.forward(context, &state, items)?;
        Ok(state.add(&self.residual.forward_packed(context, input, items)?)?)
    }
}

/// Self-attention and feed-forward, each after a norm and around a residual.
#[derive(Debug, Clone)]
struct TransformerBlock {
    attention_norm: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    feed_forward_norm: LayerNorm,
    feed_forward: FeedForward,
    heads: usize,
    dropout: f32,
}

impl TransformerBlock {
    fn new(mut builder: Builder, channels: usize, config: &UNetConfig) -> Result<Self> {
        let inner = config.num_heads * config.attention_head_dim;
        let attention_norm = LayerNorm::new(builder.scope("norm1"), channels, EPSILON)?;
        let mut attention = builder.scope("attn1");
        let query = linear(attention.scope("to_q"), channels, inner, false)?;
        let key = linear(attention.scope("to_k"), channels, inner, false)?;
        let value = linear(attention.scope("to_v"), channels, inner, false)?;
        let out = linear(attention.scope("to_out").scope(0), inner, channels, true)?;
        let feed_forward_norm = LayerNorm::new(builder.scope("norm3"), channels, EPSILON)?;
        let mut net = builder.scope("ff");
        let mut net = net.scope("net");
        let first = linear(net.scope(0).scope("proj"), channels, 4 * channels, true)?;
        let second = linear(net.scope(2), 4 * channels, channels, true)?;
        Ok(Self {
            attention_norm,
            query,
            key,
            value,
            out,
            feed_forward_norm,
            feed_forward: FeedForward::new(first, second, Activation::Gelu, config.dropout),
            heads: config.num_heads,
            dropout: config.dropout,
        })
    }

    fn forward(
        &self,
        context: &Context,
        input: &Value,
        items: &Ragged,
        attention_mask: AttentionMask,
    ) -> Result<Value> {
        let normal = self.attention_norm.forward(context, input)?;
        let query = self.query.forward(context, &normal)?;
        let key = self.key.forward(context, &normal)?;
        let value = self.value.forward(context, &normal)?;
        let dropout = context.attention_dropout(self.dropout);
        let attention = Attention { heads: self.heads, attention_mask, queries: items, keys: items, dropout };
        let attended = query.attend(&key, &value, &attention, None)?;
        let state = if context.is_training() && self.dropout > 0.0 {
            let projected = self.out.forward(context, &attended)?;
            context.dropout(&projected, self.dropout)?.add(input)?
        } else {
            self.out.forward_onto(context, &attended, input)?
        };
        let normal = self.feed_forward_norm.forward(context, &state)?;
        Ok(self.feed_forward.forward_onto(context, &normal, &state, 0.0)?)
    }
}

/// A residual block and the transformer blocks after it.
#[derive(Debug, Clone)]
struct Stage {
    resnet: ResnetBlock,
    transformers: Vec<TransformerBlock>,
}

impl Stage {
    fn new(mut builder: Builder, inputs: usize, channels: usize, config: &UNetConfig) -> Result<Self> {
        let resnet = ResnetBlock::new(builder.scope(0), inputs, channels, time_channels(config))?;
        let mut scope = builder.scope(1);
        let transformers =
            (0..config.n_blocks).map(|index| TransformerBlock::new(scope.scope(index), channels, config));
        Ok(Self { resnet, transformers: transformers.collect::<Result<_>>()? })
    }

    fn forward(&self, context: &Context, input: &Value, shared: &Shared) -> Result<Value> {
        let (resnet, items, attention_mask) = (self.resnet.clone(), shared.items.clone(), shared.attention_mask);
        let mut state = context.checkpoint(&[input, &shared.time], move |context, inputs| {
            resnet.forward(context, &inputs[0], &inputs[1], &items)
        })?;
        for block in &self.transformers {
            let (block, items) = (block.clone(), shared.items.clone());
            state = context.checkpoint(&[&state], move |context, inputs| {
                block.forward(context, &inputs[0], &items, attention_mask)
            })?;
        }
        Ok(state)
    }
}

/// Values that all stages of a level share.
struct Shared {
    /// Activated time embedding `[item, channel]`.
    time: Value,
    items: Rc<Ragged>,
    attention_mask: AttentionMask,
}

impl Shared {
    /// Returns the values of the next level: half as many frames, rounded up.
    fn halved(&self) -> Self {
        let lengths: Vec<usize> = self.items.lengths().iter().map(|length| length.div_ceil(HALF)).collect();
        Self { time: self.time.clone(), items: Rc::new(Ragged::packed(&lengths)), attention_mask: self.attention_mask }
    }
}

/// A level on the way down: its stage, and the convolution to the next level (on the last level, one that keeps the
/// frames).
#[derive(Debug, Clone)]
struct Down {
    stage: Stage,
    conv: Conv1d,
}

impl Down {
    fn new(mut builder: Builder, inputs: usize, channels: usize, last: bool, config: &UNetConfig) -> Result<Self> {
        let mut scope = builder.scope(2);
        let conv = match last {
            true => causal_conv(scope, channels, channels, TAPS)?,
            false => {
                let halved = Convolution { stride: HALF, padding: [1, 1], ..Convolution::default() };
                let (weight, bias) = (Init::kaiming_normal(channels * TAPS), Init::Constant(0.0));
                Conv1d::with_init(scope.scope("conv"), [channels, channels, TAPS], halved, weight, bias)?
            }
        };
        Ok(Self { stage: Stage::new(builder, inputs, channels, config)?, conv })
    }
}

/// A level on the way up: its stage, and the convolution to the level before (on the first level, one that keeps the
/// frames).
#[derive(Debug, Clone)]
struct Up {
    stage: Stage,
    conv: UpConv,
}

#[derive(Debug, Clone)]
enum UpConv {
    Same(Conv1d),
    Doubled(ConvTranspose1d),
}

impl Up {
    fn new(mut builder: Builder, inputs: usize, channels: usize, last: bool, config: &UNetConfig) -> Result<Self> {
        let mut scope = builder.scope(2);
        let conv = match last {
            true => UpConv::Same(causal_conv(scope, channels, channels, TAPS)?),
            false => {
                let shape = [channels, channels, 2 * HALF];
                UpConv::Doubled(ConvTranspose1d::new(scope.scope("conv"), shape, HALF)?)
            }
        };
        Ok(Self { stage: Stage::new(builder, inputs, channels, config)?, conv })
    }

    /// Runs the level from its items to `to`, those of the level before.
    fn forward(&self, context: &Context, input: &Value, shared: &Shared, to: &Ragged) -> Result<Value> {
        let hidden = self.stage.forward(context, input, shared)?;
        match &self.conv {
            UpConv::Same(conv) => Ok(conv.forward_packed(context, &hidden, &shared.items)?),
            UpConv::Doubled(conv) => {
                let doubled = conv.forward_packed(context, &hidden, &shared.items)?;
                // Halving an odd number of frames rounded up, so doubling gives one frame too many.
                Ok(doubled.pack_rows(&shared.items.repeated(HALF).shortened(&to.lengths())?)?)
            }
        }
    }
}

/// `CausalConditionalDecoder`.
#[derive(Debug, Clone)]
pub(in crate::flow) struct UNet {
    time: [Linear; 2],
    down: Vec<Down>,
    middle: Vec<Stage>,
    /// The levels from the last to the first.
    up: Vec<Up>,
    last: ConvBlock,
    projection: Conv1d,
    time_channels: usize,
    chunk: usize,
}

impl UNet {
    /// Creates the network from `inputs` channels (state and conditions) to `bins`.
    pub(super) fn new(mut builder: Builder, config: &UNetConfig, inputs: usize, bins: usize) -> Result<Self> {
        let (channels, embedded) = (&config.channels, time_channels(config));
        let mut time = builder.scope("time_mlp");
        let time = [
            linear(time.scope("linear_1"), inputs, embedded, true)?,
            linear(time.scope("linear_2"), embedded, embedded, true)?,
        ];
        let levels = channels.len();
        let mut scope = builder.scope("down_blocks");
        let down = (0..levels).map(|level| {
            let before = level.checked_sub(1).map_or(inputs, |before| channels[before]);
            Down::new(scope.scope(level), before, channels[level], level + 1 == levels, config)
        });
        let down = down.collect::<Result<_>>()?;
        let deepest = channels[levels - 1];
        let mut scope = builder.scope("mid_blocks");
        let middle = (0..config.num_mid_blocks).map(|index| Stage::new(scope.scope(index), deepest, deepest, config));
        let middle = middle.collect::<Result<_>>()?;
        let mut scope = builder.scope("up_blocks");
        let up = (0..levels).rev().enumerate().map(|(index, level)| {
            let to = channels[level.saturating_sub(1)];
            Up::new(scope.scope(index), 2 * channels[level], to, level == 0, config)
        });
        let up = up.collect::<Result<_>>()?;
        Ok(Self {
            time,
            down,
            middle,
            up,
            last: ConvBlock::new(builder.scope("final_block"), channels[0], channels[0])?,
            projection: causal_conv(builder.scope("final_proj"), channels[0], bins, 1)?,
            time_channels: inputs,
            chunk: config.static_chunk_size,
        })
    }

    /// Returns the velocity `[row, bin]` for states and conditions `[row, channel]` and one time per item.
    pub(super) fn forward(
        &self,
        context: &Context,
        input: &Value,
        times: &[f32],
        items: &Ragged,
        streaming: bool,
    ) -> Result<Value> {
        let time = sinusoidal_time(times, self.time_channels)?;
        let time = self.time[0].forward_activated(context, &time, Activation::Silu)?;
        let time = self.time[1].forward_activated(context, &time, Activation::Mish)?;
        let attention_mask =
            if streaming && self.chunk > 0 { AttentionMask::Chunk(self.chunk) } else { AttentionMask::Full };
        let mut levels = vec![Shared { time, items: Rc::new(items.clone()), attention_mask }];
        let (mut hidden, mut skips) = (input.clone(), Vec::with_capacity(self.down.len()));
        for (index, down) in self.down.iter().enumerate() {
            if index > 0 {
                levels.push(levels[index - 1].halved());
            }
            let shared = &levels[index];
            let skip = down.stage.forward(context, &hidden, shared)?;
            hidden = down.conv.forward_packed(context, &skip, &shared.items)?;
            skips.push(skip);
        }
        for stage in &self.middle {
            hidden = stage.forward(context, &hidden, &levels[levels.len() - 1])?;
        }
        for (up, level) in self.up.iter().zip((0..levels.len()).rev()) {
            let Some(skip) = skips.pop() else { break };
            let joined = concatenate(&[&hidden, &skip])?;
            drop(skip);
            hidden = up.forward(context, &joined, &levels[level], &levels[level.saturating_sub(1)].items)?;
        }
        let hidden = self.last.forward(context, &hidden, items)?;
        Ok(self.projection.forward_packed(context, &hidden, items)?)
    }
}
