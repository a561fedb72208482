//! Whisper's log-mel, which the supervised speech tokenizers use too.

use super::Features;
use super::filter_bank::{FilterBank, MelScale};
use super::framing::{Analysis, Mirrored, Spectrum, apply_window};
use super::mel::{filtered, require};
use super::window::hann_periodic;
use crate::error::AudioError;
use crate::simd::floored_log;

const SAMPLE_RATE: u32 = 16_000;
const N_FFT: usize = 400;
const HOP: usize = 160;
/// Range of values below the loudest one, in powers of ten.
const DYNAMIC_RANGE: f32 = 8.0;

/// Computes Whisper's log-mel of 16 kHz signals: window 400, hop 160, centered, log10 floored 8 below the
/// utterance's maximum, shifted and scaled to about [-1, 1].
pub struct WhisperLogMel {
    analysis: Analysis,
    window: Vec<f32>,
    filters: FilterBank,
}

impl WhisperLogMel {
    /// The sampling rate of the signals, in hertz.
    pub const SAMPLE_RATE: u32 = SAMPLE_RATE;

    /// Prepares the analysis for 80 bands (Whisper up to large-v2) or 128 (large-v3, the speech tokenizers).
    ///
    /// # Errors
    /// [`AudioError::Config`] for another number of bands.
    pub fn new(n_mels: usize) -> Result<Self, AudioError> {
        require(matches!(n_mels, 80 | 128), "n_mels", n_mels, || "80 or 128".into())?;
        let range = (0.0, f64::from(SAMPLE_RATE) / 2.0);
        let filters = FilterBank::triangles_in_hertz(MelScale::Slaney, SAMPLE_RATE, N_FFT, n_mels, range);
        let analysis = Analysis::new(N_FFT, N_FFT, HOP, filters.bins_read(), Spectrum::Power);
        Ok(Self { analysis, window: hann_periodic(N_FFT, N_FFT), filters })
    }

    /// The log-mel of `samples` at 16 kHz: `samples / 160` frames.
    ///
    /// # Errors
    /// [`AudioError::TooShort`] below 201 samples, which cannot be mirrored at the ends.
    pub fn compute(&self, samples: &[f32]) -> Result<Features, AudioError> {
        let too_short =
            || AudioError::TooShort { samples: samples.len(), needed: N_FFT / 2 + 1, analysis: "Whisper's log-mel" };
        let signal = Mirrored::new(samples, N_FFT / 2).ok_or_else(too_short)?;
        // One frame fewer than would fit: Whisper drops the last one.
        let frames = self.analysis.frames(signal.len()) - 1;
        let window = |frame: &[f32], input: &mut [f32]| apply_window(frame, &self.window, input);
        let mut features = filtered(&self.analysis, &self.filters, signal, frames, window, |bands| {
            floored_log(bands.as_flattened_mut(), 1e-10, std::f32::consts::LOG10_E);
        });
        let loudest = features.data.iter().copied().fold(f32::MIN, f32::max);
        for value in &mut features.data {
            *value = (value.max(loudest - DYNAMIC_RANGE) + 4.0) / 4.0;
        }
        Ok(features)
    }
}
