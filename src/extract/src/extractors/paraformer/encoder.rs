//! The encoder: SANM layers (self-attention with an FSMN memory; Gao et al., arXiv 2006.01713) over chunks.
//!
//! A chunk's window is its own frames behind the last few of the chunk before, so that all but the newest have been seen with what
//! follows them; it attends to itself and to keys and values that earlier windows kept. Layer by layer, every window depends on
//! *inputs of the same layer* only, so the windows of many chunks go through one matrix product.

use std::ops::Range;

use candle_core::Tensor;
use flowmill_nn::{
    Activation, AttentionMask, NnError, Ragged, Value, host,
    inference::{LayerNorm, Linear},
    ops::Attention,
};

use super::checkpoint::{Checkpoint, Dimensions, layers};
use crate::{UnusableWeights, sinusoids::Sinusoids, tensors::Tensors};

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
    /// Creates the chunking from FunASR's `chunk_size` and `encoder_chunk_look_back`.
    pub fn new(chunk_size: [usize; 3], look_back: usize) -> Self {
        let [left, size, right] = chunk_size;
        Self { overlap: left.saturating_add(right), size, lookahead: right, look_back }
    }

    /// Rows of a window that later chunks may look back to.
    fn kept(&self, window: usize) -> usize {
        if self.lookahead == 0 { 0 } else { window.saturating_sub(self.lookahead) }
    }
}

/// An encoder, ready to run on the device of its weights. On the CPU they are packed, and in memory in no other form.
pub struct Encoder {
    dimensions: Dimensions,
    chunking: Chunking,
    layers: Vec<Layer>,
    after: LayerNorm,
    positions: Sinusoids,
}

impl Encoder {
    /// Packs the weights of a checkpoint.
    ///
    /// # Errors
    /// When a layer cannot be made of them.
    pub fn new(checkpoint: Checkpoint, chunking: Chunking) -> Result<Self, UnusableWeights> {
        let dimensions = *checkpoint.dimensions();
        let mut tensors = Tensors::of(checkpoint.parameters());
        drop(checkpoint);
        let layers = layers(&dimensions).map(|(name, inputs)| Layer::new(&mut tensors, &name, inputs, &dimensions));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let after = tensors.layer_norm("after_norm", EPSILON)?;
        Ok(Self { dimensions, chunking, layers, after, positions: Sinusoids::new(dimensions.inputs) })
    }

    /// The sizes.
    pub fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    /// Returns the chunking of streams.
    pub fn chunking(&self) -> &Chunking {
        &self.chunking
    }

    /// Encodes stacked frames `[frame][value]` that arrive in chunks with `chunks` frames each; gives `[frame][channel]`.
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
        let mut pasts = vec![Past::default(); self.layers.len()];
        let mut out = Vec::with_capacity(count * self.dimensions.outputs);
        let mut start = 0;
        for chunks in chunks.chunks(CHUNKS_PER_PASS) {
            let windows = self.windows(start, chunks);
            start = windows.last().map_or(start, |window| window.end - self.chunking.overlap);
            out.extend(self.pass(&stream, &windows, &mut pasts)?);
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

    /// Runs some windows through all layers; gives the outputs of their new frames.
    fn pass(&self, stream: &[f32], windows: &[Range<usize>], pasts: &mut [Past]) -> Result<Vec<f32>, NnError> {
        let inputs = self.dimensions.inputs;
        let rows: Vec<f32> =
            windows.iter().flat_map(|window| &stream[window.start * inputs..window.end * inputs]).copied().collect();
        let lengths: Vec<usize> = windows.iter().map(Range::len).collect();
        let windows = Ragged::packed(&lengths);
        let mut hidden = Value::from_vec(rows, &[windows.total(), inputs])?;
        for (layer, past) in self.layers.iter().zip(pasts) {
            hidden = layer.forward(&hidden, &windows, &self.chunking, self.dimensions.heads, past)?;
        }
        let hidden = self.after.forward(&hidden)?;
        let elements = host::read(hidden.tensor())?;
        let width = self.dimensions.outputs;
        let fresh = windows.ranges().iter().map(|window| window.start + self.chunking.overlap..window.end);
        Ok(fresh.flat_map(|rows| &elements[rows.start * width..rows.end * width]).copied().collect())
    }
}

/// Keys and values that windows keep for later ones, `[row, channel]`; none where there are no rows.
#[derive(Debug, Clone, Default)]
struct Past {
    keys: Option<Value>,
    values: Option<Value>,
}

/// One layer.
struct Layer {
    attention_norm: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    /// Taps of the memory, `[channel, 1, tap]`.
    memory: Tensor,
    out: Linear,
    norm: LayerNorm,
    expand: Linear,
    contract: Linear,
    /// True if the input is added to the attention's output: not where their widths differ.
    residual: bool,
}

impl Layer {
    fn new(
        tensors: &mut Tensors,
        prefix: &str,
        inputs: usize,
        dimensions: &Dimensions,
    ) -> Result<Self, UnusableWeights> {
        let name = |part: &str| format!("{prefix}.{part}");
        let width = dimensions.outputs;
        let weight = tensors.take(&name("self_attn.linear_q_k_v.weight"))?;
        let bias = tensors.take(&name("self_attn.linear_q_k_v.bias"))?;
        let third = |index: usize| {
            let part = |tensor: &Tensor| tensor.narrow(0, index * width, width).map_err(NnError::from);
            Linear::new(&part(&weight)?, Some(&part(&bias)?))
        };
        Ok(Self {
            query: third(0)?,
            key: third(1)?,
            value: third(2)?,
            memory: tensors.take(&name("self_attn.fsmn_block.weight"))?,
            out: tensors.linear(&name("self_attn.linear_out"))?,
            expand: tensors.linear(&name("feed_forward.w_1"))?,
            contract: tensors.linear(&name("feed_forward.w_2"))?,
            attention_norm: tensors.layer_norm(&name("norm1"), EPSILON)?,
            norm: tensors.layer_norm(&name("norm2"), EPSILON)?,
            residual: inputs == width,
        })
    }

