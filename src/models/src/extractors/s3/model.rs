//! The network: Whisper's encoder at 25 Hz, in the second version with rotary positions and an FSMN memory beside each attention.

use std::collections::BTreeMap;

use candle_core::Tensor;
use flowmill_nn::{
    Activation, Context, NnError, ParameterId, Parameters, Reach, Sequences, Value,
    init::{Builder, Init},
    layers::{Conv1d, LayerNorm, Linear},
    ops::{Attention, Convolution},
    random::Draw,
};

use super::{
    dimensions::{Dimensions, FSQ_DIGITS, Version},
    projection::Projection,
    quantizer::{Lookup, three_levels},
    rotary::Rotary,
};
use crate::extractors::{UnusableWeights, fsmn, sinusoids::Sinusoids};

/// Taps of the FSMN memory.
const MEMORY_TAPS: usize = 31;

/// Log-mel frames of a batch, `[item, time, band]` padded or `[frame, band]` packed.
pub struct Frames {
    /// The frames.
    pub mel: Value,
    /// The rows of each item that count.
    pub valid: Sequences,
}

impl Frames {
    /// Items one after the other, each `[frame][band]`.
    ///
    /// # Errors
    /// When an item is not whole frames.
    pub fn packed(items: &[&[f32]], bands: usize) -> Result<Self, NnError> {
        let lengths: Vec<usize> = items.iter().map(|item| item.len() / bands.max(1)).collect();
        let valid = Sequences::packed(&lengths);
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
        Ok(Self { valid: Sequences::padded(lengths, time)?, mel })
    }
}

/// What the encoder makes of a batch.
pub struct Hidden {
    /// `[row, channel]`, or `[item, time, channel]` of a padded batch, padding included.
    pub hidden: Value,
    /// The rows of each item.
    pub valid: Sequences,
}

/// A tokenizer with its weights.
pub struct S3Tokenizer {
    version: Version,
    dimensions: Dimensions,
    parameters: Parameters,
    convolutions: [Conv1d; 2],
    positions: Positions,
    blocks: Vec<Block>,
    quantizer: Quantizer,
}

/// How positions enter.
enum Positions {
    /// Added to the frames: a table `[position, channel]`.
    Added(ParameterId),
    /// Turned into queries and keys.
    Rotary(Rotary),
}

/// From channels to tokens.
enum Quantizer {
    Nearest(Lookup),
    ThreeLevels(Linear),
}

impl S3Tokenizer {
    /// A tokenizer with the given tensors, under the names of the public implementation's `state_dict`.
    ///
    /// # Errors
    /// What is missing, superfluous, or of the wrong shape.
    pub fn from_tensors(
        version: Version,
        heads: Option<usize>,
        tensors: &BTreeMap<String, Tensor>,
    ) -> Result<Self, UnusableWeights> {
        let dimensions = Dimensions::of(version, tensors, heads)?;
        let (mut parameters, layers) = layers(version, &dimensions, None)?;
        let report = parameters.load(tensors)?;
        if !report.is_exact() {
            return Err(UnusableWeights(format!("not the weights of an S3 tokenizer {}: {report}", version.name())));
        }
        Ok(Self::assemble(version, dimensions, parameters, layers)?)
    }

    /// A tokenizer with random weights: its tokens mean nothing.
    ///
    /// # Errors
    /// When there can be no model of these sizes.
    pub fn random(version: Version, dimensions: Dimensions, draw: Draw) -> Result<Self, UnusableWeights> {
        dimensions.check(version)?;
        let (mut parameters, layers) = layers(version, &dimensions, Some(draw))?;
        if let Some(id) = parameters.find("encoder.positional_embedding") {
            let table = Sinusoids::new(dimensions.state).table(0, dimensions.positions);
            let table = Value::from_vec(table, &[dimensions.positions, dimensions.state])?;
            parameters.set(id, table.tensor().clone())?;
        }
        Ok(Self::assemble(version, dimensions, parameters, layers)?)
    }

