//! The sizes of a model.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::KIND;
use crate::UnusableWeights;
use crate::waveform::{Sizes, axis};

/// The smallest picture inside of the networks.
pub(super) const SMALLEST: usize = 4;

/// Linear layers from the appearance to the coefficients of motion.
pub(super) const LINEAR_LAYERS: usize = 5;

/// The largest number of halvings that is believed: pictures of 4096 pixels.
const MOST_LEVELS: usize = 10;

/// The sizes of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimensions {
    /// Channels of the encoder at each size, the largest picture first, down to 4 pixels.
    pub channels: Vec<usize>,
    /// Numbers of the appearance, and of a motion.
    pub style: usize,
    /// Directions of motion.
    pub directions: usize,
    /// Whether there is a decoder.
    pub has_decoder: bool,
}

impl Default for Dimensions {
    /// The published model.
    fn default() -> Self {
        let channels = vec![32, 64, 128, 256, 512, 512, 512, 512];
        Self { channels, style: 512, directions: 20, has_decoder: true }
    }
}

impl Dimensions {
    /// Sizes for smoke runs.
    pub(super) fn small(size: usize, style: usize, directions: usize) -> Self {
        let levels = (size / SMALLEST).max(1).ilog2() as usize + 1;
        Self { channels: vec![8; levels], style, directions, has_decoder: true }
    }

    /// Returns the width and height of pictures, in pixels.
    pub fn size(&self) -> usize {
        SMALLEST << (self.channels.len().max(1) - 1)
    }

    /// Returns the convolutions of the decoder after the first one: the name's number, input and output channels, and whether it doubles
    /// the picture.
    pub(super) fn decoder_convolutions(&self) -> Vec<(usize, usize, usize, bool)> {
        let mut found = Vec::new();
        for (level, pair) in self.channels.windows(2).rev().enumerate() {
            let [outputs, inputs] = [pair[0], pair[1]];
            found.push((2 * level, inputs, outputs, true));
            found.push((2 * level + 1, outputs, outputs, false));
        }
        found
    }
}

impl Sizes for Dimensions {
    const KIND: &'static str = KIND;

    fn of(tensors: &BTreeMap<String, Tensor>) -> Result<Self, UnusableWeights> {
        let block = |index: usize| format!("enc.net_app.convs.{index}.conv2.1.weight");
        let blocks = (1..=MOST_LEVELS).take_while(|index| tensors.contains_key(&block(*index))).count();
        let first = axis(tensors, "enc.net_app.convs.0.0.weight", 0);
        let channels: Vec<usize> =
            std::iter::once(first).chain((1..=blocks).map(|index| axis(tensors, &block(index), 0))).collect();
        let style = axis(tensors, &format!("enc.net_app.convs.{}.weight", blocks + 1), 0);
        let directions = axis(tensors, "direction.weight", 1);
        let has_decoder = tensors.contains_key("dec.input.input");
        if blocks == 0 || channels.contains(&0) || style == 0 || directions == 0 || directions > style {
            return Err(UnusableWeights(format!(
                "they are not those of LIA: {channels:?} channels, {style} numbers, {directions} directions"
            )));
        }
        Ok(Self { channels, style, directions, has_decoder })
    }

    /// The networks scale their weights at every use.
    fn deviation(_shape: &[usize]) -> f32 {
        1.0
    }

    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let mut shapes = Vec::new();
        let mut add = |name: String, shape: Vec<usize>| shapes.push((name, shape));
        add("enc.net_app.convs.0.0.weight".to_owned(), vec![self.channels[0], 3, 1, 1]);
        add("enc.net_app.convs.0.1.bias".to_owned(), vec![1, self.channels[0], 1, 1]);
        for (index, pair) in self.channels.windows(2).enumerate() {
            let (name, [inputs, outputs]) = (format!("enc.net_app.convs.{}", index + 1), [pair[0], pair[1]]);
            add(format!("{name}.conv1.0.weight"), vec![inputs, inputs, 3, 3]);
            add(format!("{name}.conv1.1.bias"), vec![1, inputs, 1, 1]);
            add(format!("{name}.conv2.1.weight"), vec![outputs, inputs, 3, 3]);
            add(format!("{name}.conv2.2.bias"), vec![1, outputs, 1, 1]);
            add(format!("{name}.skip.1.weight"), vec![outputs, inputs, 1, 1]);
        }
        let deepest = self.channels[self.channels.len() - 1];
        let last = format!("enc.net_app.convs.{}.weight", self.channels.len());
        add(last, vec![self.style, deepest, SMALLEST, SMALLEST]);
        for layer in 0..LINEAR_LAYERS {
            let outputs = if layer + 1 == LINEAR_LAYERS { self.directions } else { self.style };
            add(format!("enc.fc.{layer}.weight"), vec![outputs, self.style]);
            add(format!("enc.fc.{layer}.bias"), vec![outputs]);
        }
        add("direction.weight".to_owned(), vec![self.style, self.directions]);
        if !self.has_decoder {
            return shapes;
        }
        let mut modulated = |name: &str, [inputs, outputs, kernel]: [usize; 3]| {
            add(format!("{name}.weight"), vec![1, outputs, inputs, kernel, kernel]);
            add(format!("{name}.modulation.weight"), vec![inputs, self.style]);
            add(format!("{name}.modulation.bias"), vec![inputs]);
        };
        modulated("dec.conv1.conv", [deepest, deepest, 3]);
        for (number, inputs, outputs, _) in self.decoder_convolutions() {
            modulated(&format!("dec.convs.{number}.conv"), [inputs, outputs, 3]);
        }
        for (level, channels) in self.channels.iter().rev().skip(1).enumerate() {
            modulated(&format!("dec.to_flows.{level}.conv"), [*channels, 3, 1]);
        }
        add("dec.input.input".to_owned(), vec![1, deepest, SMALLEST, SMALLEST]);
        add("dec.conv1.activate.bias".to_owned(), vec![1, deepest, 1, 1]);
        for (number, _, outputs, _) in self.decoder_convolutions() {
            add(format!("dec.convs.{number}.activate.bias"), vec![1, outputs, 1, 1]);
        }
        for (level, channels) in self.channels.iter().rev().skip(1).enumerate() {
            add(format!("dec.to_flows.{level}.bias"), vec![1, 3, 1, 1]);
            add(format!("dec.to_rgbs.{level}.bias"), vec![1, 3, 1, 1]);
            add(format!("dec.to_rgbs.{level}.conv.0.weight"), vec![3, *channels, 1, 1]);
            add(format!("dec.to_rgbs.{level}.conv.1.bias"), vec![1, 3, 1, 1]);
        }
        shapes
    }
}
