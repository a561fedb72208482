//! The weights of a CAM++ encoder with its batch norms folded, wherever they come from.

use serde::{Deserialize, Serialize};

use super::error::{CampplusError, Result};

/// Layers of each dense block, and the dilation of its convolutions.
pub(super) const BLOCKS: [(usize, usize); 3] = [(12, 1), (24, 2), (16, 2)];

/// Residual blocks of each of the head's two layers.
pub(super) const RESIDUAL_BLOCKS: usize = 2;

/// Taps of the first layer behind the head, and of the dense blocks' convolutions.
pub(super) const TDNN_KERNEL: usize = 5;
pub(super) const LOCAL_KERNEL: usize = 3;

/// The factor by which the head reduces the number of frequencies.
const HEAD_STRIDE: usize = 8;

/// The sizes of an encoder, as its public constructor names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dimensions {
    /// Mel bands of its input; a multiple of 8.
    pub feat_dim: usize,
    /// Length of its result.
    pub embedding_size: usize,
    /// Channels that each dense layer adds.
    pub growth_rate: usize,
    /// Channels inside of a dense layer.
    pub bn_channels: usize,
    /// Channels that enter the first dense block.
    pub init_channels: usize,
    /// Channels of the head.
    pub m_channels: usize,
}

impl Default for Dimensions {
    /// The published sizes for 192 values: `campplus.onnx` of CosyVoice, `campplus_cn_common.bin`.
    fn default() -> Self {
        Self {
            feat_dim: 80,
            embedding_size: 192,
            growth_rate: 32,
            bn_channels: 128,
            init_channels: 128,
            m_channels: 32,
        }
    }
}

impl Dimensions {
    /// Sizes for smoke runs: 192 values from an encoder of a fortieth of the work.
    pub fn small() -> Self {
        Self { growth_rate: 4, bn_channels: 16, init_channels: 16, m_channels: 8, ..Self::default() }
    }

    /// Channels behind the head.
    pub(super) fn head_outputs(&self) -> usize {
        self.m_channels * (self.feat_dim / HEAD_STRIDE)
    }

    /// The sizes that five weights tell.
    pub(super) fn of_shapes(
        first: &[usize],
        tdnn: &[usize],
        reduce: &[usize],
        local: &[usize],
        dense: &[usize],
    ) -> Self {
        let axis = |shape: &[usize], axis: usize| shape.get(axis).copied().unwrap_or(0);
        let m_channels = axis(first, 0);
        Self {
            feat_dim: axis(tdnn, 1) / m_channels.max(1) * HEAD_STRIDE,
            embedding_size: axis(dense, 0),
            growth_rate: axis(local, 0),
            bn_channels: axis(reduce, 0),
            init_channels: axis(tdnn, 0),
            m_channels,
        }
    }

    /// Sizes without which there is nothing to compute.
    pub(super) fn check(&self) -> Result<()> {
        let sizes = [
            ("feat_dim", self.feat_dim / HEAD_STRIDE),
            ("embedding_size", self.embedding_size),
            ("growth_rate", self.growth_rate),
            ("bn_channels", self.bn_channels / 2),
            ("init_channels", self.init_channels),
            ("m_channels", self.m_channels),
        ];
        match sizes.into_iter().find(|(_, size)| *size == 0) {
            Some((name, _)) => Err(CampplusError::Graph(format!("its weights leave nothing for `{name}`"))),
            None => Ok(()),
        }
    }
}

/// A convolution with what follows it folded in: `[output][input][taps]` and a bias.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Convolution {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// A normalization in evaluation mode: `x * scale + shift` per channel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Normalization {
    pub(super) scale: Vec<f32>,
    pub(super) shift: Vec<f32>,
}

/// A source of weights. They are asked for in the order in which the public implementation computes with them, which is the
/// order of an exported graph.
pub(super) trait Source {
    /// The encoder's sizes.
    fn dimensions(&self) -> Result<Dimensions>;

    /// The convolution `name` of this shape, with the normalization `norm` behind it folded in.
    fn convolution(&mut self, name: &str, norm: Option<&str>, shape: &[usize]) -> Result<Convolution>;

    /// A normalization that stands alone.
    fn normalization(&mut self, name: &str, channels: usize) -> Result<Normalization>;

