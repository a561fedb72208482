//! The transformer on the tape.

use super::LlamaConfig;
use super::prefix::{KeyRows, Prefix, repeat_heads};
use flowmill_nn::init::{Builder, Init};
use flowmill_nn::layers::{Linear, RmsNorm, RotaryAngles};
use flowmill_nn::ops::Attention;
use flowmill_nn::{Context, Ragged, Result, Value};
use std::rc::Rc;

/// Deviation of the initial weights (`initializer_range` in transformers).
const DEVIATION: f32 = 0.02;

/// A causal LLaMA transformer over packed sequences, without its weights.
#[derive(Debug, Clone)]
pub struct Llama {
    pub(super) config: LlamaConfig,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: RmsNorm,
}

impl Llama {
    /// Creates the transformer: parameters `layers.N.*` and `norm.weight`, with normal initial weights like transformers.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(mut builder: Builder, config: &LlamaConfig) -> Result<Self> {
        let mut layers = builder.scope("layers");
        let blocks = (0..config.layers).map(|layer| Block::new(layers.scope(layer), config)).collect::<Result<_>>()?;
        let norm = RmsNorm::new(builder.scope("norm"), config.dim, config.epsilon)?;
        Ok(Self { config: config.clone(), blocks, norm })
    }

    /// Returns the settings.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Returns the residual stream after all blocks, before the last normalization: `[row, channel]` for embeddings `[row, channel]`
    /// at these positions. Each item sees itself only, and within it each row sees the rows up to itself.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, context: &Context, embeddings: &Value, positions: &[u32], items: &Ragged) -> Result<Value> {
        self.forward_after(context, None, embeddings, positions, items)
    }

    /// Like [`forward`](Self::forward), with a prefix that every row of each item sees. The positions are those of the rows themselves;
    /// the public implementation counts them from the number of rows of the prefix on.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward_after(
        &self,
        context: &Context,
        prefix: Option<&Prefix>,
        embeddings: &Value,
        positions: &[u32],
        items: &Ragged,
    ) -> Result<Value> {
        prefix.map_or(Ok(()), |prefix| prefix.check(&self.config))?;
        let angles = RotaryAngles::new(positions, self.config.head_width() / 2, self.config.rotary_base)?;
        let keys = KeyRows::new(items, prefix.map_or(0, Prefix::rows));
        let rows = Rc::new(Rows { angles, items: items.clone(), keys, config: self.config.clone() });
        let mut state = embeddings.clone();
        for (number, block) in self.blocks.iter().enumerate() {
            let (block, rows) = (block.clone(), rows.clone());
            let before = prefix.map(|prefix| &prefix.blocks()[number]).into_iter().flatten();
            let inputs: Vec<&Value> = std::iter::once(&state).chain(before).collect();
            state = context.checkpoint(&inputs, move |context, inputs| {
                let before = inputs.get(1).zip(inputs.get(2));
                block.forward(context, &inputs[0], before, &rows)
            })?;
        }
        Ok(state)
    }

    /// Applies the last normalization to rows of the residual stream.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn normalize(&self, context: &Context, state: &Value) -> Result<Value> {
        self.norm.forward(context, state)
    }
}

/// Positions and items of a batch, and settings, which all blocks share.
struct Rows {
    angles: RotaryAngles,
    items: Ragged,
    keys: KeyRows,
    config: LlamaConfig,
}

/// Attention and gated feed-forward layer.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) attention_norm: RmsNorm,
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) output: Linear,
    pub(super) feed_forward_norm: RmsNorm,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

/// Creates a layer without a bias.
fn linear(builder: Builder, inputs: usize, outputs: usize) -> Result<Linear> {
    Linear::with_init(builder, inputs, outputs, Init::Normal(DEVIATION), None)
}

impl Block {
    fn new(mut builder: Builder, config: &LlamaConfig) -> Result<Self> {
        let LlamaConfig { dim, ffn, epsilon, .. } = *config;
        let attention_norm = RmsNorm::new(builder.scope("input_layernorm"), dim, epsilon)?;
        let mut scope = builder.scope("self_attn");
        let query = linear(scope.scope("q_proj"), dim, dim)?;
        let key = linear(scope.scope("k_proj"), dim, config.key_value_width())?;
        let value = linear(scope.scope("v_proj"), dim, config.key_value_width())?;
        let output = linear(scope.scope("o_proj"), dim, dim)?;
        let feed_forward_norm = RmsNorm::new(builder.scope("post_attention_layernorm"), dim, epsilon)?;
        let mut scope = builder.scope("mlp");
        let gate = linear(scope.scope("gate_proj"), dim, ffn)?;
        let up = linear(scope.scope("up_proj"), dim, ffn)?;
        let down = linear(scope.scope("down_proj"), ffn, dim)?;
        Ok(Self { attention_norm, query, key, value, output, feed_forward_norm, gate, up, down })
    }

    fn forward(
        &self,
        context: &Context,
        state: &Value,
        prefix: Option<(&Value, &Value)>,
        rows: &Rows,
    ) -> Result<Value> {
        let normal = self.attention_norm.forward(context, state)?;
        let query = rows.angles.rotate(&self.query.forward(context, &normal)?)?;
        let mut key = rows.angles.rotate(&self.key.forward(context, &normal)?)?;
        let mut value = self.value.forward(context, &normal)?;
        if let Some((keys, values)) = prefix {
            key = rows.keys.join(keys, &key)?;
            value = rows.keys.join(values, &value)?;
        }
        let (key, value) = (repeat_heads(&key, &rows.config)?, repeat_heads(&value, &rows.config)?);
        let attention = Attention {
            heads: rows.config.heads,
            attention_mask: rows.keys.attention_mask(),
            queries: &rows.items,
            keys: &rows.keys.items,
            dropout: context.attention_dropout(rows.config.attention_dropout),
        };
        let attended = query.attend(&key, &value, &attention, None)?;
        let state = self.output.forward_onto(context, &attended, state)?;
        let normal = self.feed_forward_norm.forward(context, &state)?;
        let gate = self.gate.forward(context, &normal)?;
        let inner = gate.gated(&self.up.forward(context, &normal)?, rows.config.activation)?;
        self.down.forward_onto(context, &inner, &state)
    }
}
