//! The encoder: SANM layers (self-attention with an FSMN memory; Gao et al., arXiv 2006.01713) over chunks.
//!
//! A chunk's window is its own frames behind the last few of the chunk before, so that all but the newest have been seen with what
//! follows them; it attends to itself and to keys and values that earlier windows left. Layer by layer, every window depends on
//! *inputs of the same layer* only, so the windows of many chunks go through one matrix product.

use std::{collections::BTreeMap, ops::Range};

use candle_core::Tensor;
use flowmill_nn::{
    Activation, Context, NnError, ParameterId, Parameters, Reach, Sequences, Value, host,
    init::{Builder, Init},
    layers::{LayerNorm, Linear},
    ops::Attention,
    random::Draw,
};

use crate::extractors::{UnusableWeights, fsmn, sinusoids::Sinusoids};

/// Chunks that go through a layer at a time.
const CHUNKS_PER_PASS: usize = 128;

/// Below this variance nothing is amplified further; the public implementation's own.
const EPSILON: f32 = 1e-12;

/// The chunks that a stream is cut into, in frames after stacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunking {
    /// Frames of the chunk before that are read again in front of a chunk.
    pub overlap: usize,
    /// New frames of a chunk.
    pub size: usize,
    /// Frames at the end of a window that later chunks do not look back to, because they read them again.
    pub lookahead: usize,
    /// Chunks that one looks back.
    pub look_back: usize,
}

impl Default for Chunking {
    fn default() -> Self {
        Self::new([0, 4, 5], 4)
    }
}

impl Chunking {
    /// From FunASR's `chunk_size` and `encoder_chunk_look_back`.
    pub fn new(chunk_size: [usize; 3], look_back: usize) -> Self {
        let [left, size, right] = chunk_size;
        Self { overlap: left.saturating_add(right), size, lookahead: right, look_back }
    }

    /// Rows of a window that later chunks may look back to.
    fn kept(&self, window: usize) -> usize {
        if self.lookahead == 0 { 0 } else { window.saturating_sub(self.lookahead) }
    }
}

/// The sizes of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    /// Values of a stacked frame.
    pub inputs: usize,
    /// Channels.
    pub outputs: usize,
    /// Heads of the attention.
    pub heads: usize,
    /// Channels of the feed-forward layers.
    pub units: usize,
    /// Layers.
    pub blocks: usize,
    /// Taps of the memory.
    pub taps: usize,
}

impl Dimensions {
    /// The sizes of the published model.
    pub fn published() -> Self {
        Self { inputs: 560, outputs: 512, heads: 4, units: 2048, blocks: 50, taps: 11 }
    }

    /// Sizes for smoke runs without weights.
    pub fn small() -> Self {
        Self { outputs: 128, units: 256, blocks: 2, ..Self::published() }
    }

    fn of(tensors: &BTreeMap<String, Tensor>, heads: usize) -> Result<Self, UnusableWeights> {
        let shape = |name: &str| {
            let missing = || {
                let first = tensors.keys().next().map_or("no tensors".to_owned(), |name| format!("`{name}` and so on"));
                UnusableWeights(format!(
                    "not the encoder of an online Paraformer: there is no tensor `{name}`; the file has {first}"
                ))
            };
            tensors.get(name).map(|tensor| tensor.dims().to_vec()).ok_or_else(missing)
        };
        let two = |name: &str| match shape(name)?.as_slice() {
            &[outputs, inputs] => Ok((outputs, inputs)),
            other => Err(UnusableWeights(format!("`{name}` has the shape {other:?}, not 2 axes"))),
        };
        let (_, inputs) = two("encoders0.0.self_attn.linear_q_k_v.weight")?;
        let (outputs, _) = two("encoders0.0.self_attn.linear_out.weight")?;
        let (units, _) = two("encoders0.0.feed_forward.w_1.weight")?;
        let taps = shape("encoders0.0.self_attn.fsmn_block.weight")?.last().copied().unwrap_or(0);
        let number = |name: &str| name.strip_prefix("encoders.")?.split('.').next()?.parse::<usize>().ok();
        let blocks = tensors.keys().filter_map(|name| number(name)).max().map_or(1, |last| last.saturating_add(2));
        if blocks > tensors.len() {
            return Err(UnusableWeights(format!("layers are numbered up to {}, and most are missing", blocks - 2)));
        }
        let dimensions = Self { inputs, outputs, heads, units, blocks, taps };
        dimensions.check()?;
        Ok(dimensions)
    }

