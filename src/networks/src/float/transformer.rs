//! The transformer: frames of motion, modulated by conditions and time.

use super::{FloatConfig, Result};
use candle_core::Tensor;
use flowmill_nn::init::{Builder, Init};
use flowmill_nn::layers::{FeedForward, Linear, scaled_timestep_encodings};
use flowmill_nn::ops::{Attention, Modulation};
use flowmill_nn::{Activation, AttentionMask, Context, ParameterId, Ragged, Value};
use std::rc::Rc;

const EPSILON: f32 = 1e-6;
const TIME_CHANNELS: usize = 256;
/// The initial deviation of the time embedding.
const TIME_DEVIATION: f32 = 0.02;

/// The vectors of a block's modulation by their index: shift, scale and gate of each part.
const ATTENTION: [usize; 3] = [0, 1, 2];
const FEED_FORWARD: [usize; 3] = [3, 4, 5];

/// Creates a linear layer with Xavier uniform weights and a zero bias.
fn linear(builder: Builder, inputs: usize, outputs: usize) -> Result<Linear> {
    let weight = Init::xavier_uniform(inputs, outputs);
    Ok(Linear::with_init(builder, inputs, outputs, weight, Some(Init::Constant(0.0)))?)
}

/// Creates a linear layer that starts at zero: a block begins as the identity, the network as the velocity zero.
fn zero_linear(builder: Builder, inputs: usize, outputs: usize) -> Result<Linear> {
    let zero = Init::Constant(0.0);
    Ok(Linear::with_init(builder, inputs, outputs, zero, Some(zero))?)
}

/// The rows of a batch of windows.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    /// The frames of each window.
    pub(super) windows: Ragged,
    /// Every frame as an item of its own, because each has its own modulation.
    frames: Ragged,
}

impl Rows {
    /// Creates the rows of windows with these numbers of frames.
    pub(super) fn new(lengths: &[usize]) -> Self {
        let windows = Ragged::packed(lengths);
        let frames = Ragged::packed(&vec![1; windows.total()]);
        Self { windows, frames }
    }
}

/// Attention and feed-forward layer, each with a modulated norm before it and a gate after it.
#[derive(Debug, Clone)]
struct Block {
    qkv: Linear,
    projection: Linear,
    feed_forward: FeedForward,
    modulation: Linear,
    heads: usize,
    reach: usize,
}

impl Block {
    fn new(mut builder: Builder, config: &FloatConfig) -> Result<Self> {
        let (channels, inner) = (config.dim_h, config.mlp_size());
        let mut attention = builder.scope("attn");
        let qkv = linear(attention.scope("qkv"), channels, 3 * channels)?;
        let projection = linear(attention.scope("proj"), channels, channels)?;
        let mut mlp = builder.scope("mlp");
        let (first, second) = (linear(mlp.scope("fc1"), channels, inner)?, linear(mlp.scope("fc2"), inner, channels)?);
        Ok(Self {
            qkv,
            projection,
            feed_forward: FeedForward::new(first, second, Activation::GeluTanh, 0.0),
            modulation: zero_linear(builder.scope("adaLN_modulation").scope(1), channels, 6 * channels)?,
            heads: config.num_heads,
            reach: config.attention_window,
        })
    }

    fn attend(&self, context: &Context, input: &Value, rows: &Rows) -> Result<Value> {
        let (all, width) = (self.qkv.forward(context, input)?, input.width());
        let [query, key, value] = [0, 1, 2].map(|part| all.channels(part * width..(part + 1) * width));
        let attention = Attention {
            heads: self.heads,
            attention_mask: AttentionMask::Band(self.reach),
            queries: &rows.windows,
            keys: &rows.windows,
            dropout: None,
        };
        let attended = query?.attend(&key?, &value?, &attention, None)?;
        Ok(self.projection.forward(context, &attended)?)
    }

