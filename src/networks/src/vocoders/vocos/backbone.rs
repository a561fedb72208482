//! ConvNeXt blocks over frames.

use flowmill_extract::waveform::{Convolution, Depthwise};
use flowmill_nn::inference::{LayerNorm, Linear};
use flowmill_nn::{Activation, NnError, Result, Value, host};

use super::super::weights::{Loaded, Tensors};

/// Taps of all convolutions.
const TAPS: usize = 7;
/// Addend to the variances.
const EPSILON: f32 = 1e-6;

/// Layer normalizations, one for each condition of an adaptive one; a plain one is used for all conditions.
struct Norms(Vec<LayerNorm>);

impl Norms {
    fn new(tensors: &mut Tensors<'_>, name: &str, channels: usize) -> Loaded<Self> {
        let conditions = tensors.axis(&format!("{name}.scale.weight"), 0);
        if conditions == 0 {
            let weight = tensors.take(&format!("{name}.weight"), &[channels])?;
            let bias = tensors.take(&format!("{name}.bias"), &[channels])?;
            return Ok(Self(vec![LayerNorm::new(&weight, &bias, EPSILON)?]));
        }
        let scales = tensors.take(&format!("{name}.scale.weight"), &[conditions, channels])?;
        let shifts = tensors.take(&format!("{name}.shift.weight"), &[conditions, channels])?;
        let norm = |condition: usize| {
            let [scale, shift] = [&scales, &shifts].map(|rows| rows.get(condition).map_err(NnError::from));
            Ok(LayerNorm::new(&scale?, &shift?, EPSILON)?)
        };
        Ok(Self((0..conditions).map(norm).collect::<Loaded<_>>()?))
    }

    fn forward(&self, signal: &Value, condition: usize) -> Result<Value> {
        let norm = if self.0.len() == 1 { self.0.first() } else { self.0.get(condition) };
        let known = self.0.len();
        norm.ok_or_else(|| NnError::invalid("vocos", format!("condition {condition} of {known}")))?.forward(signal)
    }
}

/// A block: a convolution of each channel and two linear layers, added to its input.
struct Block {
    convolution: Depthwise,
    norms: Norms,
    widening: Linear,
    narrowing: Linear,
}

impl Block {
    fn new(tensors: &mut Tensors<'_>, name: &str, channels: usize) -> Loaded<Self> {
        let weight = tensors.take(&format!("{name}.dwconv.weight"), &[channels, 1, TAPS])?;
        let bias = tensors.take(&format!("{name}.dwconv.bias"), &[channels])?;
        let wide = tensors.needed_axis(&format!("{name}.pwconv1.weight"), 0)?;
        let mut narrowing = tensors.elements(&format!("{name}.pwconv2.weight"), &[channels, wide])?;
        let mut narrowing_bias = tensors.elements(&format!("{name}.pwconv2.bias"), &[channels])?;
        // The scale of each channel belongs to the last layer.
        let gamma = format!("{name}.gamma");
        if tensors.has(&gamma) {
            let gamma = tensors.elements(&gamma, &[channels])?;
            for (row, gamma) in narrowing.chunks_exact_mut(wide).zip(&gamma) {
                row.iter_mut().for_each(|weight| *weight *= gamma);
            }
            narrowing_bias.iter_mut().zip(&gamma).for_each(|(bias, gamma)| *bias *= gamma);
        }
        let on_device = |elements: Vec<f32>, shape: &[usize]| -> Result<candle_core::Tensor> {
            Ok(host::tensor(elements, shape)?.to_device(tensors.device())?)
        };
        let narrowing = on_device(narrowing, &[channels, wide])?;
        let narrowing_bias = on_device(narrowing_bias, &[channels])?;
        Ok(Self {
            convolution: Depthwise::new(&weight, &bias, tensors.device())?,
            norms: Norms::new(tensors, &format!("{name}.norm"), channels)?,
            widening: tensors.linear(&format!("{name}.pwconv1"), [wide, channels])?,
            narrowing: Linear::new(&narrowing, Some(&narrowing_bias))?,
        })
    }

    fn forward(&self, signal: &Value, condition: usize) -> Result<Value> {
        let inner = self.norms.forward(&self.convolution.forward(signal)?, condition)?;
        self.narrowing.forward_onto(&self.widening.forward(&inner, Activation::Gelu)?, signal)
    }
}

/// A convolution and blocks.
pub(super) struct Backbone {
    embedding: Convolution,
    norms: Norms,
    blocks: Vec<Block>,
    last: Norms,
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output.
    pub channels: usize,
}

impl Backbone {
    pub(super) fn new(tensors: &mut Tensors<'_>) -> Loaded<Self> {
        let channels = tensors.needed_axis("backbone.embed.weight", 0)?;
        let inputs = tensors.needed_axis("backbone.embed.weight", 1)?;
        let (embedding, _) = tensors.centered("backbone.embed", [channels, inputs, TAPS], 1, true)?;
        let norms = Norms::new(tensors, "backbone.norm", channels)?;
        let count = tensors.count("backbone.convnext");
        let block = |block: usize| Block::new(tensors, &format!("backbone.convnext.{block}"), channels);
        let blocks = (0..count).map(block).collect::<Loaded<_>>()?;
        let last = Norms::new(tensors, "backbone.final_layer_norm", channels)?;
        Ok(Self { embedding, norms, blocks, last, inputs, channels })
    }

    pub(super) fn forward(&self, features: &Value, condition: usize) -> Result<Value> {
        let embedded = self.norms.forward(&self.embedding.forward(features)?, condition)?;
        let blocks = self.blocks.iter();
        let refined = blocks.clone().try_fold(embedded, |signal, block| block.forward(&signal, condition))?;
        self.last.forward(&refined, 0)
    }

    /// Returns the number of frames that a frame of the result sees to either side.
    pub(super) fn reach(&self) -> usize {
        (TAPS - 1) / 2 * (self.blocks.len() + 1)
    }
}