    fn assemble(
        version: Version,
        dimensions: Dimensions,
        parameters: Parameters,
        layers: Layers,
    ) -> Result<Self, NnError> {
        let Layers { convolutions, positions, modules, codebook } = layers;
        let blocks = modules.into_iter().enumerate();
        let blocks =
            blocks.map(|(block, modules)| Block::new(&parameters, &format!("encoder.blocks.{block}"), modules));
        let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
        let positions = match positions {
            Some(table) => Positions::Added(table),
            None => Positions::Rotary(Rotary::new(dimensions.state / dimensions.heads)),
        };
        let quantizer = match codebook {
            Codebook::Entries(entries) => Quantizer::Nearest(Lookup::new(parameters.tensor(entries))?),
            Codebook::Digits(linear) => Quantizer::ThreeLevels(linear),
        };
        Ok(Self { version, dimensions, parameters, convolutions, positions, blocks, quantizer })
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The sizes.
    pub fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    /// The weights, by the names of the public implementation.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Tokens of an item of so many log-mel frames.
    pub fn tokens_of(frames: usize) -> usize {
        frames.div_ceil(2).div_ceil(2)
    }

    /// Runs the encoder.
    ///
    /// # Errors
    /// When an item has no frame, or more than there are positions for.
    pub fn encode(&self, frames: &Frames) -> Result<Hidden, NnError> {
        let context = Context::inference(&self.parameters);
        let mut hidden = frames.mel.clone();
        let mut valid = frames.valid.clone();
        for convolution in &self.convolutions {
            (hidden, valid) = convolve(convolution, &context, &hidden, &valid)?;
        }
        let whole = whole(&hidden, &valid)?;
        let turned = match &self.positions {
            Positions::Added(table) => {
                hidden = add_positions(&hidden, &context.parameter(*table), &whole)?;
                None
            }
            Positions::Rotary(rotary) => Some(rotary.angles(&whole)),
        };
        for block in &self.blocks {
            hidden = block.forward(&context, &hidden, self.dimensions.heads, [&whole, &valid], turned.as_ref())?;
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
            Quantizer::ThreeLevels(projection) => {
                three_levels(&projection.forward(&Context::inference(&self.parameters), hidden)?)
            }
        }
    }

    /// The tokens of each item, `[frame][band]`.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn tokens(&self, items: &[&[f32]]) -> Result<Vec<Vec<u32>>, NnError> {
        let Hidden { hidden, valid } = self.encode(&Frames::packed(items, self.dimensions.n_mels)?)?;
        let tokens = self.quantize(&hidden)?;
        Ok(valid.ranges().iter().map(|rows| tokens[rows.clone()].to_vec()).collect())
    }
}

/// The modules before their weights are known.
struct Layers {
    convolutions: [Conv1d; 2],
    positions: Option<ParameterId>,
    modules: Vec<BlockModules>,
    codebook: Codebook,
}

enum Codebook {
    Entries(ParameterId),
    Digits(Linear),
}

/// Registers all modules; without a `draw` the weights are zeros that wait to be loaded.
fn layers(version: Version, dimensions: &Dimensions, draw: Option<Draw>) -> Result<(Parameters, Layers), NnError> {
    let Dimensions { n_mels, state, layers, entries, positions, .. } = *dimensions;
    let mut parameters = Parameters::new();
    let mut root = Builder::new(&mut parameters, draw.unwrap_or(Draw::new(0)));
    let start = Start { random: draw.is_some() };
    let mut encoder = root.scope("encoder");
    let convolution = |builder: Builder, inputs: usize| {
        let settings = Convolution { stride: 2, padding: [1, 1], ..Convolution::default() };
        let init = start.init(3 * inputs);
        Conv1d::with_init(builder, [state, inputs, 3], settings, init, init)
    };
    let convolutions = [convolution(encoder.scope("conv1"), n_mels)?, convolution(encoder.scope("conv2"), state)?];
    let table = match version {
        Version::V1 => Some(encoder.add("positional_embedding", &[positions, state], Init::Constant(0.0))?),
        Version::V2 => None,
    };
    let mut modules = Vec::with_capacity(layers.min(1024));
    for block in 0..layers {
        modules.push(BlockModules::new(encoder.scope("blocks").scope(block), version, state, start)?);
    }
    let mut quantizer = root.scope("quantizer");
    let mut scope = quantizer.scope("_codebook");
    let codebook = match version {
        Version::V1 => Codebook::Entries(scope.add("embed", &[entries, state], start.init(1))?),
        Version::V2 => Codebook::Digits(start.linear(scope.scope("project_down"), state, FSQ_DIGITS)?),
    };
    Ok((parameters, Layers { convolutions, positions: table, modules, codebook }))
}

/// How weights begin.
#[derive(Clone, Copy)]
struct Start {
    random: bool,
}

impl Start {
    fn init(self, fan_in: usize) -> Init {
        if self.random { Init::default_for(fan_in) } else { Init::Constant(0.0) }
    }

    fn linear(self, builder: Builder, inputs: usize, outputs: usize) -> Result<Linear, NnError> {
        let init = self.init(inputs);
        Linear::with_init(builder, inputs, outputs, init, Some(init))
    }
}

