//! The sizes of a model.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::{KIND, quantizer};
use crate::UnusableWeights;
use crate::waveform::{Sizes, axis};

/// Dilations of the residual units of a block.
pub(super) const DILATIONS: [usize; 3] = [1, 3, 9];

/// Taps of the first convolution of each network, of the decoder's last one, and of residual units.
pub(super) const KERNEL: usize = 7;

/// Taps of the encoder's last convolution.
pub(super) const LAST_KERNEL: usize = 3;

/// The largest number of blocks that is believed.
const MOST_BLOCKS: usize = 16;

/// The sizes of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimensions {
    /// Channels of the encoder's first convolution.
    pub encoder_dim: usize,
    /// Strides of the encoder's blocks.
    pub encoder_rates: Vec<usize>,
    /// Channels of the encoder's output.
    pub latent_dim: usize,
    /// Channels of the decoder's first convolution.
    pub decoder_dim: usize,
    /// Strides of the decoder's blocks.
    pub decoder_rates: Vec<usize>,
    /// Levels of codes.
    pub levels: usize,
    /// Codes of each level.
    pub codes: usize,
    /// Numbers of a code.
    pub code_dim: usize,
}

impl Default for Dimensions {
    /// The published 44.1 kHz model.
    fn default() -> Self {
        Self {
            encoder_dim: 64,
            encoder_rates: vec![2, 4, 8, 8],
            latent_dim: 1024,
            decoder_dim: 1536,
            decoder_rates: vec![8, 8, 4, 2],
            levels: 9,
            codes: 1024,
            code_dim: 8,
        }
    }
}

impl Dimensions {
    /// Sizes for smoke runs: a fraction of the published work.
    pub(super) fn small(encoder_rates: [usize; 4], levels: usize, codes: usize) -> Self {
        let decoder_rates = encoder_rates.into_iter().rev().collect();
        let encoder_rates = encoder_rates.to_vec();
        Self {
            encoder_dim: 4,
            encoder_rates,
            latent_dim: 64,
            decoder_dim: 64,
            decoder_rates,
            levels,
            codes,
            code_dim: 8,
        }
    }

    /// Samples of a frame. None if the strides of both networks differ, or have no product.
    pub fn hop_length(&self) -> Option<usize> {
        let product = |rates: &[usize]| rates.iter().try_fold(1usize, |product, rate| product.checked_mul(*rate));
        product(&self.encoder_rates).filter(|hop| product(&self.decoder_rates) == Some(*hop))
    }
}

impl Sizes for Dimensions {
    const KIND: &'static str = KIND;

    fn of(tensors: &BTreeMap<String, Tensor>) -> Result<Self, UnusableWeights> {
        let rates = |name: &dyn Fn(usize) -> String| -> Vec<usize> {
            let rate = |block: usize| axis(tensors, &format!("{}.weight", name(block)), 2) / 2;
            (0..MOST_BLOCKS).map(rate).take_while(|rate| *rate > 0).collect()
        };
        let level = |level: &usize| tensors.contains_key(&quantizer::codebook_name(*level));
        let found = Self {
            encoder_dim: axis(tensors, "encoder.block.0.weight", 0),
            encoder_rates: rates(&down_name),
            latent_dim: axis(tensors, "decoder.model.0.weight", 1),
            decoder_dim: axis(tensors, "decoder.model.0.weight", 0),
            decoder_rates: rates(&up_name),
            levels: (0..).take_while(level).count(),
            codes: axis(tensors, &quantizer::codebook_name(0), 0),
            code_dim: axis(tensors, &quantizer::codebook_name(0), 1),
        };
        let sizes = [
            ("the encoder's channels", found.encoder_dim),
            ("the encoder's strides", found.encoder_rates.len()),
            ("the decoder's channels", found.decoder_dim >> found.decoder_rates.len().min(63)),
            ("the decoder's strides", found.decoder_rates.len()),
            ("the output channels", found.latent_dim),
            ("codes", found.codes),
            ("numbers of a code", found.code_dim),
        ];
        match sizes.into_iter().find(|(_, size)| *size == 0) {
            Some((what, _)) => Err(UnusableWeights(format!("they are not those of DAC: nothing tells {what}"))),
            None => Ok(found),
        }
    }

    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let mut shapes = Vec::new();
        let (encoder_blocks, decoder_blocks) = (self.encoder_rates.len(), self.decoder_rates.len());
        convolution(&mut shapes, "encoder.block.0".to_owned(), [self.encoder_dim, 1, KERNEL]);
        for (block, rate) in self.encoder_rates.iter().enumerate() {
            let channels = self.encoder_dim << block;
            residual_units(&mut shapes, &format!("encoder.block.{}.block", block + 1), 0, channels);
            alpha(&mut shapes, &format!("encoder.block.{}.block.3", block + 1), channels);
            convolution(&mut shapes, down_name(block), [2 * channels, channels, 2 * rate]);
        }
        let deepest = self.encoder_dim << encoder_blocks;
        alpha(&mut shapes, &format!("encoder.block.{}", encoder_blocks + 1), deepest);
        let last = format!("encoder.block.{}", encoder_blocks + 2);
        convolution(&mut shapes, last, [self.latent_dim, deepest, LAST_KERNEL]);

