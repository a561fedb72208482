//! Log-mel spectrograms as used by flow-matching speech models.

use serde::{Deserialize, Serialize};

use super::Features;
use super::filter_bank::{FilterBank, MelScale};
use super::framing::{Analysis, LANES, Mirrored, Spectrum, apply_window};
use super::window::hann_periodic;
use crate::error::AudioError;
use crate::simd::floored_log;

/// Settings of a log-mel spectrogram: reflected at both ends by (n_fft - hop) / 2, periodic Hann window, not
/// centered, magnitude √(re² + im² + `magnitude_floor`), mel filters, ln(max(·, `log_floor`)).
///
/// This is the family of HiFi-GAN's `mel_spectrogram`, which Matcha-TTS, CosyVoice 2 and Step-Audio share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MelConfig {
    /// Sampling rate of the signal, in hertz.
    pub sample_rate: u32,
    /// Length of the Fourier transform, in samples.
    pub n_fft: usize,
    /// Length of the window, in samples; at most `n_fft`, centered in it.
    pub win_length: usize,
    /// Samples from one frame to the next.
    pub hop_length: usize,
    /// Number of mel bands.
    pub n_mels: usize,
    /// Lower edge of the lowest band, in hertz.
    pub fmin: f32,
    /// Upper edge of the highest band, in hertz.
    pub fmax: f32,
    /// The mel scale.
    pub mel_scale: MelScale,
    /// Added to the squared magnitude before the root.
    pub magnitude_floor: f32,
    /// Least value of a band before the logarithm.
    pub log_floor: f32,
}

impl MelConfig {
    /// Settings of CosyVoice 2 and its descendants: 24 kHz, 80 bands to 8 kHz, window 1920, hop 480 (50 frames a second).
    pub fn cosyvoice2() -> Self {
        Self {
            sample_rate: 24_000,
            n_fft: 1920,
            win_length: 1920,
            hop_length: 480,
            n_mels: 80,
            fmin: 0.0,
            fmax: 8000.0,
            mel_scale: MelScale::Slaney,
            magnitude_floor: 1e-9,
            log_floor: 1e-5,
        }
    }

    /// Settings of CosyVoice 3: like CosyVoice 2, but with bands up to half the sampling rate.
    pub fn cosyvoice3() -> Self {
        Self { fmax: 12_000.0, ..Self::cosyvoice2() }
    }

    /// Settings of Matcha-TTS on LJSpeech: 22.05 kHz, 80 bands to 8 kHz, window 1024, hop 256.
    pub fn matcha() -> Self {
        Self { sample_rate: 22_050, n_fft: 1024, win_length: 1024, hop_length: 256, ..Self::cosyvoice2() }
    }

    /// Settings of Step-Audio's token-to-mel flow: like CosyVoice 2, but with window 2048 and bands up to half the sampling rate.
    pub fn step_audio() -> Self {
        Self { n_fft: 2048, win_length: 2048, fmax: 12_000.0, ..Self::cosyvoice2() }
    }

    /// Frames per second.
    pub fn frame_rate(&self) -> f64 {
        f64::from(self.sample_rate) / self.hop_length as f64
    }

    /// Samples mirrored at each end of the signal.
    pub fn padding(&self) -> usize {
        (self.n_fft - self.hop_length.min(self.n_fft)) / 2
    }

