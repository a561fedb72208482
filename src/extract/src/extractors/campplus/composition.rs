//! The encoder by the operations of the tape: on devices, for batches of recordings of any lengths.
//!
//! Rows are frames, packed item by item, with channels innermost. The head has a row for every frequency and frame of an item, so its
//! two-dimensional convolutions are convolutions over time of what three neighboring frequencies hold.

use std::ops::Range;

use candle_core::{Device, Tensor};
use flowmill_nn::ops::{Convolution as Settings, concatenate};
use flowmill_nn::{Activation, NnError, Ragged, Value};

use super::head::REACH;
use super::network::SEGMENT;
use super::weights::{
    BLOCKS, Convolution, DenseBlock, DenseLayer, Dimensions, LOCAL_KERNEL, Normalization, ResidualBlock, TDNN_KERNEL,
    Weights,
};

/// Frames that go through the head at a time: what lies between its convolutions is 30 times as large as its input.
const FRAMES_PER_PASS: usize = 4096;

/// Taps of the head's convolutions over frequency and over time.
const TAPS: usize = 3;

/// An encoder whose weights are on a device.
pub(super) struct Composition {
    dimensions: Dimensions,
    first: Planar,
    residual: Vec<Residual>,
    last: Planar,
    tdnn: [Tensor; 2],
    blocks: Vec<Block>,
    embedding: [Tensor; 2],
}

struct Residual {
    first: Planar,
    second: Planar,
    shortcut: Option<Planar>,
}

/// A convolution over frequency and time, folded to one over time: the weight is `[output, tap of frequency x input, tap of time]`.
struct Planar {
    weight: Tensor,
    bias: Tensor,
    taps: usize,
    /// Step from one frequency to the next.
    stride: usize,
}

struct Block {
    layers: Vec<Layer>,
    dilation: usize,
    norm: [Tensor; 2],
    transit: [Tensor; 2],
}

struct Layer {
    norm: [Tensor; 2],
    reduce: [Tensor; 2],
    local: [Tensor; 2],
    context: [[Tensor; 2]; 2],
}

/// Rows of every frequency and frame, `[row, channel]`: item by item, frequency by frequency.
struct Plane {
    rows: Value,
    /// Frames of each item.
    frames: Vec<usize>,
    frequencies: usize,
}

/// A value of weights. Tensors are kept, as values cannot go from thread to thread.
fn value(tensor: &Tensor) -> Result<Value, NnError> {
    Value::plain(tensor.clone())
}

fn values([first, second]: &[Tensor; 2]) -> Result<[Value; 2], NnError> {
    Ok([value(first)?, value(second)?])
}

/// Weight and bias; the shape of the weight behind its outputs.
fn weights(convolution: &Convolution, shape: &[usize], device: &Device) -> Result<[Tensor; 2], NnError> {
    let bias = Tensor::from_slice(&convolution.bias, convolution.bias.len(), device)?;
    let shape = [&[convolution.bias.len()], shape].concat();
    Ok([Tensor::from_slice(&convolution.weight, shape, device)?, bias])
}

fn linear(convolution: &Convolution, device: &Device) -> Result<[Tensor; 2], NnError> {
    weights(convolution, &[convolution.weight.len() / convolution.bias.len().max(1)], device)
}

fn normalization(norm: &Normalization, device: &Device) -> Result<[Tensor; 2], NnError> {
    let tensor = |elements: &[f32]| Tensor::from_slice(elements, elements.len(), device);
    Ok([tensor(&norm.scale)?, tensor(&norm.shift)?])
}

