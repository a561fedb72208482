//! The transformer between residual blocks: each pixel attends to all pixels, then to the conditions (`Transformer2DModel`).

use flowmill_nn::init::Builder;
use flowmill_nn::layers::{Conv2d, GroupNorm, LayerNorm, Linear};
use flowmill_nn::ops::{Attention, Convolution2d};
use flowmill_nn::{Activation, AttentionMask, Context, Ragged, Result, Value};

/// Number added to the variances of the group normalization.
const GROUP_EPSILON: f32 = 1e-6;
/// Number added to the variances of the layer normalizations.
const LAYER_EPSILON: f32 = 1e-5;
/// Channels inside the feed-forward layer, as a multiple of those outside.
const EXPANSION: usize = 4;

/// Settings of a transformer.
#[derive(Debug, Clone, Copy)]
pub(super) struct TransformerSettings {
    pub(super) channels: usize,
    pub(super) heads: usize,
    /// Channels of the conditions.
    pub(super) conditions: usize,
    pub(super) groups: usize,
    /// True if the projections around the block are linear layers.
    pub(super) linear_projection: bool,
}

/// A projection of each pixel: the same computation under two shapes of weights.
#[derive(Debug, Clone)]
enum Projection {
    Convolution(Conv2d),
    Linear(Linear),
}

impl Projection {
    fn new(builder: Builder, settings: TransformerSettings) -> Result<Self> {
        let TransformerSettings { channels, linear_projection, .. } = settings;
        Ok(match linear_projection {
            true => Self::Linear(Linear::new(builder, channels, channels)?),
            false => Self::Convolution(Conv2d::new(builder, channels, channels, 1, Convolution2d::default())?),
        })
    }

    fn forward(&self, context: &Context, input: &Value) -> Result<Value> {
        match self {
            Self::Convolution(layer) => layer.forward(context, input),
            Self::Linear(layer) => layer.forward(context, input),
        }
    }
}

/// Attention of the pixels to themselves or to the conditions.
#[derive(Debug, Clone)]
struct CrossAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    heads: usize,
}

impl CrossAttention {
    fn new(mut builder: Builder, channels: usize, source: usize, heads: usize) -> Result<Self> {
        Ok(Self {
            query: Linear::without_bias(builder.scope("to_q"), channels, channels)?,
            key: Linear::without_bias(builder.scope("to_k"), source, channels)?,
            value: Linear::without_bias(builder.scope("to_v"), source, channels)?,
            output: Linear::new(builder.scope("to_out").scope(0), channels, channels)?,
            heads,
        })
    }

    /// Adds the attention of `normal` to `source` to the state; rows of `source` are those of `keys`.
    fn forward_onto(
        &self,
        context: &Context,
        [normal, source]: [&Value; 2],
        [queries, keys]: [&Ragged; 2],
        state: &Value,
    ) -> Result<Value> {
        let [key, value] = [&self.key, &self.value].map(|layer| layer.forward(context, source));
        let attention =
            Attention { heads: self.heads, attention_mask: AttentionMask::Full, queries, keys, dropout: None };
        let attended = self.query.forward(context, normal)?.attend(&key?, &value?, &attention, None)?;
        self.output.forward_onto(context, &attended, state)
    }
}

/// Feed-forward layer whose inner channels are gated by as many others (GEGLU, arXiv 2002.05202).
#[derive(Debug, Clone)]
struct GatedFeedForward {
    inner: Linear,
    output: Linear,
}

impl GatedFeedForward {
    fn new(mut builder: Builder, channels: usize) -> Result<Self> {
        let mut scope = builder.scope("net");
        let inner = EXPANSION * channels;
        Ok(Self {
            inner: Linear::new(scope.scope(0).scope("proj"), channels, 2 * inner)?,
            output: Linear::new(scope.scope(2), inner, channels)?,
        })
    }

    fn forward_onto(&self, context: &Context, input: &Value, state: &Value) -> Result<Value> {
        let both = self.inner.forward(context, input)?;
        let width = both.width() / 2;
        let inner = both.channels(width..2 * width)?.gated(&both.channels(0..width)?, Activation::Gelu)?;
        self.output.forward_onto(context, &inner, state)
    }
}

/// Transformer over the pixels of each image, around a residual connection.
#[derive(Debug, Clone)]
pub(super) struct PixelTransformer {
    norm: GroupNorm,
    into: Projection,
    norms: [LayerNorm; 3],
    own: CrossAttention,
    conditions: CrossAttention,
    feed_forward: GatedFeedForward,
    out: Projection,
}

impl PixelTransformer {
    pub(super) fn new(mut builder: Builder, settings: TransformerSettings) -> Result<Self> {
        let TransformerSettings { channels, heads, conditions, groups, .. } = settings;
        let norm = GroupNorm::new(builder.scope("norm"), groups, channels, GROUP_EPSILON)?;
        let into = Projection::new(builder.scope("proj_in"), settings)?;
        let mut blocks = builder.scope("transformer_blocks");
        let mut block = blocks.scope(0);
        let mut layer_norm = |name| LayerNorm::new(block.scope(name), channels, LAYER_EPSILON);
        let norms = [layer_norm("norm1")?, layer_norm("norm2")?, layer_norm("norm3")?];
        let own = CrossAttention::new(block.scope("attn1"), channels, channels, heads)?;
        let conditions = CrossAttention::new(block.scope("attn2"), channels, conditions, heads)?;
        let feed_forward = GatedFeedForward::new(block.scope("ff"), channels)?;
        let out = Projection::new(builder.scope("proj_out"), settings)?;
        Ok(Self { norm, into, norms, own, conditions, feed_forward, out })
    }

    /// Transforms images `[item, height, width, channel]` under conditions `[item, row, channel]`.
    pub(super) fn forward(&self, context: &Context, images: &Value, conditions: &Value) -> Result<Value> {
        let items = images.dims().first().copied().unwrap_or(0);
        let ragged = |value: &Value| Ragged::packed(&vec![value.rows() / items.max(1); items]);
        let (pixels, rows) = (ragged(images), ragged(conditions));
        let normal = self.norm.forward_activated(context, images, Activation::Identity)?;
        let state = self.into.forward(context, &normal)?;
        let [first, second, third] = &self.norms;
        let normal = first.forward(context, &state)?;
        let state = self.own.forward_onto(context, [&normal, &normal], [&pixels, &pixels], &state)?;
        let normal = second.forward(context, &state)?;
        let state = self.conditions.forward_onto(context, [&normal, conditions], [&pixels, &rows], &state)?;
        let normal = third.forward(context, &state)?;
        let state = self.feed_forward.forward_onto(context, &normal, &state)?;
        self.out.forward(context, &state)?.add(images)
    }
}