    /// Fails if tensors remain that were not asked for.
    fn finish(&self) -> Result<()>;
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ResidualBlock {
    pub(super) first: Convolution,
    pub(super) second: Convolution,
    pub(super) shortcut: Option<Convolution>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct DenseLayer {
    pub(super) norm: Normalization,
    pub(super) reduce: Convolution,
    pub(super) local: Convolution,
    pub(super) context: [Convolution; 2],
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct DenseBlock {
    pub(super) layers: Vec<DenseLayer>,
    pub(super) norm: Normalization,
    pub(super) transit: Convolution,
}

/// All weights of an encoder.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Weights {
    pub(super) dimensions: Dimensions,
    pub(super) first: Convolution,
    pub(super) residual: Vec<ResidualBlock>,
    pub(super) last: Convolution,
    pub(super) tdnn: Convolution,
    pub(super) blocks: Vec<DenseBlock>,
    pub(super) dense: Convolution,
}

impl Weights {
    /// Takes all weights from a source.
    ///
    /// # Errors
    /// The weight that is missing, of another shape, or too many.
    pub(super) fn read(source: &mut dyn Source) -> Result<Self> {
        let dimensions = source.dimensions()?;
        dimensions.check()?;
        let Dimensions { m_channels: m, embedding_size, init_channels, .. } = dimensions;
        let first = source.convolution("head.conv1", Some("head.bn1"), &[m, 1, 3, 3])?;
        let residual = (0..2 * RESIDUAL_BLOCKS).map(|index| residual_block(source, index, m)).collect::<Result<_>>()?;
        let last = source.convolution("head.conv2", Some("head.bn2"), &[m, m, 3, 3])?;
        let shape = [init_channels, dimensions.head_outputs(), TDNN_KERNEL];
        let tdnn = source.convolution("xvector.tdnn.linear", Some("xvector.tdnn.nonlinear.batchnorm"), &shape)?;
        let mut channels = init_channels;
        let mut blocks = Vec::with_capacity(BLOCKS.len());
        for (index, (layers, _)) in BLOCKS.into_iter().enumerate() {
            blocks.push(dense_block(source, index, layers, &dimensions, &mut channels)?);
        }
        let norm = Some("xvector.dense.nonlinear.batchnorm");
        let dense = source.convolution("xvector.dense.linear", norm, &[embedding_size, 2 * channels, 1])?;
        source.finish()?;
        Ok(Self { dimensions, first, residual, last, tdnn, blocks, dense })
    }
}

fn residual_block(source: &mut dyn Source, index: usize, m: usize) -> Result<ResidualBlock> {
    let (layer, block) = (index / RESIDUAL_BLOCKS + 1, index % RESIDUAL_BLOCKS);
    let name = format!("head.layer{layer}.{block}");
    let mut part = |conv: &str, norm: &str, kernel: usize| {
        source.convolution(&format!("{name}.{conv}"), Some(&format!("{name}.{norm}")), &[m, m, kernel, kernel])
    };
    let first = part("conv1", "bn1", 3)?;
    let second = part("conv2", "bn2", 3)?;
    let shortcut = (block == 0).then(|| part("shortcut.0", "shortcut.1", 1)).transpose()?;
    Ok(ResidualBlock { first, second, shortcut })
}

/// A dense block with its transition; `channels` enter, and are what leaves afterwards. Behind the last block follows a
/// normalization of its own.
fn dense_block(
    source: &mut dyn Source,
    index: usize,
    layers: usize,
    dimensions: &Dimensions,
    channels: &mut usize,
) -> Result<DenseBlock> {
    let mut made = Vec::with_capacity(layers);
    for layer in 1..=layers {
        let name = format!("xvector.block{}.tdnnd{layer}", index + 1);
        made.push(dense_layer(source, &name, *channels, dimensions)?);
        *channels += dimensions.growth_rate;
    }
    let name = format!("xvector.transit{}", index + 1);
    let norm = source.normalization(&format!("{name}.nonlinear.batchnorm"), *channels)?;
    let folded = (index + 1 == BLOCKS.len()).then_some("xvector.out_nonlinear.batchnorm");
    let transit = source.convolution(&format!("{name}.linear"), folded, &[*channels / 2, *channels, 1])?;
    *channels /= 2;
    Ok(DenseBlock { layers: made, norm, transit })
}

fn dense_layer(source: &mut dyn Source, name: &str, channels: usize, dimensions: &Dimensions) -> Result<DenseLayer> {
    let Dimensions { bn_channels: inner, growth_rate: growth, .. } = *dimensions;
    let norm = source.normalization(&format!("{name}.nonlinear1.batchnorm"), channels)?;
    let behind = format!("{name}.nonlinear2.batchnorm");
    let reduce = source.convolution(&format!("{name}.linear1"), Some(&behind), &[inner, channels, 1])?;
    let mut part =
        |part: &str, shape: [usize; 3]| source.convolution(&format!("{name}.cam_layer.{part}"), None, &shape);
    let local = part("linear_local", [growth, inner, LOCAL_KERNEL])?;
    let context = [part("linear1", [inner / 2, inner, 1])?, part("linear2", [growth, inner / 2, 1])?];
    Ok(DenseLayer { norm, reduce, local, context })
}

/// Batch norm in evaluation mode, as a scale and a shift.
pub(super) struct BatchNorm {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) mean: Vec<f32>,
    pub(super) variance: Vec<f32>,
    pub(super) epsilon: f64,
}

impl BatchNorm {
    /// Returns its scale and shift for each channel; in double precision, so that folding costs no accuracy.
    fn scales(&self, name: &str) -> Result<Vec<(f64, f64)>> {
        let channel = |channel: usize| {
            let deviation = (f64::from(self.variance[channel]) + self.epsilon).sqrt();
            let scale = f64::from(self.weight[channel]) / deviation;
            (scale, f64::from(self.bias[channel]) - f64::from(self.mean[channel]) * scale)
        };
        let scales: Vec<(f64, f64)> = (0..self.weight.len()).map(channel).collect();
        if scales.iter().all(|(scale, shift)| scale.is_finite() && shift.is_finite()) {
            return Ok(scales);
        }
        let problem =
            "gives numbers that are not finite: a running variance is negative or a weight is damaged".to_owned();
        Err(CampplusError::Number { name: name.to_owned(), problem })
    }

    /// The normalization on its own.
    pub(super) fn normalization(&self, name: &str) -> Result<Normalization> {
        let (scale, shift) = self.scales(name)?.into_iter().map(|(scale, shift)| (scale as f32, shift as f32)).unzip();
        Ok(Normalization { scale, shift })
    }

    /// The normalization behind a convolution, folded into it.
    pub(super) fn fold(&self, name: &str, convolution: &mut Convolution) -> Result<()> {
        let scales = self.scales(name)?;
        let width = (convolution.weight.len() / scales.len().max(1)).max(1);
        for (row, (scale, _)) in convolution.weight.chunks_exact_mut(width).zip(&scales) {
            row.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * scale) as f32);
        }
        for (bias, (scale, shift)) in convolution.bias.iter_mut().zip(&scales) {
            *bias = (f64::from(*bias) * scale + shift) as f32;
        }
        Ok(())
    }
}