    fn forward(
        &self,
        input: &Value,
        windows: &Ragged,
        chunking: &Chunking,
        heads: usize,
        past: &mut Past,
    ) -> Result<Value, NnError> {
        let normal = self.attention_norm.forward(input)?;
        let project = |linear: &Linear| linear.forward(&normal, Activation::Identity);
        let (queries, keys, values) = (project(&self.query)?, project(&self.key)?, project(&self.value)?);
        let seen = Seen::new(windows, chunking, past.keys.as_ref().map_or(0, Value::rows));
        let attention = Attention {
            heads,
            attention_mask: AttentionMask::Full,
            queries: windows,
            keys: &seen.items,
            dropout: None,
        };
        let (keys, seen_values) = (seen.gather(&keys, &mut past.keys)?, seen.gather(&values, &mut past.values)?);
        let attended = queries.attend(&keys, &seen_values, &attention, None)?;
        let residual = if self.residual { input.clone() } else { Value::plain(values.tensor().zeros_like()?)? };
        let memory = Value::plain(self.memory.clone())?;
        let residual = residual.add_memory(&values, &memory, windows)?;
        let hidden = self.out.forward_onto(&attended, &residual)?;
        let normal = self.norm.forward(&hidden)?;
        let inner = self.expand.forward(&normal, Activation::Relu)?;
        self.contract.forward_onto(&inner, &hidden)
    }
}

/// The rows that every window attends to: some that earlier windows kept, then its own.
struct Seen {
    /// Rows kept by earlier windows, for each window: those of the past before those of the pass.
    left: Vec<Range<usize>>,
    /// Own rows of each window in the pass.
    own: Vec<Range<usize>>,
    /// Rows of the pass that windows keep for later ones, in order.
    leaving: Vec<Range<usize>>,
    /// Number of rows that remain for the next pass.
    remaining: usize,
    /// The gathered rows of each window.
    items: Ragged,
}

impl Seen {
    /// Computes the rows for windows after `past` rows from earlier passes.
    fn new(windows: &Ragged, chunking: &Chunking, past: usize) -> Self {
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
        Self { left, own, leaving, remaining: most.min(ends), items: Ragged::packed(&lengths) }
    }

    /// The rows that every window attends to; `past` becomes what the next pass may look back to.
    fn gather(&self, fresh: &Value, past: &mut Option<Value>) -> Result<Value, NnError> {
        let both = match &*past {
            Some(past) => Value::plain(Tensor::cat(&[past.tensor(), fresh.tensor()], 0)?)?,
            None => fresh.clone(),
        };
        let behind = past.as_ref().map_or(0, Value::rows);
        // Rows of `both` that windows leave or have left, in order.
        let fresh = |rows: &Range<usize>| (behind + rows.start) as u32..(behind + rows.end) as u32;
        let left: Vec<u32> = (0..behind as u32).chain(self.leaving.iter().flat_map(fresh)).collect();
        let mut seen = Vec::with_capacity(self.items.total());
        for (rows, own) in self.left.iter().zip(&self.own) {
            seen.extend_from_slice(&left[rows.clone()]);
            seen.extend(fresh(own));
        }
        let remaining = &left[left.len() - self.remaining..];
        *past = match remaining.len() {
            0 => None,
            count => Some(both.embed(remaining, &[count])?),
        };
        both.embed(&seen, &[seen.len()])
    }
}