impl Composition {
    pub(super) fn new(weights: &Weights, device: &Device) -> Result<Self, NnError> {
        let dimensions = weights.dimensions;
        let planar =
            |convolution: &Convolution, inputs, taps, stride| Planar::new(convolution, [inputs, taps, stride], device);
        let m = dimensions.m_channels;
        let residual = |block: &ResidualBlock| {
            let stride = if block.shortcut.is_some() { 2 } else { 1 };
            let shortcut = block.shortcut.as_ref().map(|shortcut| planar(shortcut, m, 1, stride));
            Ok::<_, NnError>(Residual {
                first: planar(&block.first, m, TAPS, stride)?,
                second: planar(&block.second, m, TAPS, 1)?,
                shortcut: shortcut.transpose()?,
            })
        };
        let blocks = weights.blocks.iter().zip(BLOCKS);
        Ok(Self {
            dimensions,
            first: planar(&weights.first, 1, TAPS, 1)?,
            residual: weights.residual.iter().map(residual).collect::<Result<_, _>>()?,
            last: planar(&weights.last, m, TAPS, 2)?,
            tdnn: self::weights(&weights.tdnn, &[dimensions.head_outputs(), TDNN_KERNEL], device)?,
            blocks: blocks
                .map(|(block, (_, dilation))| Block::new(block, dilation, device))
                .collect::<Result<_, _>>()?,
            embedding: linear(&weights.dense, device)?,
        })
    }

    pub(super) fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    /// The embeddings of features `[frame][band]`, each of as many frames as have one.
    pub(super) fn embed(&self, items: &[&[f32]]) -> Result<Vec<Vec<f32>>, NnError> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let bands = self.dimensions.feat_dim;
        let frames = Ragged::packed(&items.iter().map(|item| item.len() / bands).collect::<Vec<_>>());
        let settings = Settings { stride: 2, padding: [TDNN_KERNEL / 2, TDNN_KERNEL / 2], ..Settings::default() };
        let [weight, bias] = values(&self.tdnn)?;
        let entered = self.head(items)?.conv1d_packed(&weight, Some(&bias), settings, &frames)?;
        let mut state = entered.activate(Activation::Relu)?;
        let lengths: Vec<usize> = frames.lengths().iter().map(|length| (length - 1) / 2 + 1).collect();
        let rows = Ragged::packed(&lengths);
        for (index, block) in self.blocks.iter().enumerate() {
            // The network's last normalization is folded into the last transition.
            let last = index + 1 == self.blocks.len();
            state = block.forward(&state, &rows, if last { Activation::Relu } else { Activation::Identity })?;
        }
        let [weight, bias] = values(&self.embedding)?;
        let embeddings = statistics(&state, &rows)?.linear(&weight, Some(&bias))?;
        let embeddings = flowmill_nn::host::read(embeddings.tensor())?;
        Ok(embeddings.chunks_exact(self.dimensions.embedding_size.max(1)).map(<[f32]>::to_vec).collect())
    }

    /// The head's result `[row, channel x frequency]` on the frames of all items. Long items are cut in pieces that see each other's
    /// frames as far as the head looks.
    fn head(&self, items: &[&[f32]]) -> Result<Value, NnError> {
        let bands = self.dimensions.feat_dim;
        let mut pieces = Vec::new();
        for item in items {
            let frames = item.len() / bands;
            for start in (0..frames).step_by(FRAMES_PER_PASS) {
                let end = frames.min(start + FRAMES_PER_PASS);
                let seen = start.saturating_sub(REACH)..frames.min(end + REACH);
                pieces.push((&item[seen.start * bands..seen.end * bands], start - seen.start..end - seen.start));
            }
        }
        let mut parts = Vec::new();
        let mut rest = pieces.as_slice();
        while !rest.is_empty() {
            let mut sum = 0;
            let fits = |(_, own): &&(&[f32], Range<usize>)| {
                sum += own.len();
                sum <= FRAMES_PER_PASS
            };
            let (pass, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            parts.push(self.head_pass(pass)?.tensor().clone());
            rest = later;
        }
        Value::plain(Tensor::cat(&parts, 0)?)
    }

    /// Runs the head over some pieces, of which the frames in the ranges are wanted.
    fn head_pass(&self, pieces: &[(&[f32], Range<usize>)]) -> Result<Value, NnError> {
        let bands = self.dimensions.feat_dim;
        let by_band = |(item, _): &(&[f32], Range<usize>)| {
            (0..bands).flat_map(|band| item.iter().skip(band).step_by(bands).copied()).collect::<Vec<f32>>()
        };
        let input: Vec<f32> = pieces.iter().flat_map(by_band).collect();
        let frames = pieces.iter().map(|(item, _)| item.len() / bands).collect();
        let rows = Value::from_vec(input, &[pieces.iter().map(|(item, _)| item.len()).sum(), 1])?;
        let mut plane = self.first.forward(&Plane { rows, frames, frequencies: bands }, Activation::Relu)?;
        for block in &self.residual {
            let inner = block.first.forward(&plane, Activation::Relu)?;
            let residual = match &block.shortcut {
                Some(shortcut) => shortcut.forward(&plane, Activation::Identity)?.rows,
                None => plane.rows,
            };
            plane = block.second.forward(&inner, Activation::Identity)?;
            plane.rows = plane.rows.add(&residual)?.activate(Activation::Relu)?;
        }
        let Plane { rows, frames, frequencies } = self.last.forward(&plane, Activation::Relu)?;
        // From a row per frequency and frame to a row per frame, with all frequencies of a channel side by side.
        let (mut indices, mut start) = (Vec::new(), 0);
        for (frames, (_, own)) in frames.iter().zip(pieces) {
            let frequency = |frame: usize| (0..frequencies).map(move |f| (start + f * frames + frame) as u32);
            indices.extend(own.clone().flat_map(frequency));
            start += frames * frequencies;
        }
        let (count, channels) = (indices.len() / frequencies, rows.width());
        rows.embed(&indices, &[count, frequencies])?.transpose()?.reshape(&[count, channels * frequencies])
    }
}

