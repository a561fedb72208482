//! The network: Whisper's encoder at 25 Hz, since the second version with rotary positions and an FSMN memory next to each attention.

use candle_core::Tensor;
use flowmill_nn::{
    Activation, AttentionMask, NnError, Ragged, Value,
    inference::{Convolution1d, LayerNorm, Linear},
    ops::{Attention, Convolution},
};

use super::{
    LayerNormEpsilon,
    checkpoint::Checkpoint,
    dimensions::{Dimensions, Version},
    quantizer::{Lookup, three_levels},
    rotary::{Angles, Rotary},
};
use crate::{UnusableWeights, tensors::Tensors};

/// Log-mel frames of a batch, `[item, time, band]` padded or `[frame, band]` packed.
pub struct Frames {
    /// The frames.
    pub mel: Value,
    /// The rows of each item that count.
    pub valid: Ragged,
}

impl Frames {
    /// Items one after the other, each `[frame][band]`.
    ///
    /// # Errors
    /// When an item is not whole frames.
    pub fn packed(items: &[&[f32]], bands: usize) -> Result<Self, NnError> {
        let lengths: Vec<usize> = items.iter().map(|item| item.len() / bands.max(1)).collect();
        let valid = Ragged::packed(&lengths);
        let mel = Value::from_vec(items.concat(), &[valid.total(), bands])?;
        Ok(Self { mel, valid })
    }

    /// A padded batch `[item, time, band]`; frames beyond an item's length do not count.
    ///
    /// # Errors
    /// When the shape or the lengths do not fit.
    pub fn padded(mel: Value, lengths: &[usize]) -> Result<Self, NnError> {
        let &[_, time, _] = mel.dims() else {
            return Err(NnError::shape("log-mel", "[item, time, band]", mel.dims()));
        };
        Ok(Self { valid: Ragged::padded(lengths, time)?, mel })
    }
}

/// The encoder's output for a batch.
pub struct Hidden {
    /// The hidden values: `[row, channel]`, or `[item, time, channel]` of a padded batch, padding included.
    pub hidden: Value,
    /// The rows of each item.
    pub valid: Ragged,
}

/// A tokenizer, ready to run on the device of its weights. On the CPU they are packed, and in memory in no other form.
pub struct S3Tokenizer {
    version: Version,
    dimensions: Dimensions,
    convolutions: [Convolution1d; 2],
    positions: Positions,
    blocks: Vec<Block>,
    quantizer: Quantizer,
}

/// The way in which positions enter.
enum Positions {
    /// Added to the frames: a table `[position, channel]`.
    Added(Tensor),
    /// Turned into queries and keys.
    Rotary(Rotary),
}

/// The quantizer from channels to tokens.
enum Quantizer {
    Nearest(Lookup),
    ThreeLevels(Linear),
}