/// A convolution and its activation; padded batches stay padded, packed ones packed.
fn convolve(
    convolution: &Conv1d,
    context: &Context,
    input: &Value,
    valid: &Sequences,
) -> Result<(Value, Sequences), NnError> {
    let halved: Vec<usize> = valid.lengths().iter().map(|length| length.div_ceil(2)).collect();
    let (output, valid) = match input.dims() {
        &[_, _, _] => {
            let output = convolution.forward(context, input, Some(&valid.lengths()))?;
            let valid = Sequences::padded(&halved, output.dims()[1])?;
            (output, valid)
        }
        _ => (convolution.forward_packed(context, input, valid)?, Sequences::packed(&halved)),
    };
    Ok((output.activate(Activation::Gelu)?, valid))
}

/// All rows of each item, padding included.
fn whole(hidden: &Value, valid: &Sequences) -> Result<Sequences, NnError> {
    match hidden.dims() {
        &[items, time, _] => Sequences::padded(&vec![time; items], time),
        _ => Ok(valid.clone()),
    }
}

/// Adds its position's encoding to each row.
fn add_positions(hidden: &Value, table: &Value, items: &Sequences) -> Result<Value, NnError> {
    let positions: Vec<u32> = items.ranges().iter().flat_map(|rows| 0..rows.len() as u32).collect();
    if let Some(longest) = positions.iter().max().filter(|last| **last as usize >= table.dims()[0]) {
        let limit = table.dims()[0];
        return Err(NnError::invalid("S3 tokenizer", format!("{} tokens at once, {limit} at most", longest + 1)));
    }
    hidden.add(&table.embed(&positions, hidden.dims().split_last().map_or(&[][..], |(_, rows)| rows))?)
}

/// The modules of a block that are used as they were registered; its linear layers are arranged anew once they have weights.
struct BlockModules {
    attention_norm: LayerNorm,
    memory: Option<ParameterId>,
    norm: LayerNorm,
}

impl BlockModules {
    fn new(mut builder: Builder, version: Version, state: usize, start: Start) -> Result<Self, NnError> {
        // The public implementation gives the first normalisation of version 2 an epsilon of its own.
        let epsilon = if version == Version::V2 { 1e-6 } else { 1e-5 };
        let mut attention = builder.scope("attn");
        let memory = match version {
            Version::V1 => None,
            Version::V2 => {
                let shape = [state, 1, MEMORY_TAPS];
                Some(attention.scope("fsmn_block").add("weight", &shape, start.init(MEMORY_TAPS))?)
            }
        };
        for name in ["query", "value", "out"] {
            start.linear(attention.scope(name), state, state)?;
        }
        Linear::with_init(attention.scope("key"), state, state, start.init(state), None)?;
        start.linear(builder.scope("mlp.0"), state, 4 * state)?;
        start.linear(builder.scope("mlp.2"), 4 * state, state)?;
        Ok(Self {
            memory,
            attention_norm: LayerNorm::new(builder.scope("attn_ln"), state, epsilon)?,
            norm: LayerNorm::new(builder.scope("mlp_ln"), state, 1e-5)?,
        })
    }
}

/// A transformer block.
struct Block {
    modules: BlockModules,
    query: Projection,
    key: Projection,
    value: Projection,
    out: Projection,
    expand: Projection,
    contract: Projection,
}

impl Block {
    fn new(parameters: &Parameters, prefix: &str, modules: BlockModules) -> Result<Self, NnError> {
        let projection = |name: &str| Projection::new(parameters, &format!("{prefix}.{name}"));
        Ok(Self {
            modules,
            query: projection("attn.query")?,
            key: projection("attn.key")?,
            value: projection("attn.value")?,
            out: projection("attn.out")?,
            expand: projection("mlp.0")?,
            contract: projection("mlp.2")?,
        })
    }

    fn forward(
        &self,
        context: &Context,
        input: &Value,
        heads: usize,
        [whole, valid]: [&Sequences; 2],
        rotary: Option<&super::rotary::Angles>,
    ) -> Result<Value, NnError> {
        let normal = self.modules.attention_norm.forward(context, input)?;
        let project = |projection: &Projection| projection.forward(&normal, Activation::Identity);
        let (mut queries, mut keys, values) = (project(&self.query)?, project(&self.key)?, project(&self.value)?);
        if let Some(angles) = rotary {
            queries = angles.turn(&queries)?;
            keys = angles.turn(&keys)?;
        }
        let attention = Attention { heads, reach: Reach::Full, queries: whole, keys: valid, dropout: None };
        let attended = queries.attend(&keys, &values, &attention, None)?;
        let residual = match self.modules.memory {
            Some(taps) => fsmn::add_memory(input, &values, &context.parameter(taps), valid)?,
            None => input.clone(),
        };
        let hidden = self.out.forward_onto(&attended, &residual)?;
        let normal = self.modules.norm.forward(context, &hidden)?;
        let inner = self.expand.forward(&normal, Activation::Gelu)?;
        self.contract.forward_onto(&inner, &hidden)
    }
}
