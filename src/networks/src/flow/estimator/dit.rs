//! Step-Audio's estimator: a diffusion transformer (arXiv 2212.09748) whose blocks also contain causal convolutions.

use crate::flow::rows::Rows;
use crate::flow::{DitConfig, Result};
use flowmill_nn::init::{Builder, Init};
use flowmill_nn::layers::{Conv1d, FeedForward, LayerNorm, Linear, timestep_encodings};
use flowmill_nn::ops::{Attention, Convolution, Modulation};
use flowmill_nn::{Activation, AttentionMask, Context, Ragged, Value};
use std::rc::Rc;

/// The epsilon of the modulated norms, which have no gain and bias of their own.
pub(in crate::flow) const MODULATED_EPSILON: f32 = 1e-6;
pub(in crate::flow) const EPSILON: f32 = 1e-5;
pub(in crate::flow) const TAPS: usize = 3;
pub(in crate::flow) const TIME_CHANNELS: usize = 256;
/// The initial deviation of the time embedding.
const TIME_DEVIATION: f32 = 0.02;

/// The vectors of a block's modulation by their index: shift, scale and gate of each part.
pub(in crate::flow) const ATTENTION: [usize; 3] = [0, 1, 2];
pub(in crate::flow) const FEED_FORWARD: [usize; 3] = [3, 4, 5];
pub(in crate::flow) const CONVOLUTION: [usize; 3] = [6, 7, 8];

/// Creates a linear layer with Xavier uniform weights and a zero bias, like the published estimator.
fn linear(builder: Builder, inputs: usize, outputs: usize) -> Result<Linear> {
    let weight = Init::xavier_uniform(inputs, outputs);
    Ok(Linear::with_init(builder, inputs, outputs, weight, Some(Init::Constant(0.0)))?)
}

/// Creates a linear layer that starts at zero: a block begins as the identity, the network as the velocity zero.
fn zero_linear(builder: Builder, inputs: usize, outputs: usize) -> Result<Linear> {
    let zero = Init::Constant(0.0);
    Ok(Linear::with_init(builder, inputs, outputs, zero, Some(zero))?)
}

/// Self-attention with normalized queries and keys.
#[derive(Debug, Clone)]
struct SelfAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    query_norm: LayerNorm,
    key_norm: LayerNorm,
    out: Linear,
    heads: usize,
    head_width: usize,
}

impl SelfAttention {
    fn new(mut builder: Builder, config: &DitConfig) -> Result<Self> {
        let (channels, inner) = (config.hidden_size, config.num_heads * config.head_dim);
        Ok(Self {
            query: linear(builder.scope("to_q"), channels, inner)?,
            key: linear(builder.scope("to_k"), channels, inner)?,
            value: linear(builder.scope("to_v"), channels, inner)?,
            query_norm: LayerNorm::new(builder.scope("q_norm"), config.head_dim, EPSILON)?,
            key_norm: LayerNorm::new(builder.scope("k_norm"), config.head_dim, EPSILON)?,
            out: linear(builder.scope("proj"), inner, channels)?,
            heads: config.num_heads,
            head_width: config.head_dim,
        })
    }

    fn forward(&self, context: &Context, input: &Value, rows: &Rows, attention_mask: AttentionMask) -> Result<Value> {
        let query = self.per_head(context, &self.query.forward(context, input)?, &self.query_norm)?;
        let key = self.per_head(context, &self.key.forward(context, input)?, &self.key_norm)?;
        let value = self.value.forward(context, input)?;
        let attention =
            Attention { heads: self.heads, attention_mask, queries: &rows.all, keys: &rows.valid, dropout: None };
        let attended = query.attend(&key, &value, &attention, None)?;
        Ok(self.out.forward(context, &attended)?)
    }

    /// Normalizes each head's channels.
    fn per_head(&self, context: &Context, input: &Value, norm: &LayerNorm) -> Result<Value> {
        let heads = input.reshape(&[input.rows() * self.heads, self.head_width])?;
        Ok(norm.forward(context, &heads)?.reshape(input.dims())?)
    }
}

/// Causal convolution, layer norm, Mish, causal convolution.
#[derive(Debug, Clone)]
struct CausalConvBlock {
    first: Conv1d,
    norm: LayerNorm,
    second: Conv1d,
}

impl CausalConvBlock {
    fn new(mut builder: Builder, channels: usize) -> Result<Self> {
        let mut builder = builder.scope("block");
        let causal = Convolution::causal(TAPS);
        Ok(Self {
            first: Conv1d::new(builder.scope(1), channels, channels, TAPS, causal)?,
            norm: LayerNorm::new(builder.scope(3), channels, EPSILON)?,
            second: Conv1d::new(builder.scope(6), channels, channels, TAPS, causal)?,
        })
    }

    fn forward(&self, context: &Context, input: &Value, items: &Ragged) -> Result<Value> {
        let state = self.first.forward_packed(context, input, items)?;
        let state = self.norm.forward_activated(context, &state, Activation::Mish)?;
        Ok(self.second.forward_packed(context, &state, items)?)
    }
}