impl Planar {
    fn new(convolution: &Convolution, [inputs, taps, stride]: [usize; 3], device: &Device) -> Result<Self, NnError> {
        let [weight, bias] = weights(convolution, &[inputs, taps, taps], device)?;
        let outputs = weight.dim(0)?;
        let weight = weight.transpose(1, 2)?.contiguous()?.reshape((outputs, taps * inputs, taps))?;
        Ok(Self { weight, bias, taps, stride })
    }

    fn forward(&self, plane: &Plane, activation: Activation) -> Result<Plane, NnError> {
        let Plane { rows, frames, frequencies: before } = plane;
        let frequencies = (before - 1) / self.stride + 1;
        let (channels, reach) = (rows.width(), self.taps / 2);
        // One row of zeros behind all others stands for the frequencies beyond both ends.
        let outside = rows.rows();
        let zeros = Tensor::zeros((1, channels), rows.tensor().dtype(), rows.tensor().device())?;
        let source = Value::plain(Tensor::cat(&[rows.tensor(), &zeros], 0)?)?;
        let (mut indices, mut start) = (Vec::with_capacity(outside * self.taps), 0);
        for frames in frames {
            for frequency in 0..frequencies {
                for frame in 0..*frames {
                    let tap = |tap: usize| {
                        let seen = (frequency * self.stride + tap).checked_sub(reach).filter(|seen| seen < before);
                        seen.map_or(outside, |seen| start + seen * frames + frame) as u32
                    };
                    indices.extend((0..self.taps).map(tap));
                }
            }
            start += before * frames;
        }
        let count = indices.len() / self.taps;
        let seen = source.embed(&indices, &[count, self.taps])?.reshape(&[count, self.taps * channels])?;
        let items: Vec<usize> = frames.iter().flat_map(|frames| std::iter::repeat_n(*frames, frequencies)).collect();
        let settings = Settings { padding: [reach, reach], ..Settings::default() };
        let (weight, bias) = (value(&self.weight)?, value(&self.bias)?);
        let rows = seen.conv1d_packed(&weight, Some(&bias), settings, &Ragged::packed(&items))?;
        Ok(Plane { rows: rows.activate(activation)?, frames: frames.clone(), frequencies })
    }
}

