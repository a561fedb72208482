//! Kaldi's filter banks (`compute-fbank-feats`, as `torchaudio.compliance.kaldi.fbank` computes them).

use serde::{Deserialize, Serialize};

use super::Features;
use super::filter_bank::FilterBank;
use super::framing::{Analysis, Mirrored, Spectrum};
use super::mel::{filtered, require};
use super::window::Window;
use crate::error::AudioError;
use crate::simd::{floored_log, vectorized};

/// Settings of Kaldi filter banks; there is no dither. Per frame: mean removed, pre-emphasis, window, power
/// spectrum of the next power of two, triangles in mel, natural logarithm floored at the float epsilon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KaldiConfig {
    /// Sampling rate of the signal, in hertz.
    pub sample_rate: u32,
    /// Number of mel bands.
    pub n_mels: usize,
    /// Length of a frame, in milliseconds.
    pub frame_length_ms: f64,
    /// Time from one frame to the next, in milliseconds.
    pub frame_shift_ms: f64,
    /// The analysis window.
    pub window: Window,
    /// Pre-emphasis coefficient.
    pub preemphasis: f32,
    /// Lower edge of the lowest band, in hertz.
    pub low_frequency: f32,
    /// Upper edge of the highest band, in hertz; 0 or negative counts from half the sampling rate.
    pub high_frequency: f32,
    /// Factor on samples in [-1, 1] before the analysis: 1, or 32768 for Kaldi's own scale.
    pub scale: f32,
    /// Subtracts the mean over time from every band.
    pub subtract_mean: bool,
}

impl Default for KaldiConfig {
    fn default() -> Self {
        Self {
            sample_rate: 16_000,
            n_mels: 80,
            frame_length_ms: 25.0,
            frame_shift_ms: 10.0,
            window: Window::Povey,
            preemphasis: 0.97,
            low_frequency: 20.0,
            high_frequency: 0.0,
            scale: 1.0,
            subtract_mean: false,
        }
    }
}

impl KaldiConfig {
    /// Settings of the CAM++ speaker encoder: 80 bands, minus their mean over time.
    pub fn campplus() -> Self {
        Self { subtract_mean: true, ..Self::default() }
    }

    /// Settings of Paraformer encoders: Hamming window, samples on the scale of 16-bit integers.
    pub fn paraformer() -> Self {
        Self { window: Window::Hamming, scale: 32_768.0, ..Self::default() }
    }

    fn samples(&self, milliseconds: f64) -> usize {
        (f64::from(self.sample_rate) * milliseconds / 1000.0) as usize
    }

    fn range(&self) -> (f64, f64) {
        let nyquist = f64::from(self.sample_rate) / 2.0;
        let high = f64::from(self.high_frequency);
        (f64::from(self.low_frequency), if high <= 0.0 { nyquist + high } else { high })
    }

    fn check(&self) -> Result<(), AudioError> {
        let (low, high) = self.range();
        let nyquist = f64::from(self.sample_rate) / 2.0;
        let longest = 1000.0;
        require((0.1..=longest).contains(&self.frame_length_ms), "frame_length_ms", self.frame_length_ms, || {
            format!("0.1 to {longest}")
        })?;
        require((2..=1 << 16).contains(&self.samples(self.frame_length_ms)), "sample_rate", self.sample_rate, || {
            "a rate at which a frame has 2 to 65536 samples".into()
        })?;
        require(self.samples(self.frame_shift_ms) >= 1, "frame_shift_ms", self.frame_shift_ms, || {
            "at least one sample".into()
        })?;
        require((1..=4096).contains(&self.n_mels), "n_mels", self.n_mels, || "1 to 4096".into())?;
        require((0.0..=1.0).contains(&self.preemphasis), "preemphasis", self.preemphasis, || "0 to 1".into())?;
        require(self.scale.is_normal(), "scale", self.scale, || "a finite number other than 0".into())?;
        require(low >= 0.0 && low < high, "low_frequency", low, || format!("0 to below high_frequency = {high}"))?;
        require(high <= nyquist, "high_frequency", high, || format!("at most half the sampling rate, {nyquist}"))
    }
}

/// Computes Kaldi filter banks; see [`KaldiConfig`] for the definition.
pub struct KaldiFbank {
    config: KaldiConfig,
    analysis: Analysis,
    window: Vec<f32>,
    filters: FilterBank,
}

impl KaldiFbank {
    /// Prepares window, filters and transform.
    ///
    /// # Errors
    /// [`AudioError::Config`] if the configuration contradicts itself.
    pub fn new(config: KaldiConfig) -> Result<Self, AudioError> {
        config.check()?;
        let span = config.samples(config.frame_length_ms);
        let n_fft = span.next_power_of_two();
        let filters = FilterBank::triangles_in_mel(f64::from(config.sample_rate), n_fft, config.n_mels, config.range());
        let hop = config.samples(config.frame_shift_ms);
        let analysis = Analysis::new(n_fft, span, hop, filters.bins_read(), Spectrum::Power);
        // The scale is linear in everything before the power spectrum, so it can be part of the window.
        let window = config.window.samples(span).iter().map(|weight| weight * config.scale).collect();
        Ok(Self { config, analysis, window, filters })
    }

    /// Returns the configuration.
    pub fn config(&self) -> &KaldiConfig {
        &self.config
    }

    /// Computes the filter banks of `samples` (at the configured rate): `frames` x `n_mels`; whole frames only
    /// (`snip_edges`).
    ///
    /// # Errors
    /// [`AudioError::TooShort`] if there is not one whole frame.
    pub fn compute(&self, samples: &[f32]) -> Result<Features, AudioError> {
        let needed = self.window.len();
        let too_short = || AudioError::TooShort { samples: samples.len(), needed, analysis: "the Kaldi filter bank" };
        let signal = Mirrored::new(samples, 0).ok_or_else(too_short)?;
        let frames = self.analysis.frames(signal.len());
        if frames == 0 {
            return Err(too_short());
        }
        let prepare = |frame: &[f32], input: &mut [f32]| {
            emphasize(frame, &self.window, self.config.preemphasis, input);
        };
        let mut features = filtered(&self.analysis, &self.filters, signal, frames, prepare, |bands| {
            floored_log(bands.as_flattened_mut(), f32::EPSILON, 1.0);
        });
        if self.config.subtract_mean {
            features.subtract_mean();
        }
        Ok(features)
    }
}

vectorized! {
    /// Removes the mean, emphasizes (the first sample is its own predecessor), applies the window.
    fn emphasize(frame: &[f32], window: &[f32], coefficient: f32, input: &mut [f32]) {
        let mean = sum(frame) / frame.len() as f32;
        let input = &mut input[..frame.len()];
        let emphasized = |sample: f32, before: f32| (sample - mean) - coefficient * (before - mean);
        input[0] = emphasized(frame[0], frame[0]) * window[0];
        for n in 1..frame.len() {
            input[n] = emphasized(frame[n], frame[n - 1]) * window[n];
        }
    }
}

/// Sum in eight interleaved parts.
#[inline(always)]
fn sum(values: &[f32]) -> f32 {
    let mut parts = [0.0f32; 8];
    let chunks = values.chunks_exact(8);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for (part, value) in parts.iter_mut().zip(chunk) {
            *part += value;
        }
    }
    parts.iter().sum::<f32>() + rest
}