    /// Number of frames of a signal of `samples` samples.
    pub fn frames(&self, samples: usize) -> usize {
        let padded = samples + 2 * self.padding();
        if padded < self.n_fft { 0 } else { 1 + (padded - self.n_fft) / self.hop_length }
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// [`AudioError::Config`] naming the field.
    pub fn check(&self) -> Result<(), AudioError> {
        let nyquist = self.sample_rate as f32 / 2.0;
        let sizes = 2..=MAX_FFT;
        require(sizes.contains(&self.n_fft), "n_fft", self.n_fft, || format!("{} to {MAX_FFT}", sizes.start()))?;
        require((1..=self.n_fft).contains(&self.win_length), "win_length", self.win_length, || {
            format!("1 to n_fft = {}", self.n_fft)
        })?;
        require((1..=self.n_fft).contains(&self.hop_length), "hop_length", self.hop_length, || {
            format!("1 to n_fft = {}", self.n_fft)
        })?;
        require((1..=self.n_fft).contains(&self.n_mels), "n_mels", self.n_mels, || {
            format!("1 to n_fft = {}", self.n_fft)
        })?;
        require(self.sample_rate > 0, "sample_rate", self.sample_rate, || "a rate above 0 Hz".into())?;
        require(self.fmin >= 0.0 && self.fmin < self.fmax, "fmin", self.fmin, || {
            format!("0 to below fmax = {}", self.fmax)
        })?;
        require(self.fmax <= nyquist, "fmax", self.fmax, || format!("at most half the sampling rate, {nyquist}"))?;
        require(self.magnitude_floor >= 0.0, "magnitude_floor", self.magnitude_floor, || "at least 0".into())?;
        require(self.log_floor.is_normal() && self.log_floor > 0.0, "log_floor", self.log_floor, || "above 0".into())
    }

    /// Center of every band, in hertz.
    pub fn centres(&self) -> Vec<f64> {
        self.mel_scale
            .points(self.n_mels, (f64::from(self.fmin), f64::from(self.fmax)))
            .skip(1)
            .take(self.n_mels)
            .collect()
    }

    pub(crate) fn filter_bank(&self) -> FilterBank {
        let range = (f64::from(self.fmin), f64::from(self.fmax));
        FilterBank::triangles_in_hertz(self.mel_scale, self.sample_rate, self.n_fft, self.n_mels, range)
    }
}

impl Default for MelConfig {
    fn default() -> Self {
        Self::cosyvoice2()
    }
}

/// Largest accepted Fourier transform.
const MAX_FFT: usize = 1 << 16;

/// Fails with [`AudioError::Config`] unless `holds` is true.
pub(crate) fn require(
    holds: bool,
    field: &'static str,
    value: impl ToString,
    expected: impl FnOnce() -> String,
) -> Result<(), AudioError> {
    if holds {
        return Ok(());
    }
    Err(AudioError::Config { field, value: value.to_string(), expected: expected() })
}

/// Computes log-mel spectrograms; see [`MelConfig`] for the definition.
pub struct MelSpectrogram {
    config: MelConfig,
    analysis: Analysis,
    window: Vec<f32>,
    filters: FilterBank,
}

impl MelSpectrogram {
    /// Prepares windows, filters and transforms.
    ///
    /// # Errors
    /// [`AudioError::Config`] if the configuration contradicts itself, or has bands so narrow that they contain no
    /// bin of the spectrum.
    pub fn new(config: MelConfig) -> Result<Self, AudioError> {
        config.check()?;
        let filters = config.filter_bank();
        require(filters.empty_filters() == 0, "n_mels", config.n_mels, || {
            format!("fewer bands: {} of them contain no bin of the spectrum", filters.empty_filters())
        })?;
        let spectrum = Spectrum::Magnitude { floor: config.magnitude_floor };
        let analysis = Analysis::new(config.n_fft, config.n_fft, config.hop_length, filters.bins_read(), spectrum);
        let window = hann_periodic(config.win_length, config.n_fft);
        Ok(Self { config, analysis, window, filters })
    }

    /// Returns the configuration.
    pub fn config(&self) -> &MelConfig {
        &self.config
    }

    /// Computes the log-mel spectrogram of `samples` (at the configured rate): `frames` x `n_mels`, natural logarithm.
    ///
    /// # Errors
    /// [`AudioError::TooShort`] if the signal is too short to be mirrored at its ends.
    pub fn compute(&self, samples: &[f32]) -> Result<Features, AudioError> {
        let padding = self.config.padding();
        let too_short = || AudioError::TooShort {
            samples: samples.len(),
            needed: (padding + 1).max(self.config.n_fft.saturating_sub(2 * padding)),
            analysis: "the mel spectrogram",
        };
        let signal = Mirrored::new(samples, padding).ok_or_else(too_short)?;
        let frames = self.analysis.frames(signal.len());
        if frames == 0 {
            return Err(too_short());
        }
        let window = |frame: &[f32], input: &mut [f32]| apply_window(frame, &self.window, input);
        Ok(filtered(&self.analysis, &self.filters, signal, frames, window, |bands| {
            floored_log(bands.as_flattened_mut(), self.config.log_floor, 1.0);
        }))
    }
}

/// Runs an analysis and a filter bank over a signal; `finish` converts the bands to the stored values.
pub(crate) fn filtered(
    analysis: &Analysis,
    filters: &FilterBank,
    signal: Mirrored<'_>,
    frames: usize,
    prepare: impl Fn(&[f32], &mut [f32]),
    finish: impl Fn(&mut [[f32; LANES]]),
) -> Features {
    let bins = filters.len();
    let mut data = vec![0.0; frames * bins];
    let mut bands = vec![[0.0f32; LANES]; bins];
    analysis.run(signal, frames, prepare, |first, count, spectra| {
        filters.apply(spectra, &mut bands);
        finish(&mut bands);
        let rows = data[first * bins..(first + count) * bins].chunks_exact_mut(bins);
        for (lane, row) in rows.enumerate() {
            for (value, band) in row.iter_mut().zip(&bands) {
                *value = band[lane];
            }
        }
    });
    Features { data, frames, bins }
}
