//! The encoder: head, dense blocks with context-aware masking, statistics, embedding.

use std::sync::Mutex;

use flowmill_nn::inference::{
    Dot, Epilogue, Filters, Rows, TILE, mean_and_deviation, normalize_tile, scale_rows, segment_sums, split_tile,
};

use super::{
    head::{Head, HeadRows},
    weights::{BLOCKS, DenseBlock, DenseLayer, Dimensions, LOCAL_KERNEL, Normalization, TDNN_KERNEL, Weights},
};

/// Frames behind the first layer that share a context.
pub(super) const SEGMENT: usize = 100;

/// A row of a tile for a layer of stride 2: columns of the result and the taps' reach.
const SPLIT_ROW: usize = 64;

/// Frames without which there are no statistics: their deviation needs two columns behind the layer of stride 2.
pub(super) const FEWEST_FRAMES: usize = 3;

/// An encoder, ready to be run from any thread.
pub(super) struct Network {
    dimensions: Dimensions,
    head: Head,
    tdnn: Filters,
    tdnn_taps: Vec<u32>,
    blocks: Vec<Block>,
    embedding: Dot,
    /// Memory of earlier runs, one per thread that ran at the same time.
    spare: Mutex<Vec<Memory>>,
}

struct Block {
    layers: Vec<Layer>,
    dilation: usize,
    norm: Normalization,
    transit: Filters,
}

struct Layer {
    norm: Normalization,
    reduce: Filters,
    local: Filters,
    context: [Dot; 2],
}

/// The buffers that a run writes to.
#[derive(Default)]
struct Memory {
    head: HeadRows,
    /// The rows that enter a block and grow in it, and those that enter the next one.
    dense: [Rows; 2],
    inner: Rows,
    tile: Vec<f32>,
    tile_taps: Vec<u32>,
    local_taps: Vec<u32>,
}

impl Network {
    pub(super) fn new(weights: &Weights) -> Self {
        let dimensions = weights.dimensions;
        let tdnn = Filters::new(&weights.tdnn.weight, &weights.tdnn.bias, dimensions.head_outputs() * TDNN_KERNEL);
        let tap = |term: usize| {
            let (row, tap) = (term / TDNN_KERNEL, term % TDNN_KERNEL);
            ((2 * row + tap % 2) * SPLIT_ROW + tap / 2) as u32
        };
        let blocks = weights.blocks.iter().zip(BLOCKS).map(|(block, (_, dilation))| Block::new(block, dilation));
        Self {
            dimensions,
            head: Head::new(weights),
            tdnn_taps: (0..tdnn.inner()).map(tap).collect(),
            tdnn,
            blocks: blocks.collect(),
            embedding: Dot::new(&weights.dense.weight, &weights.dense.bias),
            spare: Mutex::default(),
        }
    }

    pub(super) fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    /// The embedding of `features`, `[frame][band]`, at least [`FEWEST_FRAMES`] frames.
    pub(super) fn embed(&self, features: &[f32]) -> Vec<f32> {
        let spare = self.spare.lock().ok().and_then(|mut spare| spare.pop());
        let mut memory = spare.unwrap_or_default();
        let embedding = self.run(features, &mut memory);
        if let Ok(mut spare) = self.spare.lock() {
            spare.push(memory);
        }
        embedding
    }

    fn run(&self, features: &[f32], memory: &mut Memory) -> Vec<f32> {
        self.head.run(features, self.dimensions.feat_dim, &mut memory.head);
        self.enter(memory);
        for (index, block) in self.blocks.iter().enumerate() {
            block.run(memory, self.blocks.get(index + 1).map(Block::channels));
        }
        let last = &memory.dense[0];
        let (mean, deviation): (Vec<f32>, Vec<f32>) =
            (0..last.rows()).map(|row| mean_and_deviation(last.row(row))).unzip();
        self.embedding.apply(&[mean, deviation].concat())
    }

    /// The layer of stride 2 between head and blocks.
    fn enter(&self, memory: &mut Memory) {
        let from = &memory.head.out;
        let length = (from.length() - 1) / 2 + 1;
        let to = &mut memory.dense[0];
        to.reset(self.blocks[0].channels(), length);
        memory.tile.resize(memory.tile.len().max(from.rows() * 2 * SPLIT_ROW), 0.0);
        for column in (0..length).step_by(TILE) {
            split_tile(from, column, TDNN_KERNEL / 2, SPLIT_ROW, &mut memory.tile);
            let columns = TILE.min(length - column);
            let (start, stride) = (to.start(0) + column, to.stride());
            let epilogue = Epilogue { relu: true, residual: None };
            self.tdnn.apply(&memory.tile, &self.tdnn_taps, columns, (to.data_mut(), start, stride), epilogue);
        }
    }
}

