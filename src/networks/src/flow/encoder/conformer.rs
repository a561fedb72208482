//! The conformer encoder with upsampling: embedding, look-ahead convolutions, blocks at the token rate, upsampling, blocks at the frame
//! rate.

use super::TokenLengths;
use super::pre_lookahead::PreLookahead;
use crate::flow::rows::Rows;
use crate::flow::{EncoderConfig, FlowConfig, Result};
use flowmill_nn::init::{Builder, Init};
use flowmill_nn::layers::{Conv1d, FeedForward, LayerNorm, Linear, relative_encodings};
use flowmill_nn::ops::{Attention, Convolution, RelativePositions};
use flowmill_nn::{Activation, AttentionMask, Context, ParameterId, Value};
use std::rc::Rc;

/// The epsilon of the norms inside blocks, as in the public implementation.
const BLOCK_EPSILON: f32 = 1e-12;
const EPSILON: f32 = 1e-5;

/// Linear projection, norm and scaling, which turn inputs into states of the blocks.
#[derive(Debug, Clone)]
struct Embed {
    linear: Linear,
    norm: LayerNorm,
    scale: f32,
}

impl Embed {
    fn new(mut builder: Builder, channels: usize) -> Result<Self> {
        let mut builder = builder.scope("out");
        let linear = Linear::new(builder.scope(0), channels, channels)?;
        let norm = LayerNorm::new(builder.scope(1), channels, EPSILON)?;
        Ok(Self { linear, norm, scale: (channels as f32).sqrt() })
    }

    fn forward(&self, context: &Context, input: &Value, config: &EncoderConfig) -> Result<Value> {
        let output = self.norm.forward(context, &self.linear.forward(context, input)?)?;
        let output = context.dropout(&output, config.dropout_rate)?.affine(self.scale, 0.0)?;
        Ok(context.dropout(&output, config.positional_dropout_rate)?)
    }
}

/// Self-attention with relative positions.
#[derive(Debug, Clone)]
struct RelativeAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    position: Linear,
    content_bias: ParameterId,
    position_bias: ParameterId,
    heads: usize,
}

impl RelativeAttention {
    fn new(mut builder: Builder, channels: usize, heads: usize) -> Result<Self> {
        let shape = [heads, channels / heads];
        let init = Init::xavier_uniform(shape[1], shape[0]);
        Ok(Self {
            query: Linear::new(builder.scope("linear_q"), channels, channels)?,
            key: Linear::new(builder.scope("linear_k"), channels, channels)?,
            value: Linear::new(builder.scope("linear_v"), channels, channels)?,
            out: Linear::new(builder.scope("linear_out"), channels, channels)?,
            position: Linear::without_bias(builder.scope("linear_pos"), channels, channels)?,
            content_bias: builder.add("pos_bias_u", &shape, init)?,
            position_bias: builder.add("pos_bias_v", &shape, init)?,
            heads,
        })
    }

    /// Returns the attended values before the output projection.
    fn attend(&self, context: &Context, input: &Value, shared: &Shared, rate: f32) -> Result<Value> {
        let query = self.query.forward(context, input)?;
        let key = self.key.forward(context, input)?;
        let value = self.value.forward(context, input)?;
        let encodings = self.position.forward(context, &shared.encodings)?;
        let (content_bias, position_bias) =
            (context.parameter(self.content_bias), context.parameter(self.position_bias));
        let relative =
            RelativePositions { encodings: &encodings, content_bias: &content_bias, position_bias: &position_bias };
        let attention = Attention {
            heads: self.heads,
            attention_mask: shared.attention_mask,
            queries: &shared.rows.all,
            keys: &shared.rows.valid,
            dropout: context.attention_dropout(rate),
        };
        Ok(query.attend(&key, &value, &attention, Some(relative))?)
    }
}

/// Values that all blocks at one rate share.
struct Shared {
    rows: Rows,
    encodings: Value,
    attention_mask: AttentionMask,
    config: EncoderConfig,
}

/// A conformer block of CosyVoice 2: attention and feed-forward, without a convolution module.
#[derive(Debug, Clone)]
struct Block {
    attention: RelativeAttention,
    feed_forward: FeedForward,
    attention_norm: LayerNorm,
    feed_forward_norm: LayerNorm,
}

impl Block {
    fn new(mut builder: Builder, channels: usize, config: &EncoderConfig) -> Result<Self> {
        let attention = RelativeAttention::new(builder.scope("self_attn"), channels, config.attention_heads)?;
        let mut scope = builder.scope("feed_forward");
        let first = Linear::new(scope.scope("w_1"), channels, config.linear_units)?;
        let second = Linear::new(scope.scope("w_2"), config.linear_units, channels)?;
        Ok(Self {
            attention,
            feed_forward: FeedForward::new(first, second, Activation::Silu, config.dropout_rate),
            feed_forward_norm: LayerNorm::new(builder.scope("norm_ff"), channels, BLOCK_EPSILON)?,
            attention_norm: LayerNorm::new(builder.scope("norm_mha"), channels, BLOCK_EPSILON)?,
        })
    }