impl Block {
    fn new(block: &DenseBlock, dilation: usize, device: &Device) -> Result<Self, NnError> {
        Ok(Self {
            layers: block.layers.iter().map(|layer| Layer::new(layer, device)).collect::<Result<_, _>>()?,
            dilation,
            norm: normalization(&block.norm, device)?,
            transit: linear(&block.transit, device)?,
        })
    }

    fn forward(&self, input: &Value, rows: &Ragged, activation: Activation) -> Result<Value, NnError> {
        let mut state = input.clone();
        for layer in &self.layers {
            state = concatenate(&[&state, &layer.forward(&state, rows, self.dilation)?])?;
        }
        let [weight, bias] = values(&self.transit)?;
        normalized(&state, &self.norm)?.linear_activated(&weight, Some(&bias), activation)
    }
}

impl Layer {
    fn new(layer: &DenseLayer, device: &Device) -> Result<Self, NnError> {
        let inner = layer.reduce.bias.len();
        Ok(Self {
            norm: normalization(&layer.norm, device)?,
            reduce: linear(&layer.reduce, device)?,
            local: weights(&layer.local, &[inner, LOCAL_KERNEL], device)?,
            context: [linear(&layer.context[0], device)?, linear(&layer.context[1], device)?],
        })
    }

    /// The channels that this layer adds.
    fn forward(&self, input: &Value, rows: &Ragged, dilation: usize) -> Result<Value, NnError> {
        let [weight, bias] = values(&self.reduce)?;
        let inner = normalized(input, &self.norm)?.linear_activated(&weight, Some(&bias), Activation::Relu)?;
        let reach = LOCAL_KERNEL / 2 * dilation;
        let settings = Settings { dilation, padding: [reach, reach], ..Settings::default() };
        let [weight, bias] = values(&self.local)?;
        let local = inner.conv1d_packed(&weight, Some(&bias), settings, rows)?;
        let (segments, lengths) = segments(rows);
        let whole = inner.mean_items(rows)?.expand_items(&segments)?;
        let mut context = whole.add(&inner.mean_items(&lengths)?)?;
        for (part, activation) in self.context.iter().zip([Activation::Relu, Activation::Sigmoid]) {
            let [weight, bias] = values(part)?;
            context = context.linear_activated(&weight, Some(&bias), activation)?;
        }
        local.scale_items(&context, &lengths)
    }
}

/// The segments that share a context: how many each item has, and the rows of each.
fn segments(rows: &Ragged) -> (Ragged, Ragged) {
    let count: Vec<usize> = rows.lengths().iter().map(|length| length.div_ceil(SEGMENT)).collect();
    let of_item = |length: usize| (0..length).step_by(SEGMENT).map(move |start| SEGMENT.min(length - start));
    let lengths: Vec<usize> = rows.lengths().into_iter().flat_map(of_item).collect();
    (Ragged::packed(&count), Ragged::packed(&lengths))
}

fn normalized(input: &Value, norm: &[Tensor; 2]) -> Result<Value, NnError> {
    let [scale, shift] = values(norm)?;
    input.scale_channels(&scale)?.add_channels(&shift)?.activate(Activation::Relu)
}

/// Means and deviations of the rows of each item, `[item, 2 x channel]`; the latter with one degree of freedom less than there are rows.
fn statistics(input: &Value, rows: &Ragged) -> Result<Value, NnError> {
    let mean = input.mean_items(rows)?;
    let centered = input.subtract(&mean.expand_items(rows)?)?;
    let variance = centered.multiply(&centered)?.mean_items(rows)?;
    let corrected = |length: &usize| *length as f32 / (*length as f32 - 1.0);
    let factors: Vec<f32> = rows.lengths().iter().map(corrected).collect();
    let factors = Tensor::from_vec(factors, (rows.len(), 1), variance.tensor().device())?;
    let deviation = Value::plain(variance.tensor().broadcast_mul(&factors)?.sqrt()?)?;
    concatenate(&[&mean, &deviation])
}
