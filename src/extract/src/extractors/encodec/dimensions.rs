//! The sizes of a model.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::KIND;
use crate::UnusableWeights;
use crate::waveform::{Sizes, axis};

/// Stages of the encoder, each with a convolution with stride.
pub(super) const STAGES: usize = 4;

/// Layers of an LSTM.
pub(super) const LSTM_LAYERS: usize = 2;

/// Taps of the first and the last convolution.
const OUTER_KERNEL: usize = 7;

/// Taps of the first convolution of a residual block.
const BLOCK_KERNEL: usize = 3;

/// The largest stride that is believed.
const LARGEST_STRIDE: usize = 4096;

/// The sizes of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    /// Channels of the first convolution.
    pub filters: usize,
    /// Channels of the encoder's output.
    pub hidden: usize,
    /// Strides of the encoder's stages, the first stage first.
    pub strides: [usize; STAGES],
    /// Levels of codes.
    pub levels: usize,
    /// Codes of each level.
    pub codes: usize,
}

impl Default for Dimensions {
    /// The published 24 kHz model, with 8 of its 32 levels.
    fn default() -> Self {
        Self { filters: 32, hidden: 128, strides: [2, 4, 5, 8], levels: 8, codes: 1024 }
    }
}

impl Dimensions {
    /// Sizes for smoke runs: a fraction of the published work.
    pub(super) fn small(levels: usize, codes: usize) -> Self {
        Self { filters: 4, hidden: 16, strides: [2, 4, 5, 8], levels, codes }
    }

    /// Samples of a frame.
    pub fn hop_length(&self) -> usize {
        self.strides.iter().product()
    }

    /// Channels before a stage of the encoder.
    pub(super) fn channels(&self, stage: usize) -> usize {
        self.filters << stage
    }

    /// The name of the convolution with stride of a stage of the encoder.
    pub(super) fn stride_name(stage: usize) -> String {
        format!("encoder.layers.{}.conv", 3 * stage + 3)
    }
}

impl Sizes for Dimensions {
    const KIND: &'static str = KIND;

    fn of(tensors: &BTreeMap<String, Tensor>) -> Result<Self, UnusableWeights> {
        let stride = |stage: usize| axis(tensors, &format!("{}.weight", Self::stride_name(stage)), 2) / 2;
        let level = |level: &usize| tensors.contains_key(&codebook_name(*level));
        let found = Self {
            filters: axis(tensors, "encoder.layers.0.conv.weight", 0),
            hidden: axis(tensors, "encoder.layers.15.conv.weight", 0),
            strides: std::array::from_fn(stride),
            levels: (0..).take_while(level).count(),
            codes: axis(tensors, &codebook_name(0), 0),
        };
        let sizes = [("channels", found.filters / 2), ("output channels", found.hidden), ("codes", found.codes)];
        let mut sizes = sizes.into_iter().chain(found.strides.map(|stride| ("a stride", stride)));
        if found.strides.iter().any(|stride| *stride > LARGEST_STRIDE) {
            return Err(UnusableWeights(format!("they are not those of EnCodec: strides {:?}", found.strides)));
        }
        match sizes.find(|(_, size)| *size == 0) {
            Some((what, _)) => Err(UnusableWeights(format!("they are not those of EnCodec: nothing tells the {what}"))),
            None => Ok(found),
        }
    }

    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let mut shapes = Vec::new();
        let mut add = |name: String, shape: Vec<usize>| shapes.push((name, shape));
        let deepest = self.channels(STAGES);
        for (side, lstm, [first_inputs, first_outputs], [last_inputs, last_outputs]) in [
            ("encoder", 13, [1, self.filters], [deepest, self.hidden]),
            ("decoder", 1, [self.hidden, deepest], [self.filters, 1]),
        ] {
            for (layer, inputs, outputs) in [(0, first_inputs, first_outputs), (15, last_inputs, last_outputs)] {
                add(format!("{side}.layers.{layer}.conv.weight"), vec![outputs, inputs, OUTER_KERNEL]);
                add(format!("{side}.layers.{layer}.conv.bias"), vec![outputs]);
            }
            for layer in 0..LSTM_LAYERS {
                for part in ["ih", "hh"] {
                    add(format!("{side}.layers.{lstm}.lstm.weight_{part}_l{layer}"), vec![4 * deepest, deepest]);
                    add(format!("{side}.layers.{lstm}.lstm.bias_{part}_l{layer}"), vec![4 * deepest]);
                }
            }
        }
        for stage in 0..STAGES {
            let (channels, taps) = (self.channels(stage), 2 * self.strides[stage]);
            let down = Self::stride_name(stage);
            add(format!("{down}.weight"), vec![2 * channels, channels, taps]);
            add(format!("{down}.bias"), vec![2 * channels]);
            // The decoder's stages undo the encoder's from the last to the first. Dimension 0 of a transposed convolution is its input.
            let back = STAGES - 1 - stage;
            let up = format!("decoder.layers.{}.conv", 3 * back + 3);
            add(format!("{up}.weight"), vec![2 * channels, channels, taps]);
            add(format!("{up}.bias"), vec![channels]);
            for block in [format!("encoder.layers.{}", 3 * stage + 1), format!("decoder.layers.{}", 3 * back + 4)] {
                for (part, outputs, inputs, kernel) in [
                    ("block.1", channels / 2, channels, BLOCK_KERNEL),
                    ("block.3", channels, channels / 2, 1),
                    ("shortcut", channels, channels, 1),
                ] {
                    add(format!("{block}.{part}.conv.weight"), vec![outputs, inputs, kernel]);
                    add(format!("{block}.{part}.conv.bias"), vec![outputs]);
                }
            }
        }
        (0..self.levels).for_each(|level| add(codebook_name(level), vec![self.codes, self.hidden]));
        shapes
    }
}

/// The name of the codes of a level.
pub(super) fn codebook_name(level: usize) -> String {
    format!("quantizer.layers.{level}.codebook.embed")
}
