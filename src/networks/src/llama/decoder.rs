//! The transformer without a tape: weights are packed once, and sequences can be continued.

use super::block::Block;
use super::prefix::{Prefix, repeat_heads};
use super::{Llama, LlamaConfig};
use flowmill_nn::inference::{KeyValueCache, Linear};
use flowmill_nn::kernels::rms_norm;
use flowmill_nn::layers::{self, RotaryAngles};
use flowmill_nn::ops::Attention;
use flowmill_nn::{Activation, AttentionMask, NnError, ParameterId, Parameters, Ragged, Result, Value, host};
use std::ops::Range;

/// A [`Llama`] with constant weights on the host.
pub struct LlamaDecoder {
    blocks: Vec<DecoderBlock>,
    norm: Norm,
    config: LlamaConfig,
}

/// The weights of one block.
struct DecoderBlock {
    attention_norm: Norm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    feed_forward_norm: Norm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// Normalization by the root mean square.
struct Norm {
    gain: Vec<f32>,
    epsilon: f32,
}

impl Norm {
    fn new(parameters: &Parameters, gain: ParameterId, epsilon: f32) -> Result<Self> {
        Ok(Self { gain: host::read(parameters.tensor(gain))?, epsilon })
    }

    fn forward(&self, input: &Value) -> Result<Value> {
        let x = host::slice("RMS norm", input.tensor())?;
        Value::from_vec(rms_norm::forward(&x, &self.gain, self.epsilon).0, input.dims())
    }
}

/// Packs a linear layer, its adapter included.
pub(crate) fn packed(parameters: &Parameters, layer: &layers::Linear) -> Result<Linear> {
    let weight = host::fetch(&parameters.merged_weight(layer.weight())?)?;
    let bias = layer.bias().map(|bias| host::fetch(parameters.tensor(bias))).transpose()?;
    Linear::new(&weight, bias.as_ref())
}

impl DecoderBlock {
    fn new(parameters: &Parameters, block: &Block, epsilon: f32) -> Result<Self> {
        Ok(Self {
            attention_norm: Norm::new(parameters, block.attention_norm.weight(), epsilon)?,
            query: packed(parameters, &block.query)?,
            key: packed(parameters, &block.key)?,
            value: packed(parameters, &block.value)?,
            output: packed(parameters, &block.output)?,
            feed_forward_norm: Norm::new(parameters, block.feed_forward_norm.weight(), epsilon)?,
            gate: packed(parameters, &block.gate)?,
            up: packed(parameters, &block.up)?,
            down: packed(parameters, &block.down)?,
        })
    }
}

impl LlamaDecoder {
    /// Packs the weights. Adapters are added to them; weights on a device are copied to the host.
    ///
    /// # Errors
    /// When a weight cannot be copied.
    pub fn new(llama: &Llama, parameters: &Parameters) -> Result<Self> {
        let config = llama.config();
        let block = |block| DecoderBlock::new(parameters, block, config.epsilon);
        Ok(Self {
            blocks: llama.blocks.iter().map(block).collect::<Result<_>>()?,
            norm: Norm::new(parameters, llama.norm.weight(), config.epsilon)?,
            config: config.clone(),
        })
    }

    /// Returns an empty cache for a sequence.
    pub fn cache(&self) -> KeyValueCache {
        KeyValueCache::new(self.config.layers, self.config.heads, self.config.head_width())
    }

    /// Returns a cache that begins with a prefix.
    ///
    /// # Errors
    /// When the prefix does not belong to this transformer.
    pub fn cache_after(&self, prefix: &Prefix) -> Result<KeyValueCache> {
        prefix.check(&self.config)?;
        let mut cache = self.cache();
        for (block, parts) in prefix.blocks().iter().enumerate() {
            let [keys, values] = parts.each_ref().map(|part| host::read(repeat_heads(part, &self.config)?.tensor()));
            cache.append(block, &keys?, &values?)?;
        }
        Ok(cache)
    }

    /// Returns the residual stream of rows `[row, channel]`, before the last normalization. With caches, one per item, the rows of
    /// each item continue its cached rows, and are added to them. Without caches, items are whole sequences.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(
        &self,
        embeddings: &Value,
        positions: &[u32],
        items: &Ragged,
        mut caches: Option<&mut [&mut KeyValueCache]>,
    ) -> Result<Value> {
        let angles = RotaryAngles::new(positions, self.config.head_width() / 2, self.config.rotary_base)?;
        let mut state = embeddings.clone();
        for (number, block) in self.blocks.iter().enumerate() {
            let normal = block.attention_norm.forward(&state)?;
            let query = angles.rotate(&block.query.forward(&normal, Activation::Identity)?)?;
            let key = angles.rotate(&block.key.forward(&normal, Activation::Identity)?)?;
            let value = block.value.forward(&normal, Activation::Identity)?;
            let (key, value) = (repeat_heads(&key, &self.config)?, repeat_heads(&value, &self.config)?);
            let attended = match caches.as_deref_mut() {
                Some(caches) => self.attend_cached(number, [&query, &key, &value], items, caches)?,
                None => self.attend([&query, &key, &value], items)?,
            };
            state = block.output.forward_onto(&attended, &state)?;
            let normal = block.feed_forward_norm.forward(&state)?;
            let gate = block.gate.forward(&normal, self.config.activation)?;
            let inner = gate.multiply(&block.up.forward(&normal, Activation::Identity)?)?;
            state = block.down.forward_onto(&inner, &state)?;
        }
        Ok(state)
    }

    /// Applies the last normalization to rows of the residual stream.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn normalize(&self, state: &Value) -> Result<Value> {
        self.norm.forward(state)
    }

    fn attend(&self, [query, key, value]: [&Value; 3], items: &Ragged) -> Result<Value> {
        let attention = Attention {
            heads: self.config.heads,
            attention_mask: AttentionMask::CAUSAL,
            queries: items,
            keys: items,
            dropout: None,
        };
        query.attend(key, value, &attention, None)
    }

    /// Adds the rows of each item to its cache. Whole sequences are computed together; continued ones read their caches.
    fn attend_cached(
        &self,
        block: usize,
        [query, key, value]: [&Value; 3],
        items: &Ragged,
        caches: &mut [&mut KeyValueCache],
    ) -> Result<Value> {
        if caches.len() != items.len() {
            return Err(NnError::invalid(
                "cached attention",
                format!("{} caches for {} items", caches.len(), items.len()),
            ));
        }
        let width = self.config.heads * self.config.head_width();
        let fresh = caches.iter().all(|cache| cache.rows(block) == 0);
        let [queries, keys, values] = [query, key, value].map(|value| host::slice("cached attention", value.tensor()));
        let (queries, keys, values) = (queries?, keys?, values?);
        let elements = |rows: &Range<usize>| rows.start * width..rows.end * width;
        for (cache, rows) in caches.iter_mut().zip(items.ranges()) {
            cache.append(block, &keys[elements(rows)], &values[elements(rows)])?;
        }
        if fresh {
            return self.attend([query, key, value], items);
        }
        let mut out = vec![0.0; queries.len()];
        for (cache, rows) in caches.iter().zip(items.ranges()) {
            cache.attend(block, &queries[elements(rows)], &mut out[elements(rows)])?;
        }
        Value::from_vec(out, query.dims())
    }
}