impl S3Tokenizer {
    /// Packs the weights of a checkpoint.
    ///
    /// # Errors
    /// When a layer cannot be made of them.
    pub fn new(checkpoint: Checkpoint) -> Result<Self, UnusableWeights> {
        let (version, dimensions) = (checkpoint.version(), *checkpoint.dimensions());
        let mut tensors = Tensors::of(checkpoint.parameters());
        let epsilons = checkpoint.epsilons().to_vec();
        drop(checkpoint);
        let mut convolution = |name: &str| {
            let settings = Convolution { stride: 2, padding: [1, 1], ..Convolution::default() };
            let weight = tensors.take(&format!("{name}.weight"))?;
            Ok::<_, UnusableWeights>(Convolution1d::new(&weight, &tensors.take(&format!("{name}.bias"))?, settings)?)
        };
        let convolutions = [convolution("encoder.conv1")?, convolution("encoder.conv2")?];
        let positions = match version {
            Version::V1 => Positions::Added(tensors.take("encoder.positional_embedding")?),
            Version::V2 | Version::V3 => Positions::Rotary(Rotary::new(dimensions.state / dimensions.heads)),
        };
        let blocks = 0..dimensions.layers;
        let blocks = blocks.map(|block| {
            let epsilon = epsilons.get(block).or(epsilons.first()).copied().unwrap_or_default();
            Block::new(&mut tensors, &format!("encoder.blocks.{block}"), version, epsilon)
        });
        let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
        let quantizer = match version {
            Version::V1 => Quantizer::Nearest(Lookup::new(&tensors.take("quantizer._codebook.embed")?)?),
            Version::V2 | Version::V3 => Quantizer::ThreeLevels(tensors.linear("quantizer._codebook.project_down")?),
        };
        Ok(Self { version, dimensions, convolutions, positions, blocks, quantizer })
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The sizes.
    pub fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    /// Returns the number of tokens of an item with `frames` log-mel frames.
    pub fn tokens_of(frames: usize) -> usize {
        frames.div_ceil(2).div_ceil(2)
    }

    /// Runs the encoder.
    ///
    /// # Errors
    /// When an item has no frame, or more than there are positions for.
    pub fn encode(&self, frames: &Frames) -> Result<Hidden, NnError> {
        let mut hidden = frames.mel.clone();
        let mut valid = frames.valid.clone();
        for convolution in &self.convolutions {
            hidden = convolution.forward(&hidden, &valid, Activation::Gelu)?;
            valid = halved(&valid, &hidden)?;
        }
        let whole = whole(&hidden, &valid)?;
        let turned = match &self.positions {
            Positions::Added(table) => {
                hidden = add_positions(&hidden, &Value::plain(table.clone())?, &whole)?;
                None
            }
            Positions::Rotary(rotary) => Some(rotary.angles(&whole)?),
        };
        for block in &self.blocks {
            hidden = block.forward(&hidden, self.dimensions.heads, [&whole, &valid], turned.as_ref())?;
        }
        Ok(Hidden { hidden, valid })
    }

    /// The token of every row that the encoder gave.
    ///
    /// # Errors
    /// When `hidden` is not of this model.
    pub fn quantize(&self, hidden: &Value) -> Result<Vec<u32>, NnError> {
        match &self.quantizer {
            Quantizer::Nearest(lookup) => lookup.tokens(hidden),
            Quantizer::ThreeLevels(projection) => three_levels(&projection.forward(hidden, Activation::Identity)?),
        }
    }

    /// The tokens of each item, `[frame][band]`.
    ///
    /// # Errors
    /// The errors of [`encode`](Self::encode).
    pub fn tokens(&self, items: &[&[f32]]) -> Result<Vec<Vec<u32>>, NnError> {
        let Hidden { hidden, valid } = self.encode(&Frames::packed(items, self.dimensions.n_mels)?)?;
        let tokens = self.quantize(&hidden)?;
        Ok(valid.ranges().iter().map(|rows| tokens[rows.clone()].to_vec()).collect())
    }
}

/// The rows of each item behind a convolution of stride 2; padded batches stay padded, packed ones packed.
fn halved(valid: &Ragged, output: &Value) -> Result<Ragged, NnError> {
    let lengths: Vec<usize> = valid.lengths().iter().map(|length| length.div_ceil(2)).collect();
    match *output.dims() {
        [_, time, _] => Ragged::padded(&lengths, time),
        _ => Ok(Ragged::packed(&lengths)),
    }
}

/// Returns all rows of each item, padding included.
fn whole(hidden: &Value, valid: &Ragged) -> Result<Ragged, NnError> {
    match hidden.dims() {
        &[items, time, _] => Ragged::padded(&vec![time; items], time),
        _ => Ok(valid.clone()),
    }
}

/// Adds its position's encoding to each row.
fn add_positions(hidden: &Value, table: &Value, items: &Ragged) -> Result<Value, NnError> {
    let positions: Vec<u32> = items.ranges().iter().flat_map(|rows| 0..rows.len() as u32).collect();
    if let Some(longest) = positions.iter().max().filter(|last| **last as usize >= table.dims()[0]) {
        let limit = table.dims()[0];
        return Err(NnError::invalid("S3 tokenizer", format!("{} tokens at once, {limit} at most", longest + 1)));
    }
    hidden.add(&table.embed(&positions, hidden.dims().split_last().map_or(&[][..], |(_, rows)| rows))?)
}

/// A transformer block.
struct Block {
    attention_norm: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    /// Taps of the FSMN memory, `[channel, 1, tap]`.
    memory: Option<Tensor>,
    out: Linear,
    norm: LayerNorm,
    expand: Linear,
    contract: Linear,
}

impl Block {
    fn new(
        tensors: &mut Tensors,
        prefix: &str,
        version: Version,
        epsilon: LayerNormEpsilon,
    ) -> Result<Self, UnusableWeights> {
        let name = |part: &str| format!("{prefix}.{part}");
        let memory = match version {
            Version::V1 => None,
            Version::V2 | Version::V3 => Some(tensors.take(&name("attn.fsmn_block.weight"))?),
        };
        Ok(Self {
            memory,
            attention_norm: tensors.layer_norm(&name("attn_ln"), epsilon.attn_ln as f32)?,
            query: tensors.linear(&name("attn.query"))?,
            key: tensors.linear(&name("attn.key"))?,
            value: tensors.linear(&name("attn.value"))?,
            out: tensors.linear(&name("attn.out"))?,
            norm: tensors.layer_norm(&name("mlp_ln"), epsilon.mlp_ln as f32)?,
            expand: tensors.linear(&name("mlp.0"))?,
            contract: tensors.linear(&name("mlp.2"))?,
        })
    }

    fn forward(
        &self,
        input: &Value,
        heads: usize,
        [whole, valid]: [&Ragged; 2],
        rotary: Option<&Angles>,
    ) -> Result<Value, NnError> {
        let normal = self.attention_norm.forward(input)?;
        let project = |linear: &Linear| linear.forward(&normal, Activation::Identity);
        let (mut queries, mut keys, values) = (project(&self.query)?, project(&self.key)?, project(&self.value)?);
        if let Some(angles) = rotary {
            queries = angles.turn(&queries)?;
            keys = angles.turn(&keys)?;
        }
        let attention =
            Attention { heads, attention_mask: AttentionMask::Full, queries: whole, keys: valid, dropout: None };
        let attended = queries.attend(&keys, &values, &attention, None)?;
        let residual = match &self.memory {
            Some(taps) => input.add_memory(&values, &Value::plain(taps.clone())?, valid)?,
            None => input.clone(),
        };
        let hidden = self.out.forward_onto(&attended, &residual)?;
        let normal = self.norm.forward(&hidden)?;
        let inner = self.expand.forward(&normal, Activation::Gelu)?;
        self.contract.forward_onto(&inner, &hidden)
    }
}