impl Block {
    fn new(weights: &DenseBlock, dilation: usize) -> Self {
        let layers = weights.layers.iter().map(Layer::new).collect();
        let transit = Filters::new(&weights.transit.weight, &weights.transit.bias, weights.norm.scale.len());
        Self { layers, dilation, norm: weights.norm.clone(), transit }
    }

    /// Channels at its end.
    fn channels(&self) -> usize {
        self.norm.scale.len()
    }

    /// Runs the block from `dense[0]` to `dense[0]`, which gets the rows of the next block, or of the result when this is the last.
    fn run(&self, memory: &mut Memory, next: Option<usize>) {
        let Memory { dense: [from, to], inner, tile, tile_taps, local_taps, .. } = memory;
        let width = self.channels();
        tile.resize(tile.len().max(width * TILE), 0.0);
        tile_taps.clear();
        tile_taps.extend((0..width).map(|row| (row * TILE) as u32));
        if let Some(layer) = self.layers.first() {
            inner.reset(layer.reduce.outputs(), from.length());
            let (taps, stride) = (layer.local.inner(), inner.stride());
            local_taps.clear();
            local_taps.extend((0..taps).map(|t| (t / LOCAL_KERNEL * stride + t % LOCAL_KERNEL * self.dilation) as u32));
        }
        for layer in &self.layers {
            let taps = [&tile_taps[..], &local_taps[..]];
            layer.run(from, inner, self.dilation, tile, taps);
        }
        to.reset(next.unwrap_or(self.transit.outputs()), from.length());
        // The network's last normalization is folded into the last transition.
        project(from, &self.norm, &self.transit, next.is_none(), to, tile, tile_taps);
        std::mem::swap(from, to);
    }
}

impl Layer {
    fn new(weights: &DenseLayer) -> Self {
        Self {
            norm: weights.norm.clone(),
            reduce: Filters::new(&weights.reduce.weight, &weights.reduce.bias, weights.norm.scale.len()),
            local: Filters::new(&weights.local.weight, &weights.local.bias, weights.reduce.bias.len() * LOCAL_KERNEL),
            context: [&weights.context[0], &weights.context[1]].map(|part| Dot::new(&part.weight, &part.bias)),
        }
    }

    /// Adds this layer's rows behind the rows that it reads.
    fn run(&self, x: &mut Rows, inner: &mut Rows, dilation: usize, tile: &mut [f32], [taps, local_taps]: [&[u32]; 2]) {
        let channels = self.norm.scale.len();
        project(x, &self.norm, &self.reduce, true, inner, tile, taps);
        let (start, stride, columns) = (x.start(channels), x.stride(), x.length());
        let from = &inner.data()[inner.start(0) - LOCAL_KERNEL / 2 * dilation..];
        self.local.apply(from, local_taps, columns, (x.data_mut(), start, stride), Epilogue::default());
        scale_rows(x, channels, self.local.outputs(), SEGMENT, &self.masks(inner));
    }

    /// Per segment, how much of each new channel passes: from the mean over all columns plus that over the segment.
    fn masks(&self, inner: &Rows) -> Vec<f32> {
        let (width, columns) = (inner.rows(), inner.length());
        let sums = segment_sums(inner, SEGMENT);
        let mut mean = vec![0.0f32; width];
        for segment in sums.chunks_exact(width) {
            mean.iter_mut().zip(segment).for_each(|(mean, sum)| *mean += sum);
        }
        mean.iter_mut().for_each(|mean| *mean /= columns as f32);
        let mask = |(segment, sums): (usize, &[f32])| {
            let length = SEGMENT.min(columns - segment * SEGMENT) as f32;
            let context: Vec<f32> = mean.iter().zip(sums).map(|(mean, sum)| mean + sum / length).collect();
            let mut hidden = self.context[0].apply(&context);
            hidden.iter_mut().for_each(|value| *value = value.max(0.0));
            self.context[1].apply(&hidden).into_iter().map(|value| 1.0 / (1.0 + (-value).exp()))
        };
        sums.chunks_exact(width).enumerate().flat_map(mask).collect()
    }
}

/// Normalization, cut at zero, then a convolution over channels: into the first rows of `to`.
fn project(
    from: &Rows,
    norm: &Normalization,
    filters: &Filters,
    relu: bool,
    to: &mut Rows,
    tile: &mut [f32],
    taps: &[u32],
) {
    for column in (0..from.length()).step_by(TILE) {
        normalize_tile(from, column, &norm.scale, &norm.shift, tile);
        let columns = TILE.min(from.length() - column);
        let (start, stride) = (to.start(0) + column, to.stride());
        let epilogue = Epilogue { relu, residual: None };
        filters.apply(tile, &taps[..filters.inner()], columns, (to.data_mut(), start, stride), epilogue);
    }
}