    fn check(&self) -> Result<(), UnusableWeights> {
        let Self { inputs, outputs, heads, taps, .. } = *self;
        if heads == 0 || outputs == 0 || !outputs.is_multiple_of(heads) {
            let message = format!("{outputs} channels cannot be divided into {heads} heads; set `heads`");
            return Err(UnusableWeights(message));
        }
        if inputs == 0 || taps == 0 {
            return Err(UnusableWeights(format!("{inputs} values per frame and {taps} taps make no encoder")));
        }
        Ok(())
    }
}

/// An encoder with its weights.
pub struct Encoder {
    dimensions: Dimensions,
    chunking: Chunking,
    parameters: Parameters,
    layers: Vec<Layer>,
    after: LayerNorm,
    positions: Sinusoids,
}

impl Encoder {
    /// An encoder with the given tensors, under the names of the public implementation's `state_dict`.
    ///
    /// # Errors
    /// What is missing, superfluous, or of the wrong shape.
    pub fn from_tensors(
        heads: usize,
        chunking: Chunking,
        tensors: &BTreeMap<String, Tensor>,
    ) -> Result<Self, UnusableWeights> {
        let mut encoder = Self::build(Dimensions::of(tensors, heads)?, chunking, None)?;
        let report = encoder.parameters.load(tensors)?;
        if !report.is_exact() {
            return Err(UnusableWeights(format!("not the weights of an online Paraformer's encoder: {report}")));
        }
        Ok(encoder)
    }

    /// An encoder with random weights.
    ///
    /// # Errors
    /// When there can be no encoder of these sizes.
    pub fn random(dimensions: Dimensions, chunking: Chunking, draw: Draw) -> Result<Self, UnusableWeights> {
        dimensions.check()?;
        Self::build(dimensions, chunking, Some(draw))
    }

    fn build(dimensions: Dimensions, chunking: Chunking, draw: Option<Draw>) -> Result<Self, UnusableWeights> {
        let Dimensions { inputs, outputs, blocks, .. } = dimensions;
        let mut parameters = Parameters::new();
        let mut root = Builder::new(&mut parameters, draw.unwrap_or(Draw::new(0)));
        let random = draw.is_some();
        let mut layers = vec![Layer::new(root.scope("encoders0.0"), &dimensions, inputs, random)?];
        for layer in 1..blocks {
            layers.push(Layer::new(root.scope("encoders").scope(layer - 1), &dimensions, outputs, random)?);
        }
        let after = LayerNorm::new(root.scope("after_norm"), outputs, EPSILON)?;
        Ok(Self { dimensions, chunking, parameters, layers, after, positions: Sinusoids::new(inputs) })
    }

    /// The sizes.
    pub fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    /// How streams are cut.
    pub fn chunking(&self) -> &Chunking {
        &self.chunking
    }

    /// The weights, by the names of the public implementation.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Encodes stacked frames `[frame][value]` that arrive in `chunks` of so many; gives `[frame][channel]`.
    ///
    /// # Errors
    /// When the frames are not those of the chunks.
    pub fn encode(&self, frames: &[f32], chunks: &[usize]) -> Result<Vec<f32>, NnError> {
        let count: usize = chunks.iter().sum();
        if frames.len() != count * self.dimensions.inputs {
            let expected = format!("{count} frames of {} values", self.dimensions.inputs);
            return Err(NnError::shape("Paraformer", expected, &[frames.len()]));
        }
        let stream = self.stream(frames);
        let context = Context::inference(&self.parameters);
        let mut pasts = vec![Past::default(); self.layers.len()];
        let mut out = Vec::with_capacity(count * self.dimensions.outputs);
        let mut start = 0;
        for chunks in chunks.chunks(CHUNKS_PER_PASS) {
            let windows = self.windows(start, chunks);
            start = windows.last().map_or(start, |window| window.end - self.chunking.overlap);
            out.extend(self.pass(&context, &stream, &windows, &mut pasts)?);
        }
        Ok(out)
    }