    /// Runs the block; `conditions` are the activated conditions of each frame, `[row, channel]`.
    fn forward(&self, context: &Context, input: &Value, conditions: &Value, rows: &Rows) -> Result<Value> {
        let vectors = self.modulation.forward(context, conditions)?;
        let modulation = Modulation { vectors: &vectors, rows: &rows.frames };
        let part = |state: &Value, [shift, scale, gate]: [usize; 3], layer: &dyn Fn(&Value) -> Result<Value>| {
            let normal = state.modulated_norm(&modulation, [shift, scale], EPSILON)?;
            let update = layer(&normal)?;
            Ok::<_, super::FloatError>(state.add_gated(&update, &modulation, gate)?)
        };
        let state = part(input, ATTENTION, &|normal| self.attend(context, normal, rows))?;
        part(&state, FEED_FORWARD, &|normal| Ok(self.feed_forward.forward(context, normal)?))
    }
}

/// The network without its weights.
#[derive(Debug, Clone)]
pub(super) struct Transformer {
    positions: ParameterId,
    input: Linear,
    time: [Linear; 2],
    conditions: Linear,
    blocks: Vec<Block>,
    final_modulation: Linear,
    output: Linear,
}

impl Transformer {
    /// Creates the network. `positions` are the encodings of the positions, `[1, frame, channel]`.
    pub(super) fn new(builder: &mut Builder, config: &FloatConfig, positions: ParameterId) -> Result<Self> {
        let channels = config.dim_h;
        let mut scope = builder.scope("x_embedder");
        let input = linear(scope.scope("proj"), config.dim_w, channels)?;
        let mut scope = builder.scope("t_embedder");
        let mut scope = scope.scope("mlp");
        let (normal, zero) = (Init::Normal(TIME_DEVIATION), Some(Init::Constant(0.0)));
        let time = [
            Linear::with_init(scope.scope(0), TIME_CHANNELS, channels, normal, zero)?,
            Linear::with_init(scope.scope(2), channels, channels, normal, zero)?,
        ];
        let widths = config.dim_w + config.dim_a + config.dim_e;
        let conditions = linear(builder.scope("c_embedder"), widths, channels)?;
        let mut scope = builder.scope("blocks");
        let blocks = (0..config.fmt_depth).map(|index| Block::new(scope.scope(index), config));
        let blocks = blocks.collect::<Result<_>>()?;
        let mut scope = builder.scope("decoder");
        let final_modulation = zero_linear(scope.scope("adaLN_modulation").scope(1), channels, 2 * channels)?;
        let output = zero_linear(scope.scope("linear"), channels, config.dim_w)?;
        Ok(Self { positions, input, time, conditions, blocks, final_modulation, output })
    }

    /// Returns the velocity `[row, channel]` for motion `[row, channel]` and conditions `[row, feature]`, with one time per window.
    pub(super) fn forward(
        &self,
        context: &Context,
        motion: &Value,
        conditions: &Value,
        times: &[f32],
        rows: &Rows,
    ) -> Result<Value> {
        let time = scaled_timestep_encodings(times, 1.0, TIME_CHANNELS)?;
        let time = self.time[0].forward_activated(context, &time, Activation::Silu)?;
        let time = self.time[1].forward(context, &time)?;
        let conditions = self.conditions.forward(context, conditions)?.add_items(&time, &rows.windows)?;
        // Every modulation first applies SiLU to the conditions, so it is computed once for all.
        let conditions = conditions.activate(Activation::Silu)?;
        let positions = self.positions(context, &rows.windows)?;
        let mut state = self.input.forward_onto(context, motion, &positions)?;
        let shared = Rc::new(rows.clone());
        for block in &self.blocks {
            let (block, rows) = (block.clone(), shared.clone());
            state = context.checkpoint(&[&state, &conditions], move |context, inputs| {
                block.forward(context, &inputs[0], &inputs[1], &rows)
            })?;
        }
        let vectors = self.final_modulation.forward(context, &conditions)?;
        let modulation = Modulation { vectors: &vectors, rows: &rows.frames };
        let normal = state.modulated_norm(&modulation, [0, 1], EPSILON)?;
        Ok(self.output.forward(context, &normal)?)
    }

    /// Returns the encodings of the positions of all frames, `[row, channel]`.
    fn positions(&self, context: &Context, windows: &Ragged) -> Result<Value> {
        let table = context.parameters().tensor(self.positions).squeeze(0)?;
        let part = |frames: &usize| table.narrow(0, 0, *frames);
        let parts = windows.lengths().iter().map(part).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Value::plain(Tensor::cat(&parts, 0)?)?)
    }
}