    fn forward(&self, context: &Context, input: &Value, shared: &Shared) -> Result<Value> {
        let config = &shared.config;
        let normal = self.attention_norm.forward(context, input)?;
        let attended = self.attention.attend(context, &normal, shared, config.attention_dropout_rate)?;
        let drops = context.is_training() && config.dropout_rate > 0.0;
        let state = if drops {
            let projected = self.attention.out.forward(context, &attended)?;
            context.dropout(&projected, config.dropout_rate)?.add(input)?
        } else {
            self.attention.out.forward_onto(context, &attended, input)?
        };
        let normal = self.feed_forward_norm.forward(context, &state)?;
        Ok(self.feed_forward.forward_onto(context, &normal, &state, config.dropout_rate)?)
    }
}

/// `UpsampleConformerEncoder`.
#[derive(Debug, Clone)]
pub(in crate::flow) struct Conformer {
    embed: Embed,
    after_norm: LayerNorm,
    pre_lookahead: PreLookahead,
    blocks: Vec<Block>,
    up_conv: Conv1d,
    up_embed: Embed,
    up_blocks: Vec<Block>,
    config: EncoderConfig,
    ratio: usize,
    channels: usize,
}

impl Conformer {
    pub(super) fn new(mut builder: Builder, flow: &FlowConfig) -> Result<Self> {
        let (channels, config) = (flow.input_size, &flow.encoder);
        let embed = Embed::new(builder.scope("embed"), channels)?;
        let after_norm = LayerNorm::new(builder.scope("after_norm"), channels, EPSILON)?;
        let pre_lookahead =
            PreLookahead::new(builder.scope("pre_lookahead_layer"), [channels, channels], flow.pre_lookahead_len)?;
        let blocks = blocks(builder.scope("encoders"), channels, config, config.num_blocks)?;
        // The upsampling convolution sees back twice as many frames as it repeats.
        let kernel = 2 * flow.token_mel_ratio + 1;
        let mut up = builder.scope("up_layer");
        let up_conv = Conv1d::new(up.scope("conv"), channels, channels, kernel, Convolution::causal(kernel))?;
        Ok(Self {
            embed,
            after_norm,
            pre_lookahead,
            blocks,
            up_conv,
            up_embed: Embed::new(builder.scope("up_embed"), channels)?,
            up_blocks: self::blocks(builder.scope("up_encoders"), channels, config, config.num_up_blocks)?,
            config: config.clone(),
            ratio: flow.token_mel_ratio,
            channels,
        })
    }

    /// Encodes embedded tokens; see [`Encoder::forward`](super::Encoder::forward).
    pub(super) fn forward(
        &self,
        context: &Context,
        tokens: &Value,
        lengths: &TokenLengths,
        streaming: bool,
    ) -> Result<(Value, Rows)> {
        let given = lengths.given();
        let state = self.embed.forward(context, tokens, &self.config)?;
        let state = self.pre_lookahead.forward(context, &state, &given)?;
        let state = state.pack_rows(&given.shortened(&lengths.all)?)?;
        let rows = lengths.rows()?;
        let chunk = self.config.static_chunk_size;
        let state = self.run(context, state, &self.blocks, &rows, streaming.then_some(chunk))?;

        let up_rows = rows.repeated(self.ratio);
        let repeated = state.reshape(&[1, rows.all.total(), self.channels])?.repeat_frames(self.ratio)?;
        let repeated = repeated.reshape(&[up_rows.all.total(), self.channels])?;
        let state = self.up_conv.forward_packed(context, &repeated, &up_rows.all)?;
        let state = self.up_embed.forward(context, &state, &self.config)?;
        let chunk = chunk * self.ratio;
        let state = self.run(context, state, &self.up_blocks, &up_rows, streaming.then_some(chunk))?;
        Ok((self.after_norm.forward(context, &state)?, up_rows))
    }

    fn run(
        &self,
        context: &Context,
        mut state: Value,
        blocks: &[Block],
        rows: &Rows,
        chunk: Option<usize>,
    ) -> Result<Value> {
        let longest = rows.all.lengths().into_iter().max().unwrap_or(1);
        let encodings = relative_encodings(longest, self.channels)?;
        let encodings = context.dropout(&encodings, self.config.positional_dropout_rate)?;
        let attention_mask = chunk.filter(|size| *size > 0).map_or(AttentionMask::Full, AttentionMask::Chunk);
        let shared = Rc::new(Shared { rows: rows.clone(), encodings, attention_mask, config: self.config.clone() });
        for block in blocks {
            let (block, shared) = (block.clone(), shared.clone());
            state =
                context.checkpoint(&[&state], move |context, inputs| block.forward(context, &inputs[0], &shared))?;
        }
        Ok(state)
    }
}

fn blocks(mut builder: Builder, channels: usize, config: &EncoderConfig, count: usize) -> Result<Vec<Block>> {
    (0..count).map(|index| Block::new(builder.scope(index), channels, config)).collect()
}
