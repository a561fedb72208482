//! The transformer of images and texts: normalization before each part, biases everywhere.

use super::{ClipError, Result};
use flowmill_nn::init::Builder;
use flowmill_nn::layers::{LayerNorm, Linear};
use flowmill_nn::ops::Attention;
use flowmill_nn::{Activation, AttentionMask, Context, Ragged, Value};

/// The factor of the quick approximation of GELU, `x sigmoid(1.702 x)`.
const QUICK: f32 = 1.702;

/// Settings of a transformer.
#[derive(Debug, Clone, Copy)]
pub(super) struct TransformerSettings {
    pub(super) channels: usize,
    /// Channels inside the feed-forward layers.
    pub(super) inner: usize,
    pub(super) blocks: usize,
    pub(super) heads: usize,
    pub(super) epsilon: f32,
    /// True for the quick approximation of GELU.
    pub(super) quick: bool,
    /// True if rows see earlier rows only.
    pub(super) causal: bool,
}

impl TransformerSettings {
    pub(super) fn check(self, field: &'static str) -> Result<()> {
        if self.channels.is_multiple_of(self.heads) {
            return Ok(());
        }
        Err(ClipError::Config { field, message: format!("{} channels in {} heads", self.channels, self.heads) })
    }
}

/// The blocks of a transformer.
#[derive(Debug, Clone)]
pub(super) struct Transformer {
    blocks: Vec<Block>,
    settings: TransformerSettings,
}

#[derive(Debug, Clone)]
struct Block {
    norms: [LayerNorm; 2],
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    first: Linear,
    second: Linear,
}

impl Transformer {
    pub(super) fn new(mut builder: Builder, settings: TransformerSettings) -> flowmill_nn::Result<Self> {
        let mut layers = builder.scope("layers");
        let blocks = (0..settings.blocks).map(|block| Block::new(layers.scope(block), settings));
        Ok(Self { blocks: blocks.collect::<flowmill_nn::Result<_>>()?, settings })
    }

    /// Returns the states `[row, channel]` before the last block and after it.
    pub(super) fn forward(&self, context: &Context, input: &Value, items: &Ragged) -> flowmill_nn::Result<[Value; 2]> {
        let (mut before, mut state) = (input.clone(), input.clone());
        for block in &self.blocks {
            let (block, settings, items) = (block.clone(), self.settings, items.clone());
            before = state;
            state = context
                .checkpoint(&[&before], move |context, inputs| block.forward(context, &inputs[0], settings, &items))?;
        }
        Ok([before, state])
    }
}

impl Block {
    fn new(mut builder: Builder, settings: TransformerSettings) -> flowmill_nn::Result<Self> {
        let TransformerSettings { channels, inner, epsilon, .. } = settings;
        let first_norm = LayerNorm::new(builder.scope("layer_norm1"), channels, epsilon)?;
        let mut scope = builder.scope("self_attn");
        let mut projection = |name| Linear::new(scope.scope(name), channels, channels);
        let (query, key) = (projection("q_proj")?, projection("k_proj")?);
        let (value, output) = (projection("v_proj")?, projection("out_proj")?);
        let second_norm = LayerNorm::new(builder.scope("layer_norm2"), channels, epsilon)?;
        let mut scope = builder.scope("mlp");
        let first = Linear::new(scope.scope("fc1"), channels, inner)?;
        let second = Linear::new(scope.scope("fc2"), inner, channels)?;
        Ok(Self { norms: [first_norm, second_norm], query, key, value, output, first, second })
    }

    fn forward(
        &self,
        context: &Context,
        state: &Value,
        settings: TransformerSettings,
        items: &Ragged,
    ) -> flowmill_nn::Result<Value> {
        let normal = self.norms[0].forward(context, state)?;
        let [query, key, value] = [&self.query, &self.key, &self.value].map(|layer| layer.forward(context, &normal));
        let attention = Attention {
            heads: settings.heads,
            attention_mask: if settings.causal { AttentionMask::CAUSAL } else { AttentionMask::Full },
            queries: items,
            keys: items,
            dropout: None,
        };
        let attended = query?.attend(&key?, &value?, &attention, None)?;
        let state = self.output.forward_onto(context, &attended, state)?;
        let normal = self.norms[1].forward(context, &state)?;
        let inner = match settings.quick {
            true => {
                let scaled = self.first.forward(context, &normal)?.affine(QUICK, 0.0)?;
                scaled.activate(Activation::Silu)?.affine(1.0 / QUICK, 0.0)?
            }
            false => self.first.forward_activated(context, &normal, Activation::Gelu)?,
        };
        self.second.forward_onto(context, &inner, &state)
    }
}