    /// The scaled frames with their positions, behind as many zeros as windows overlap.
    fn stream(&self, frames: &[f32]) -> Vec<f32> {
        let Dimensions { inputs, outputs, .. } = self.dimensions;
        let scale = (outputs as f32).sqrt();
        let positions = self.positions.table(1, frames.len() / inputs);
        let placed = frames.iter().zip(positions).map(|(value, position)| value * scale + position);
        std::iter::repeat_n(0.0, self.chunking.overlap * inputs).chain(placed).collect()
    }

    /// The frames of the stream that each chunk's window holds.
    fn windows(&self, start: usize, chunks: &[usize]) -> Vec<Range<usize>> {
        let window = |start: &mut usize, chunk: &usize| {
            let window = *start..*start + self.chunking.overlap + chunk;
            *start += chunk;
            Some(window)
        };
        chunks.iter().scan(start, window).collect()
    }

    /// Some windows through all layers; gives the outputs of their new frames.
    fn pass(
        &self,
        context: &Context,
        stream: &[f32],
        windows: &[Range<usize>],
        pasts: &mut [Past],
    ) -> Result<Vec<f32>, NnError> {
        let inputs = self.dimensions.inputs;
        let rows: Vec<f32> =
            windows.iter().flat_map(|window| &stream[window.start * inputs..window.end * inputs]).copied().collect();
        let lengths: Vec<usize> = windows.iter().map(Range::len).collect();
        let windows = Sequences::packed(&lengths);
        let mut hidden = Value::from_vec(rows, &[windows.total(), inputs])?;
        for (layer, past) in self.layers.iter().zip(pasts) {
            hidden = layer.forward(context, &hidden, &windows, &self.chunking, self.dimensions.heads, past)?;
        }
        let hidden = self.after.forward(context, &hidden)?;
        let elements = host::slice("Paraformer", hidden.tensor())?;
        let width = self.dimensions.outputs;
        let fresh = windows.ranges().iter().map(|window| window.start + self.chunking.overlap..window.end);
        Ok(fresh.flat_map(|rows| &elements[rows.start * width..rows.end * width]).copied().collect())
    }
}

/// Keys and values that windows left for later ones, `[row][channel]`.
#[derive(Debug, Clone, Default)]
struct Past {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// One layer.
struct Layer {
    attention_norm: LayerNorm,
    queries_keys_values: Linear,
    memory: ParameterId,
    out: Linear,
    norm: LayerNorm,
    expand: Linear,
    contract: Linear,
    /// Whether the input is added to what the attention gives: not where their widths differ.
    residual: bool,
}

impl Layer {
    fn new(mut builder: Builder, dimensions: &Dimensions, inputs: usize, random: bool) -> Result<Self, NnError> {
        let Dimensions { outputs, units, taps, .. } = *dimensions;
        let init = |fan_in: usize| if random { Init::default_for(fan_in) } else { Init::Constant(0.0) };
        let linear = |builder: Builder, inputs: usize, outputs: usize| {
            Linear::with_init(builder, inputs, outputs, init(inputs), Some(init(inputs)))
        };
        let mut attention = builder.scope("self_attn");
        Ok(Self {
            memory: attention.scope("fsmn_block").add("weight", &[outputs, 1, taps], init(taps))?,
            out: linear(attention.scope("linear_out"), outputs, outputs)?,
            queries_keys_values: linear(attention.scope("linear_q_k_v"), inputs, 3 * outputs)?,
            expand: linear(builder.scope("feed_forward.w_1"), outputs, units)?,
            contract: linear(builder.scope("feed_forward.w_2"), units, outputs)?,
            attention_norm: LayerNorm::new(builder.scope("norm1"), inputs, EPSILON)?,
            norm: LayerNorm::new(builder.scope("norm2"), outputs, EPSILON)?,
            residual: inputs == outputs,
        })
    }