        convolution(&mut shapes, "decoder.model.0".to_owned(), [self.decoder_dim, self.latent_dim, KERNEL]);
        for (block, rate) in self.decoder_rates.iter().enumerate() {
            let (inputs, outputs) = (self.decoder_dim >> block, self.decoder_dim >> (block + 1));
            alpha(&mut shapes, &format!("decoder.model.{}.block.0", block + 1), inputs);
            // Dimension 0 of a transposed convolution is its input.
            shapes.push((format!("{}.weight", up_name(block)), vec![inputs, outputs, 2 * rate]));
            shapes.push((format!("{}.bias", up_name(block)), vec![outputs]));
            residual_units(&mut shapes, &format!("decoder.model.{}.block", block + 1), 2, outputs);
        }
        let narrowest = self.decoder_dim >> decoder_blocks;
        alpha(&mut shapes, &format!("decoder.model.{}", decoder_blocks + 1), narrowest);
        convolution(&mut shapes, format!("decoder.model.{}", decoder_blocks + 2), [1, narrowest, KERNEL]);

        for level in 0..self.levels {
            shapes.push((quantizer::codebook_name(level), vec![self.codes, self.code_dim]));
            let (inner, outer) = (self.code_dim, self.latent_dim);
            convolution(&mut shapes, quantizer::name(level, "in_proj"), [inner, outer, 1]);
            convolution(&mut shapes, quantizer::name(level, "out_proj"), [outer, inner, 1]);
        }
        shapes
    }
}

fn convolution(shapes: &mut Vec<(String, Vec<usize>)>, name: String, shape: [usize; 3]) {
    shapes.push((format!("{name}.weight"), shape.to_vec()));
    shapes.push((format!("{name}.bias"), vec![shape[0]]));
}

fn alpha(shapes: &mut Vec<(String, Vec<usize>)>, name: &str, channels: usize) {
    shapes.push((format!("{name}.alpha"), vec![1, channels, 1]));
}

fn residual_units(shapes: &mut Vec<(String, Vec<usize>)>, block: &str, first: usize, channels: usize) {
    for unit in first..first + DILATIONS.len() {
        alpha(shapes, &format!("{block}.{unit}.block.0"), channels);
        convolution(shapes, format!("{block}.{unit}.block.1"), [channels, channels, KERNEL]);
        alpha(shapes, &format!("{block}.{unit}.block.2"), channels);
        convolution(shapes, format!("{block}.{unit}.block.3"), [channels, channels, 1]);
    }
}

/// The name of the convolution with stride of a block of the encoder, from 0.
pub(super) fn down_name(block: usize) -> String {
    format!("encoder.block.{}.block.4", block + 1)
}

/// The name of the transposed convolution of a block of the decoder, from 0.
pub(super) fn up_name(block: usize) -> String {
    format!("decoder.model.{}.block.1", block + 1)
}
