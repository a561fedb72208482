//! CosyVoice 3's estimator: a diffusion transformer (arXiv 2212.09748) with rotary positions, in the form of F5-TTS (arXiv 2410.06885).

use crate::flow::config::POSITION_GROUPS;
use crate::flow::rows::Rows;
use crate::flow::{Result, RotaryDitConfig};
use flowmill_nn::init::Builder;
use flowmill_nn::layers::{FeedForward, GroupedConv1d, Linear, RotaryAngles, sinusoidal_time};
use flowmill_nn::ops::{Attention, Convolution, Modulation};
use flowmill_nn::{Activation, AttentionMask, Context, ParameterId, Ragged, Value, host};
use std::rc::Rc;

/// The epsilon of the modulated norms, which have no gain and bias of their own.
pub(in crate::flow) const EPSILON: f32 = 1e-6;
pub(in crate::flow) const TIME_CHANNELS: usize = 256;
pub(in crate::flow) const POSITION_TAPS: usize = 31;
/// The base of the rotary positions.
const ROTARY_BASE: f32 = 10_000.0;

/// The vectors of a block's modulation by their index: shift, scale and gate of each part.
pub(in crate::flow) const ATTENTION: [usize; 3] = [0, 1, 2];
pub(in crate::flow) const FEED_FORWARD: [usize; 3] = [3, 4, 5];
/// The shift and the scale of the final modulation, where the scale comes first.
pub(in crate::flow) const FINAL: [usize; 2] = [1, 0];

/// The projection of states and conditions, and convolutions that add what the frames before contribute.
#[derive(Debug, Clone)]
struct InputEmbedding {
    projection: Linear,
    positions: [GroupedConv1d; 2],
}

impl InputEmbedding {
    fn new(mut builder: Builder, inputs: usize, channels: usize) -> Result<Self> {
        let projection = Linear::new(builder.scope("proj"), inputs, channels)?;
        let mut scope = builder.scope("conv_pos_embed");
        let causal = Convolution::causal(POSITION_TAPS);
        let mut convolution = |name: &str| {
            GroupedConv1d::new(scope.scope(name).scope(0), channels, POSITION_GROUPS, POSITION_TAPS, causal)
        };
        Ok(Self { projection, positions: [convolution("conv1")?, convolution("conv2")?] })
    }

    fn forward(&self, context: &Context, input: &Value, items: &Ragged) -> Result<Value> {
        let projected = self.projection.forward(context, input)?;
        let mut positions = projected.clone();
        for convolution in &self.positions {
            positions = convolution.forward_packed(context, &positions, items)?.activate(Activation::Mish)?;
        }
        Ok(positions.add(&projected)?)
    }
}

/// Values that all blocks share.
struct Shared {
    rows: Rows,
    /// The angles of the first head. The public implementation rotates before it divides the channels into heads, so
    /// the other heads have no positions.
    angles: RotaryAngles,
    attention_mask: AttentionMask,
}

/// Self-attention whose first head has rotary positions.
#[derive(Debug, Clone)]
struct SelfAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: usize,
    dropout: f32,
}

impl SelfAttention {
    fn new(mut builder: Builder, config: &RotaryDitConfig) -> Result<Self> {
        let (channels, inner) = (config.dim, config.heads * config.dim_head);
        Ok(Self {
            query: Linear::new(builder.scope("to_q"), channels, inner)?,
            key: Linear::new(builder.scope("to_k"), channels, inner)?,
            value: Linear::new(builder.scope("to_v"), channels, inner)?,
            out: Linear::new(builder.scope("to_out").scope(0), inner, channels)?,
            heads: config.heads,
            dropout: config.dropout,
        })
    }

    /// Returns the output for each row, zero beyond the end of an item.
    fn forward(&self, context: &Context, input: &Value, shared: &Shared) -> Result<Value> {
        let Shared { rows, angles, attention_mask } = shared;
        let turned = |linear: &Linear| -> Result<Value> {
            Ok(linear.forward(context, input)?.rotate_leading(&angles.cosines, &angles.sines)?)
        };
        let (query, key) = (turned(&self.query)?, turned(&self.key)?);
        let value = self.value.forward(context, input)?;
        let attention = Attention {
            heads: self.heads,
            attention_mask: *attention_mask,
            queries: &rows.all,
            keys: &rows.valid,
            dropout: None,
        };
        let attended = query.attend(&key, &value, &attention, None)?;
        let output = context.dropout(&self.out.forward(context, &attended)?, self.dropout)?;
        if rows.all.lengths() == rows.valid.lengths() {
            return Ok(output);
        }
        Ok(output.mask_rows(&rows.valid)?)
    }
}

/// Attention and feed-forward, each with a modulated norm before it and a gate after it.
#[derive(Debug, Clone)]
struct Block {
    modulation: Linear,
    attention: SelfAttention,
    feed_forward: FeedForward,
}

