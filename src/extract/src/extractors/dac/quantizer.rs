//! Residual quantization by the angle between vectors of few dimensions.

use candle_core::Tensor;
use flowmill_nn::inference::Linear;
use flowmill_nn::{Activation, NnError, Value, host};

use super::Checkpoint;
use crate::nearest::Nearest;
use crate::{Matrix, UnusableWeights};

/// The smallest norm by which a vector is divided, as in PyTorch.
const SMALLEST_NORM: f32 = 1e-12;

/// The name of a part of a level.
pub(super) fn name(level: usize, part: &str) -> String {
    format!("quantizer.quantizers.{level}.{part}")
}

/// The name of the codes of a level.
pub(super) fn codebook_name(level: usize) -> String {
    name(level, "codebook.weight")
}

/// The level that a weight belongs to, if it is one of the quantizer's.
pub(super) fn level(name: &str) -> Option<usize> {
    name.strip_prefix("quantizer.quantizers.")?.split_once('.')?.0.parse().ok()
}

/// The residual quantizer with all its levels.
pub struct Quantizer {
    levels: Vec<Level>,
    channels: usize,
}

/// A level of the quantizer.
struct Level {
    of_input: Linear,
    to_output: Linear,
    /// The codes as they are stored, and their directions.
    codes: Matrix,
    directions: Nearest,
}

/// The result of quantizing the encoder's output.
#[derive(Debug, Clone)]
pub struct Quantized {
    /// The codes, level by level.
    pub codes: Vec<Vec<u32>>,
    /// The vectors that were compared with the codes, `[frame, number]`, level by level.
    pub latents: Vec<Matrix>,
    /// The sum over levels of the vectors that the codes stand for, `[frame, channel]`.
    pub output: Matrix,
}

impl Quantizer {
    /// The quantizer of a checkpoint.
    ///
    /// # Errors
    /// When the weights do not fit.
    pub fn new(checkpoint: &Checkpoint) -> Result<Self, UnusableWeights> {
        let channels = checkpoint.dimensions().latent_dim;
        let level = |level: usize| Level::new(checkpoint, level);
        Ok(Self { levels: (0..checkpoint.dimensions().levels).map(level).collect::<Result<_, _>>()?, channels })
    }

    /// Quantizes the encoder's output, `[frame, channel]`, with the first levels.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn quantize(&self, frames: &Value, levels: usize) -> Result<Quantized, NnError> {
        let mut rest = host::read(frames.tensor())?;
        let mut output = vec![0.0; rest.len()];
        let (mut codes, mut latents) = (Vec::new(), Vec::new());
        for level in self.levels.iter().take(levels) {
            let input = Value::from_vec(rest.clone(), frames.dims())?;
            let latent = level.of_input.forward(&input, Activation::Identity)?;
            let latent = Matrix::new(host::read(latent.tensor())?, level.codes.columns());
            let nearest = level.directions.assign(&directions(&latent));
            let nearest: Vec<u32> = nearest.into_iter().map(|(code, _)| code).collect();
            let part = level.output(&nearest)?;
            rest.iter_mut().zip(&part).for_each(|(rest, part)| *rest -= part);
            output.iter_mut().zip(&part).for_each(|(output, part)| *output += part);
            codes.push(nearest);
            latents.push(latent);
        }
        Ok(Quantized { codes, latents, output: Matrix::new(output, self.channels) })
    }

    /// Returns the vectors that the codes of the first levels stand for, `[frame, channel]`.
    ///
    /// # Errors
    /// When there are too many levels, they differ in their number of frames, or a code has no entry.
    pub fn vectors(&self, codes: &[Vec<u32>]) -> Result<Value, NnError> {
        let frames = codes.first().map_or(0, Vec::len);
        let has_entries = |(level, codes): (usize, &Vec<u32>)| {
            codes.len() == frames && codes.iter().all(|code| self.entry(level, *code).is_some())
        };
        if codes.len() > self.levels.len() || !codes.iter().enumerate().all(has_entries) {
            return Err(NnError::invalid("dac", "codes of too many levels, of unequal levels, or without an entry"));
        }
        let mut output = vec![0.0; frames * self.channels];
        for (level, codes) in self.levels.iter().zip(codes) {
            let part = level.output(codes)?;
            output.iter_mut().zip(&part).for_each(|(output, part)| *output += part);
        }
        Value::from_vec(output, &[frames, self.channels])
    }

    /// The entry of a code, as many numbers as a latent has; none if there is no such level or code.
    pub fn entry(&self, level: usize, code: u32) -> Option<&[f32]> {
        let codes = &self.levels.get(level)?.codes;
        ((code as usize) < codes.rows()).then(|| codes.row(code as usize))
    }
}

impl Level {
    fn new(checkpoint: &Checkpoint, level: usize) -> Result<Self, UnusableWeights> {
        let linear = |part: &str| {
            let (weight, bias) = (format!("{}.weight", name(level, part)), format!("{}.bias", name(level, part)));
            // A convolution of one tap.
            let weight: Tensor = checkpoint.tensor(&weight)?.squeeze(2).map_err(NnError::from)?;
            Ok::<_, UnusableWeights>(Linear::new(&weight, Some(checkpoint.tensor(&bias)?))?)
        };
        let codes = Matrix::new(checkpoint.elements(&codebook_name(level))?, checkpoint.dimensions().code_dim);
        let directions = Nearest::new(directions(&codes));
        Ok(Self { of_input: linear("in_proj")?, to_output: linear("out_proj")?, codes, directions })
    }

    /// The vectors that codes of the level stand for; each has an entry.
    fn output(&self, codes: &[u32]) -> Result<Vec<f32>, NnError> {
        let entries = codes.iter().flat_map(|code| self.codes.row(*code as usize).iter().copied()).collect();
        let entries = Value::from_vec(entries, &[codes.len(), self.codes.columns()])?;
        host::read(self.to_output.forward(&entries, Activation::Identity)?.tensor())
    }
}

/// The rows, each divided by its norm.
fn directions(rows: &Matrix) -> Matrix {
    let mut values = rows.as_slice().to_vec();
    for row in values.chunks_exact_mut(rows.columns()) {
        let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt().max(SMALLEST_NORM);
        row.iter_mut().for_each(|value| *value /= norm);
    }
    Matrix::new(values, rows.columns())
}
