//! The sizes of a model.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::KIND;
use crate::UnusableWeights;
use crate::waveform::{Sizes, axis};

/// Convolutions of the feature extractor.
pub(super) const CONVOLUTIONS: usize = 7;

/// Strides of the convolutions, which no weight tells.
pub(super) const STRIDES: [usize; CONVOLUTIONS] = [5, 2, 2, 2, 2, 2, 2];

/// The largest kernel that is believed.
const LARGEST_KERNEL: usize = 1024;

/// Channels per attention head of the published models.
const HEAD_WIDTH: usize = 64;

/// The two forms of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The first convolution is normalized over time, transformer layers after their sums (base models).
    Base,
    /// Every convolution is normalized over channels, transformer layers before their parts (large models).
    Stable,
}

/// The sizes of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    /// The form.
    pub form: Form,
    /// Channels of each convolution.
    pub channels: [usize; CONVOLUTIONS],
    /// Taps of each convolution.
    pub kernels: [usize; CONVOLUTIONS],
    /// Whether the convolutions have a bias.
    pub has_bias: bool,
    /// Channels of the transformer.
    pub hidden: usize,
    /// Channels inside its feed-forward layers.
    pub inner: usize,
    /// Layers of the transformer.
    pub layers: usize,
    /// Taps of the convolution that gives positions.
    pub position_taps: usize,
    /// Groups of channels of that convolution.
    pub position_groups: usize,
    /// Classes of the classifier; 0 without one.
    pub classes: usize,
}

impl Default for Dimensions {
    /// The published base model.
    fn default() -> Self {
        Self {
            form: Form::Base,
            channels: [512; CONVOLUTIONS],
            kernels: [10, 3, 3, 3, 3, 2, 2],
            has_bias: false,
            hidden: 768,
            inner: 3072,
            layers: 12,
            position_taps: 128,
            position_groups: 16,
            classes: 0,
        }
    }
}

impl Dimensions {
    /// Sizes for smoke runs: a fraction of the published work, with these hidden states.
    pub(super) fn small(hidden: usize, layers: usize) -> Self {
        let (channels, inner) = ([16; CONVOLUTIONS], 2 * hidden);
        Self { channels, hidden, inner, layers, position_taps: 16, position_groups: 1, ..Self::default() }
    }

    /// Sizes of a classifier for smoke runs.
    pub(super) fn small_classifier(classes: usize) -> Self {
        Self { form: Form::Stable, has_bias: true, classes, ..Self::small(64, 2) }
    }

    /// Returns the attention heads of a published model with these sizes.
    pub fn published_heads(&self) -> usize {
        if self.hidden.is_multiple_of(HEAD_WIDTH) { self.hidden / HEAD_WIDTH } else { 1 }
    }

    /// Returns the rows of the convolutions for a number of samples; 0 if there are too few.
    pub fn rows(&self, samples: usize) -> usize {
        let layer = |rows: usize, (kernel, stride): (&usize, &usize)| match rows.checked_sub(*kernel) {
            Some(rest) => rest / stride + 1,
            None => 0,
        };
        self.kernels.iter().zip(&STRIDES).fold(samples, layer)
    }

    /// Returns the smallest number of samples that give a row.
    pub fn shortest(&self) -> usize {
        let layer = |rows: usize, (kernel, stride): (&usize, &usize)| (rows - 1) * stride + kernel;
        self.kernels.iter().zip(&STRIDES).rev().fold(1, layer)
    }
}

impl Sizes for Dimensions {
    const KIND: &'static str = KIND;

