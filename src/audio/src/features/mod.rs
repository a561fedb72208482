//! Spectral features: mel spectrograms as defined by published speech models, Kaldi filter banks, Whisper's
//! log-mel, cepstra and deltas.
//!
//! Each analysis is a value built once (windows, filter banks, transform plans) and used from any thread; it
//! keeps no state between calls.

mod cepstrum;
mod filter_bank;
mod framing;
mod kaldi;
mod mel;
mod mel_stft;
mod whisper;
mod window;

pub use cepstrum::{CepstrumConfig, deltas, mfcc};
pub(crate) use filter_bank::FilterBank;
pub use filter_bank::MelScale;
pub(crate) use framing::{Mirrored, plan_forward, plan_inverse};
pub use kaldi::{KaldiConfig, KaldiFbank};
pub(crate) use mel::require;
pub use mel::{MelConfig, MelSpectrogram};
pub use mel_stft::mel_stft_distance;
pub use whisper::WhisperLogMel;
pub use window::Window;
pub(crate) use window::hann_periodic;

use crate::error::AudioError;

/// A matrix of features, one row per frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// Values as `[frame][bin]`, row after row.
    pub data: Vec<f32>,
    /// Number of frames.
    pub frames: usize,
    /// Values per frame.
    pub bins: usize,
}

impl Features {
    /// Creates features from `data` as `frames` rows of `bins` values.
    ///
    /// # Errors
    /// [`AudioError::Shape`] if the length of `data` is not `frames * bins`.
    pub fn new(data: Vec<f32>, frames: usize, bins: usize) -> Result<Self, AudioError> {
        if frames.checked_mul(bins) == Some(data.len()) {
            return Ok(Self { data, frames, bins });
        }
        Err(AudioError::Shape { frames, bins, problem: format!("{} values were given", data.len()) })
    }

    /// The values of one frame.
    ///
    /// # Panics
    /// If `frame` is not below [`Features::frames`].
    pub fn frame(&self, frame: usize) -> &[f32] {
        &self.data[frame * self.bins..(frame + 1) * self.bins]
    }

    /// The frames in order.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.data.chunks_exact(self.bins.max(1))
    }

    /// Returns the values as `[bin][frame]`, the layout that most networks use.
    pub fn transposed(&self) -> Vec<f32> {
        let mut transposed = vec![0.0; self.data.len()];
        for (frame, row) in self.rows().enumerate() {
            for (bin, &value) in row.iter().enumerate() {
                transposed[bin * self.frames + frame] = value;
            }
        }
        transposed
    }

    /// Subtracts the mean over time from every bin (cepstral mean normalization of one utterance).
    pub fn subtract_mean(&mut self) {
        let mut mean = vec![0.0f64; self.bins];
        for row in self.rows() {
            for (sum, &value) in mean.iter_mut().zip(row) {
                *sum += f64::from(value);
            }
        }
        let scale = 1.0 / self.frames.max(1) as f64;
        for row in self.data.chunks_exact_mut(self.bins.max(1)) {
            for (value, sum) in row.iter_mut().zip(&mean) {
                *value -= (sum * scale) as f32;
            }
        }
    }
}