impl Block {
    fn new(mut builder: Builder, config: &RotaryDitConfig) -> Result<Self> {
        let (channels, inner) = (config.dim, config.dim * config.ff_mult);
        let modulation = Linear::new(builder.scope("attn_norm").scope("linear"), channels, 6 * channels)?;
        let attention = SelfAttention::new(builder.scope("attn"), config)?;
        let mut scope = builder.scope("ff");
        let mut scope = scope.scope("ff");
        let first = Linear::new(scope.scope(0).scope(0), channels, inner)?;
        let second = Linear::new(scope.scope(2), inner, channels)?;
        let feed_forward = FeedForward::new(first, second, Activation::GeluTanh, config.dropout);
        Ok(Self { modulation, attention, feed_forward })
    }

    /// Runs the block; `time` is the activated time embedding `[item, channel]`.
    fn forward(&self, context: &Context, input: &Value, time: &Value, shared: &Shared) -> Result<Value> {
        let vectors = self.modulation.forward(context, time)?;
        let modulation = Modulation { vectors: &vectors, rows: &shared.rows.all };
        let part = |state: &Value, [shift, scale, gate]: [usize; 3], layer: &dyn Fn(&Value) -> Result<Value>| {
            let normal = state.modulated_norm(&modulation, [shift, scale], EPSILON)?;
            let update = layer(&normal)?;
            Ok::<_, crate::flow::FlowError>(state.add_gated(&update, &modulation, gate)?)
        };
        let state = part(input, ATTENTION, &|normal| self.attention.forward(context, normal, shared))?;
        part(&state, FEED_FORWARD, &|normal| Ok(self.feed_forward.forward(context, normal)?))
    }
}

/// `DiT`.
#[derive(Debug, Clone)]
pub(in crate::flow) struct RotaryDit {
    time: [Linear; 2],
    input: InputEmbedding,
    /// Angles per position of the pairs of a head's channels.
    rotary_rates: ParameterId,
    blocks: Vec<Block>,
    final_modulation: Linear,
    output: Linear,
    chunk: usize,
}

impl RotaryDit {
    /// Creates the network from `inputs` channels (state and conditions) to `bins`, with PyTorch's default
    /// initialization, like the public one.
    pub(super) fn new(mut builder: Builder, config: &RotaryDitConfig, inputs: usize, bins: usize) -> Result<Self> {
        let channels = config.dim;
        let mut scope = builder.scope("time_embed");
        let mut scope = scope.scope("time_mlp");
        let time =
            [Linear::new(scope.scope(0), TIME_CHANNELS, channels)?, Linear::new(scope.scope(2), channels, channels)?];
        let input = InputEmbedding::new(builder.scope("input_embed"), inputs, channels)?;
        let rates = RotaryAngles::rates(config.dim_head / 2, ROTARY_BASE);
        let shape = [rates.len()];
        let rotary_rates = builder.scope("rotary_embed").add_buffer("inv_freq", rates, &shape)?;
        let mut scope = builder.scope("transformer_blocks");
        let blocks = (0..config.depth).map(|index| Block::new(scope.scope(index), config));
        let blocks = blocks.collect::<Result<_>>()?;
        let final_modulation = Linear::new(builder.scope("norm_out").scope("linear"), channels, 2 * channels)?;
        let output = Linear::new(builder.scope("proj_out"), channels, bins)?;
        Ok(Self { time, input, rotary_rates, blocks, final_modulation, output, chunk: config.static_chunk_size })
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
        let time = sinusoidal_time(times, TIME_CHANNELS)?;
        let time = self.time[0].forward_activated(context, &time, Activation::Silu)?;
        // Every modulation first applies SiLU to the embedding, so it is computed once for all.
        let time = self.time[1].forward_activated(context, &time, Activation::Silu)?;
        let (embedding, items) = (self.input.clone(), rows.all.clone());
        let embed = move |context: &Context<'_>, inputs: &[Value]| embedding.forward(context, &inputs[0], &items);
        let mut state = context.checkpoint(&[input], embed)?;
        let attention_mask =
            if streaming && self.chunk > 0 { AttentionMask::Chunk(self.chunk) } else { AttentionMask::Full };
        let angles = self.angles(context, &rows.all)?.on(state.tensor().device())?;
        let shared = Rc::new(Shared { rows: rows.clone(), angles, attention_mask });
        for block in &self.blocks {
            let (block, shared) = (block.clone(), shared.clone());
            state = context.checkpoint(&[&state, &time], move |context, inputs| {
                block.forward(context, &inputs[0], &inputs[1], &shared)
            })?;
        }
        let vectors = self.final_modulation.forward(context, &time)?;
        let modulation = Modulation { vectors: &vectors, rows: &rows.all };
        let normal = state.modulated_norm(&modulation, FINAL, EPSILON)?;
        Ok(self.output.forward(context, &normal)?)
    }

    /// Returns the angles of rows, whose positions count from the first of their item.
    fn angles(&self, context: &Context, items: &Ragged) -> Result<RotaryAngles> {
        // Not in the number format of the weights: angles of late positions need all digits.
        let rates = host::read(&context.parameters().read(self.rotary_rates)?)?;
        let mut positions = vec![0; items.total()];
        for rows in items.ranges() {
            positions[rows.clone()].iter_mut().zip(0..).for_each(|(at, position)| *at = position);
        }
        Ok(RotaryAngles::with_rates(&positions, &rates)?)
    }
}
