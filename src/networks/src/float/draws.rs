//! Random numbers of a training step: times, noise, and the conditions that are left out.

use super::{Batch, Result};
use candle_core::{Device, Tensor};
use flowmill_nn::random::RngKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Shares of windows whose conditions are replaced by zeros in training, each drawn on its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DropoutConfig {
    /// Share without the speech of the current frames.
    pub audio: f32,
    /// Share without the reference.
    pub reference: f32,
    /// Share without the emotion.
    pub emotion: f32,
    /// Share without the motion of the previous frames.
    pub previous_motion: f32,
    /// Share without the speech of the previous frames.
    pub previous_audio: f32,
}

impl Default for DropoutConfig {
    fn default() -> Self {
        Self { audio: 0.1, reference: 0.1, emotion: 0.1, previous_motion: 0.5, previous_audio: 0.5 }
    }
}

impl DropoutConfig {
    /// The configuration that drops nothing.
    pub const NONE: Self = Self { audio: 0.0, reference: 0.0, emotion: 0.0, previous_motion: 0.0, previous_audio: 0.0 };

    /// Returns the name of the first share that is not between 0 and 1.
    pub fn wrong(&self) -> Option<&'static str> {
        let shares = [
            ("audio", self.audio),
            ("reference", self.reference),
            ("emotion", self.emotion),
            ("previous_motion", self.previous_motion),
            ("previous_audio", self.previous_audio),
        ];
        shares.into_iter().find(|(_, share)| !(0.0..=1.0).contains(share)).map(|(name, _)| name)
    }
}

/// The conditions of a window that the model sees; the others are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Whether the speech of the current frames is given.
    pub audio: bool,
    /// Whether the reference is given.
    pub reference: bool,
    /// Whether the emotion is given.
    pub emotion: bool,
    /// Whether the motion of the previous frames is given.
    pub previous_motion: bool,
    /// Whether the speech of the previous frames is given.
    pub previous_audio: bool,
}

impl Kept {
    /// All conditions.
    pub const ALL: Self =
        Self { audio: true, reference: true, emotion: true, previous_motion: true, previous_audio: true };
}

/// All random numbers of a training step.
#[derive(Debug, Clone)]
pub struct Draws {
    /// The time of each window on its path, uniform in [0, 1).
    pub times: Vec<f32>,
    /// Standard normal noise `[current frame, channel]`, for the windows one after the other.
    pub noise: Tensor,
    /// The conditions of each window.
    pub kept: Vec<Kept>,
}

impl Draws {
    /// Draws all random numbers. Those of a window are keyed by its `sample`, so they do not depend on the batch around it.
    /// `rng_key` is keyed by (seed, epoch, step).
    ///
    /// # Errors
    /// Returns an error if the noise cannot be created.
    pub fn from_rng_key(rng_key: &RngKey, batch: &Batch, dropout: &DropoutConfig) -> Result<Self> {
        let width = batch.motion.dim(1)?;
        let frames: usize = batch.lengths.iter().sum();
        let mut noise = Vec::with_capacity(frames * width);
        let (mut times, mut kept) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for (sample, length) in batch.samples.iter().zip(&batch.lengths) {
            let of = |purpose| rng_key.purpose(purpose).sample(*sample);
            noise.extend(of("float noise").normals(length * width));
            times.push(of("float time").uniform_at(0));
            let shares = of("float dropout");
            let keep = |position, share| shares.uniform_at(position) >= share;
            kept.push(Kept {
                audio: keep(0, dropout.audio),
                reference: keep(1, dropout.reference),
                emotion: keep(2, dropout.emotion),
                previous_motion: keep(3, dropout.previous_motion),
                previous_audio: keep(4, dropout.previous_audio),
            });
        }
        Ok(Self { times, noise: Tensor::from_vec(noise, (frames, width), &Device::Cpu)?, kept })
    }
}