/// Attention, convolutions and feed-forward, each with a modulated norm before it and a gate after it.
#[derive(Debug, Clone)]
struct Block {
    attention: SelfAttention,
    feed_forward: FeedForward,
    convolution: CausalConvBlock,
    modulation: Linear,
}

impl Block {
    fn new(mut builder: Builder, config: &DitConfig) -> Result<Self> {
        let (channels, inner) = (config.hidden_size, config.mlp_size());
        let attention = SelfAttention::new(builder.scope("attn"), config)?;
        let mut mlp = builder.scope("mlp");
        let (first, second) = (linear(mlp.scope("fc1"), channels, inner)?, linear(mlp.scope("fc2"), inner, channels)?);
        Ok(Self {
            attention,
            feed_forward: FeedForward::new(first, second, Activation::GeluTanh, 0.0),
            convolution: CausalConvBlock::new(builder.scope("conv"), channels)?,
            modulation: zero_linear(builder.scope("adaLN_modulation").scope(1), channels, 9 * channels)?,
        })
    }

    /// Runs the block; `time` is the activated time embedding `[item, channel]`.
    fn forward(
        &self,
        context: &Context,
        input: &Value,
        time: &Value,
        rows: &Rows,
        attention_mask: AttentionMask,
    ) -> Result<Value> {
        let vectors = self.modulation.forward(context, time)?;
        let modulation = Modulation { vectors: &vectors, rows: &rows.all };
        let part = |state: &Value, [shift, scale, gate]: [usize; 3], layer: &dyn Fn(&Value) -> Result<Value>| {
            let normal = state.modulated_norm(&modulation, [shift, scale], MODULATED_EPSILON)?;
            let update = layer(&normal)?;
            Ok::<_, crate::flow::FlowError>(state.add_gated(&update, &modulation, gate)?)
        };
        let state = part(input, ATTENTION, &|normal| self.attention.forward(context, normal, rows, attention_mask))?;
        let state = part(&state, CONVOLUTION, &|normal| self.convolution.forward(context, normal, &rows.all))?;
        part(&state, FEED_FORWARD, &|normal| Ok(self.feed_forward.forward(context, normal)?))
    }
}

/// `DiT`.
#[derive(Debug, Clone)]
pub(in crate::flow) struct Dit {
    time: [Linear; 2],
    input: Linear,
    blocks: Vec<Block>,
    final_modulation: Linear,
    output: Linear,
    chunk: usize,
}

impl Dit {
    /// Creates the network from `inputs` channels (state and conditions) to `bins`.
    pub(super) fn new(mut builder: Builder, config: &DitConfig, inputs: usize, bins: usize) -> Result<Self> {
        let channels = config.hidden_size;
        let mut scope = builder.scope("t_embedder");
        let mut scope = scope.scope("mlp");
        let (normal, zero) = (Init::Normal(TIME_DEVIATION), Some(Init::Constant(0.0)));
        let time = [
            Linear::with_init(scope.scope(0), TIME_CHANNELS, channels, normal, zero)?,
            Linear::with_init(scope.scope(2), channels, channels, normal, zero)?,
        ];
        let input = linear(builder.scope("in_proj"), inputs, channels)?;
        let mut scope = builder.scope("blocks");
        let blocks = (0..config.depth).map(|index| Block::new(scope.scope(index), config));
        let blocks = blocks.collect::<Result<_>>()?;
        let mut scope = builder.scope("final_layer");
        let final_modulation = zero_linear(scope.scope("adaLN_modulation").scope(1), channels, 2 * channels)?;
        let output = zero_linear(scope.scope("linear"), channels, bins)?;
        Ok(Self { time, input, blocks, final_modulation, output, chunk: config.static_chunk_size })
    }

    /// Returns the velocity `[row, bin]` for states and conditions `[row, channel]` and one time per item.
    pub(super) fn forward(
        &self,
        context: &Context,
        input: &Value,
        times: &[f32],
        rows: &Rows,
        streaming: bool,
    ) -> Result<Value> {
        let time = timestep_encodings(times, TIME_CHANNELS)?;
        let time = self.time[0].forward_activated(context, &time, Activation::Silu)?;
        // Every modulation first applies SiLU to the embedding, so it is computed once for all.
        let time = self.time[1].forward_activated(context, &time, Activation::Silu)?;
        let attention_mask =
            if streaming && self.chunk > 0 { AttentionMask::Chunk(self.chunk) } else { AttentionMask::Full };
        let mut state = self.input.forward(context, input)?;
        let shared = Rc::new(rows.clone());
        for block in &self.blocks {
            let (block, rows) = (block.clone(), shared.clone());
            state = context.checkpoint(&[&state, &time], move |context, inputs| {
                block.forward(context, &inputs[0], &inputs[1], &rows, attention_mask)
            })?;
        }
        let vectors = self.final_modulation.forward(context, &time)?;
        let modulation = Modulation { vectors: &vectors, rows: &rows.all };
        let normal = state.modulated_norm(&modulation, [0, 1], MODULATED_EPSILON)?;
        Ok(self.output.forward(context, &normal)?)
    }
}
