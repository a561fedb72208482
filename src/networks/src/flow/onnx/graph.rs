//! The layers that estimators are made of, as nodes of an ONNX graph.

use flowmill_weights::OnnxSetting::{Float, Int, Ints};
use flowmill_weights::{OnnxBuilder, Result};

/// What is added to the scores of frames beyond the end of an item, as in the public implementation.
const MASKED: f32 = -1e10;

/// A graph under construction. Names of layers are those of their weights, without `.weight` and `.bias`.
pub(super) struct Graph<'a> {
    pub(super) builder: OnnxBuilder<'a>,
}

/// The heads of an attention.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub(super) count: usize,
    /// Channels per head.
    pub(super) width: usize,
}

impl Heads {
    pub(super) fn channels(self) -> usize {
        self.count * self.width
    }
}

/// The layout of a convolution over the frames of `[item, channel, frame]`.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) padding: [usize; 2],
    pub(super) stride: usize,
    pub(super) groups: usize,
}

impl Layout {
    /// A convolution of `taps` frames that sees no later frame.
    pub(super) fn causal(taps: usize) -> Self {
        Self { padding: [taps - 1, 0], stride: 1, groups: 1 }
    }
}

impl Graph<'_> {
    pub(super) fn add(&mut self, a: &str, b: &str) -> String {
        self.builder.node("Add", &[a, b], &[])
    }

    pub(super) fn subtract(&mut self, a: &str, b: &str) -> String {
        self.builder.node("Sub", &[a, b], &[])
    }

    pub(super) fn multiply(&mut self, a: &str, b: &str) -> String {
        self.builder.node("Mul", &[a, b], &[])
    }

    /// Multiplies by a number.
    pub(super) fn scale(&mut self, x: &str, factor: f32) -> String {
        let factor = self.builder.floats(&[factor], &[]);
        self.multiply(x, &factor)
    }

    /// Adds a number.
    pub(super) fn shift(&mut self, x: &str, summand: f32) -> String {
        let summand = self.builder.floats(&[summand], &[]);
        self.add(x, &summand)
    }

    pub(super) fn transpose(&mut self, x: &str, axes: &[i64]) -> String {
        self.builder.node("Transpose", &[x], &[("perm", Ints(axes))])
    }

    /// Exchanges the last two axes of three: channels and frames.
    pub(super) fn swap(&mut self, x: &str) -> String {
        self.transpose(x, &[0, 2, 1])
    }

    pub(super) fn unsqueeze(&mut self, x: &str, axis: i64) -> String {
        let axes = self.builder.integers(&[axis]);
        self.builder.node("Unsqueeze", &[x, &axes], &[])
    }

    /// Reshapes; a size of 0 keeps that of the same axis.
    pub(super) fn reshape(&mut self, x: &str, shape: &[i64]) -> String {
        let shape = self.builder.integers(shape);
        self.builder.node("Reshape", &[x, &shape], &[])
    }

    pub(super) fn concatenate(&mut self, parts: &[&str], axis: i64) -> String {
        self.builder.node("Concat", parts, &[("axis", Int(axis))])
    }

    /// Returns the number of frames of `[item, channel, frame]` as a list of one.
    pub(super) fn frames(&mut self, x: &str) -> String {
        let shape = self.builder.node("Shape", &[x], &[]);
        let [from, to] = [2, 3].map(|at| self.builder.integers(&[at]));
        self.builder.node("Slice", &[&shape, &from, &to], &[])
    }

    /// Returns the first frames of `[item, channel, frame]`; `count` is a list of one.
    pub(super) fn first_frames(&mut self, x: &str, count: &str) -> String {
        let [from, axis] = [0, 2].map(|number| self.builder.integers(&[number]));
        self.builder.node("Slice", &[x, &from, count, &axis], &[])
    }

    /// Returns every second frame of `[item, channel, frame]`.
    pub(super) fn every_second_frame(&mut self, x: &str) -> String {
        let [from, to, axis, step] = [0, i64::MAX, 2, 2].map(|number| self.builder.integers(&[number]));
        self.builder.node("Slice", &[x, &from, &to, &axis, &step], &[])
    }

    /// A linear layer on `[.., channel]` of three axes.
    pub(super) fn linear(&mut self, x: &str, name: &str, has_bias: bool) -> Result<String> {
        let weight = self.builder.weight(&format!("{name}.weight"))?;
        let weight = self.transpose(&weight, &[1, 0]);
        let product = self.builder.node("MatMul", &[x, &weight], &[]);
        if !has_bias {
            return Ok(product);
        }
        let bias = self.builder.weight(&format!("{name}.bias"))?;
        Ok(self.add(&product, &bias))
    }

    /// A linear layer on `[item, channel]`.
    pub(super) fn item_linear(&mut self, x: &str, name: &str) -> Result<String> {
        let weight = self.builder.weight(&format!("{name}.weight"))?;
        let bias = self.builder.weight(&format!("{name}.bias"))?;
        Ok(self.builder.node("Gemm", &[x, &weight, &bias], &[("transB", Int(1))]))
    }

    /// A layer norm over the last axis.
    pub(super) fn layer_norm(&mut self, x: &str, name: &str, epsilon: f32) -> Result<String> {
        let gain = self.builder.weight(&format!("{name}.weight"))?;
        let bias = self.builder.weight(&format!("{name}.bias"))?;
        Ok(self.builder.node(
            "LayerNormalization",
            &[x, &gain, &bias],
            &[("axis", Int(-1)), ("epsilon", Float(epsilon))],
        ))
    }

    /// A layer norm over the last axis, of `channels` channels, without gain and bias, then `(1 + scale) x + shift`.
    pub(super) fn modulated_norm(
        &mut self,
        x: &str,
        channels: usize,
        [shift, scale]: [&str; 2],
        epsilon: f32,
    ) -> String {
        let gain = self.builder.floats(&vec![1.0; channels], &[channels]);
        let normal =
            self.builder.node("LayerNormalization", &[x, &gain], &[("axis", Int(-1)), ("epsilon", Float(epsilon))]);
        let factor = self.shift(scale, 1.0);
        let scaled = self.multiply(&normal, &factor);
        self.add(&scaled, shift)
    }

    /// A convolution of `[item, channel, frame]`.
    pub(super) fn convolution(&mut self, x: &str, name: &str, layout: Layout) -> Result<String> {
        let weight = self.builder.weight(&format!("{name}.weight"))?;
        let bias = self.builder.weight(&format!("{name}.bias"))?;
        let (padding, stride) = (layout.padding.map(|size| size as i64), [layout.stride as i64]);
        let attributes = [("pads", Ints(&padding)), ("strides", Ints(&stride)), ("group", Int(layout.groups as i64))];
        Ok(self.builder.node("Conv", &[x, &weight, &bias], &attributes))
    }

    /// A transposed convolution of `[item, channel, frame]` that makes `stride` frames, an even number, of each, with twice as many taps.
    pub(super) fn transposed_convolution(&mut self, x: &str, name: &str, stride: usize) -> Result<String> {
        let weight = self.builder.weight(&format!("{name}.weight"))?;
        let bias = self.builder.weight(&format!("{name}.bias"))?;
        let cut = (stride / 2) as i64;
        let attributes = [("pads", Ints(&[cut, cut])), ("strides", Ints(&[stride as i64]))];
        Ok(self.builder.node("ConvTranspose", &[x, &weight, &bias], &attributes))
    }

    pub(super) fn silu(&mut self, x: &str) -> String {
        let gate = self.builder.node("Sigmoid", &[x], &[]);
        self.multiply(x, &gate)
    }

    pub(super) fn mish(&mut self, x: &str) -> String {
        let softened = self.builder.node("Softplus", &[x], &[]);
        let gate = self.builder.node("Tanh", &[&softened], &[]);
        self.multiply(x, &gate)
    }

    /// The exact GELU.
    pub(super) fn gelu(&mut self, x: &str) -> String {
        let scaled = self.scale(x, std::f32::consts::FRAC_1_SQRT_2);
        let error = self.builder.node("Erf", &[&scaled], &[]);
        self.gated_half(x, &error)
    }

    /// The GELU with its tanh approximation.
    pub(super) fn gelu_tanh(&mut self, x: &str) -> String {
        let square = self.multiply(x, x);
        let factor = self.scale(&square, 0.044_715);
        let factor = self.shift(&factor, 1.0);
        let inner = self.multiply(x, &factor);
        let inner = self.scale(&inner, (2.0 / std::f32::consts::PI).sqrt());
        let gate = self.builder.node("Tanh", &[&inner], &[]);
        self.gated_half(x, &gate)
    }

    /// Returns `x (1 + gate) / 2`.
    fn gated_half(&mut self, x: &str, gate: &str) -> String {
        let gate = self.shift(gate, 1.0);
        let product = self.multiply(x, &gate);
        self.scale(&product, 0.5)
    }

    /// Returns sines and cosines of `1000 t` at these rates, `[item, channel]`, of times `[item]`.
    pub(super) fn time_waves(&mut self, times: &str, rates: &[f32]) -> [String; 2] {
        let column = self.unsqueeze(times, 1);
        let scaled = self.scale(&column, 1000.0);
        let rates = self.builder.floats(rates, &[1, rates.len()]);
        let angles = self.multiply(&scaled, &rates);
        ["Sin", "Cos"].map(|wave| self.builder.node(wave, &[&angles], &[]))
    }

    /// Returns what is added to the scores `[item, head, query, key]` of an attention, from the mask `[item, 1, frame]`.
    pub(super) fn attention_bias(&mut self, mask: &str) -> String {
        let mask = self.unsqueeze(mask, 1);
        let one = self.builder.floats(&[1.0], &[]);
        let beyond = self.subtract(&one, &mask);
        self.scale(&beyond, MASKED)
    }

    /// Divides `[item, frame, channel]` into heads, `[item, frame, head, channel]`.
    pub(super) fn divide(&mut self, x: &str, heads: Heads) -> String {
        self.reshape(x, &[0, 0, heads.count as i64, heads.width as i64])
    }

    /// Attends from queries to keys and values, all `[item, frame, head, channel]`; returns `[item, frame, channel]`.
    pub(super) fn attend(&mut self, [query, key, value]: [&str; 3], bias: &str, heads: Heads) -> String {
        let query = self.transpose(query, &[0, 2, 1, 3]);
        let key = self.transpose(key, &[0, 2, 3, 1]);
        let value = self.transpose(value, &[0, 2, 1, 3]);
        let query = self.scale(&query, (heads.width as f32).sqrt().recip());
        let scores = self.builder.node("MatMul", &[&query, &key], &[]);
        let scores = self.add(&scores, bias);
        let weights = self.builder.node("Softmax", &[&scores], &[("axis", Int(-1))]);
        let attended = self.builder.node("MatMul", &[&weights, &value], &[]);
        let attended = self.transpose(&attended, &[0, 2, 1, 3]);
        self.reshape(&attended, &[0, 0, heads.channels() as i64])
    }

    /// Returns the vectors of a modulation, `[item, 1, channel]` each, from the activated time embedding `[item, channel]`.
    pub(super) fn modulation(&mut self, time: &str, name: &str, channels: usize, count: usize) -> Result<Vec<String>> {
        let vectors = self.item_linear(time, name)?;
        let vectors = self.unsqueeze(&vectors, 1);
        Ok(self.builder.split(&vectors, &vec![channels as i64; count], 2))
    }

    /// Returns `x + gate update`.
    pub(super) fn add_gated(&mut self, x: &str, update: &str, gate: &str) -> String {
        let update = self.multiply(update, gate);
        self.add(x, &update)
    }
}