    fn of(tensors: &BTreeMap<String, Tensor>) -> Result<Self, UnusableWeights> {
        let convolution = |layer: usize| format!("feature_extractor.conv_layers.{layer}.conv.weight");
        let layer = |layer: &usize| tensors.contains_key(&format!("encoder.layers.{layer}.attention.q_proj.weight"));
        let positions = "encoder.pos_conv_embed.conv.weight";
        let hidden = axis(tensors, "feature_projection.projection.weight", 0);
        let stable = tensors.contains_key("feature_extractor.conv_layers.1.layer_norm.weight");
        let found = Self {
            form: if stable { Form::Stable } else { Form::Base },
            channels: std::array::from_fn(|layer| axis(tensors, &convolution(layer), 0)),
            kernels: std::array::from_fn(|layer| axis(tensors, &convolution(layer), 2)),
            has_bias: tensors.contains_key("feature_extractor.conv_layers.0.conv.bias"),
            hidden,
            inner: axis(tensors, "encoder.layers.0.feed_forward.intermediate_dense.weight", 0),
            layers: (0..).take_while(layer).count(),
            position_taps: axis(tensors, positions, 2),
            position_groups: hidden / axis(tensors, positions, 1).max(1),
            classes: axis(tensors, "classifier.out_proj.weight", 0),
        };
        let refuse = |what: &str| Err(UnusableWeights(format!("they are not those of wav2vec 2.0: {what}")));
        if found.channels.contains(&0) || found.kernels.iter().any(|taps| !(1..=LARGEST_KERNEL).contains(taps)) {
            return refuse(&format!("convolutions of {:?} channels and {:?} taps", found.channels, found.kernels));
        }
        let sizes = [
            ("hidden channels", found.hidden),
            ("inner channels", found.inner),
            ("layers", found.layers),
            ("taps of the positions", found.position_taps),
            ("groups of the positions", found.position_groups),
        ];
        match sizes.into_iter().find(|(_, size)| *size == 0) {
            Some((what, _)) => refuse(&format!("nothing tells the {what}")),
            None if !found.hidden.is_multiple_of(found.position_groups) => {
                refuse(&format!("{} channels in {} groups", found.hidden, found.position_groups))
            }
            None => Ok(found),
        }
    }

    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let mut shapes = Vec::new();
        let mut add = |name: String, shape: Vec<usize>| shapes.push((name, shape));
        for layer in 0..CONVOLUTIONS {
            let (name, channels) = (format!("feature_extractor.conv_layers.{layer}"), self.channels[layer]);
            let inputs = if layer == 0 { 1 } else { self.channels[layer - 1] };
            add(format!("{name}.conv.weight"), vec![channels, inputs, self.kernels[layer]]);
            if self.has_bias {
                add(format!("{name}.conv.bias"), vec![channels]);
            }
            if layer == 0 || self.form == Form::Stable {
                add(format!("{name}.layer_norm.weight"), vec![channels]);
                add(format!("{name}.layer_norm.bias"), vec![channels]);
            }
        }
        let (features, hidden) = (self.channels[CONVOLUTIONS - 1], self.hidden);
        let mut with_bias = |name: &str, shape: Vec<usize>| {
            add(format!("{name}.bias"), vec![shape[0]]);
            add(format!("{name}.weight"), shape);
        };
        with_bias("feature_projection.layer_norm", vec![features]);
        with_bias("feature_projection.projection", vec![hidden, features]);
        let width = hidden / self.position_groups.max(1);
        with_bias("encoder.pos_conv_embed.conv", vec![hidden, width, self.position_taps]);
        with_bias("encoder.layer_norm", vec![hidden]);
        for layer in 0..self.layers {
            let name = |part: &str| format!("encoder.layers.{layer}.{part}");
            for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                with_bias(&name(&format!("attention.{part}")), vec![hidden, hidden]);
            }
            with_bias(&name("layer_norm"), vec![hidden]);
            with_bias(&name("feed_forward.intermediate_dense"), vec![self.inner, hidden]);
            with_bias(&name("feed_forward.output_dense"), vec![hidden, self.inner]);
            with_bias(&name("final_layer_norm"), vec![hidden]);
        }
        if self.classes > 0 {
            with_bias("classifier.dense", vec![hidden, hidden]);
            with_bias("classifier.out_proj", vec![self.classes, hidden]);
        }
        shapes
    }
}