    fn forward(
        &self,
        context: &Context,
        input: &Value,
        windows: &Sequences,
        chunking: &Chunking,
        heads: usize,
        past: &mut Past,
    ) -> Result<Value, NnError> {
        let normal = self.attention_norm.forward(context, input)?;
        let all = self.queries_keys_values.forward(context, &normal)?;
        let width = all.width() / 3;
        let queries = all.channels(0..width)?;
        let [keys, values] = [all.channels(width..2 * width)?, all.channels(2 * width..3 * width)?];
        let seen = Seen::new(windows, chunking, past.keys.len() / width);
        let gather = |fresh: &Value, past: &mut Vec<f32>| seen.gather(fresh, past, width);
        let attention = Attention { heads, reach: Reach::Full, queries: windows, keys: &seen.items, dropout: None };
        let attended =
            queries.attend(&gather(&keys, &mut past.keys)?, &gather(&values, &mut past.values)?, &attention, None)?;
        let residual = if self.residual {
            input.clone()
        } else {
            Value::from_vec(vec![0.0; values.rows() * width], values.dims())?
        };
        let residual = fsmn::add_memory(&residual, &values, &context.parameter(self.memory), windows)?;
        let hidden = self.out.forward_onto(context, &attended, &residual)?;
        let normal = self.norm.forward(context, &hidden)?;
        let inner = self.expand.forward_activated(context, &normal, Activation::Relu)?;
        self.contract.forward_onto(context, &inner, &hidden)
    }
}

/// Which rows every window attends to: some that earlier windows left, then its own.
struct Seen {
    /// For each window the rows, those of the past before those of the pass, as the windows left them.
    left: Vec<Range<usize>>,
    /// For each window its own rows in the pass.
    own: Vec<Range<usize>>,
    /// Rows of the pass that windows leave, in order.
    leaving: Vec<Range<usize>>,
    /// How many rows remain for the next pass.
    remaining: usize,
    /// The gathered rows of each window.
    items: Sequences,
}

impl Seen {
    /// With so many rows left from earlier passes.
    fn new(windows: &Sequences, chunking: &Chunking, past: usize) -> Self {
        let most = chunking.look_back.saturating_mul(chunking.size);
        let own = windows.ranges().to_vec();
        let leaving: Vec<Range<usize>> =
            own.iter().map(|window| window.start..window.start + chunking.kept(window.len())).collect();
        let mut ends = past;
        let left: Vec<Range<usize>> = leaving
            .iter()
            .map(|rows| {
                let left = ends.saturating_sub(most)..ends;
                ends += rows.len();
                left
            })
            .collect();
        let lengths: Vec<usize> = left.iter().zip(&own).map(|(left, own)| left.len() + own.len()).collect();
        Self { left, own, leaving, remaining: most.min(ends), items: Sequences::packed(&lengths) }
    }

    /// The rows that every window attends to; `past` becomes what the next pass may look back to.
    fn gather(&self, fresh: &Value, past: &mut Vec<f32>, width: usize) -> Result<Value, NnError> {
        let fresh = host::slice("Paraformer", fresh.tensor())?;
        let elements = |rows: &Range<usize>| rows.start * width..rows.end * width;
        self.leaving.iter().for_each(|leaving| past.extend_from_slice(&fresh[elements(leaving)]));
        let mut out = Vec::with_capacity(self.items.total() * width);
        for (left, own) in self.left.iter().zip(&self.own) {
            out.extend_from_slice(&past[elements(left)]);
            out.extend_from_slice(&fresh[elements(own)]);
        }
        past.drain(..past.len() - self.remaining * width);
        Value::from_vec(out, &[self.items.total(), width])
    }
}
