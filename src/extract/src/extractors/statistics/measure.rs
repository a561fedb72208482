//! The raw statistics of a recording's log-mel bands.

use flowmill_audio::features::{Features, MelConfig, MelSpectrogram, deltas};

use super::{KIND, StatisticsConfig};
use crate::{ConfigError, ExtractError, Kind, Media};

/// The rate at which recordings are measured, in Hz.
const SAMPLE_RATE: u32 = 16_000;

/// Frames to either side over which a delta is a regression, as in HTK and Kaldi.
const DELTA_REACH: usize = 2;

pub(super) struct Measure {
    mel: MelSpectrogram,
    /// The gate in nepers of amplitude.
    gate: f32,
}

impl Measure {
    pub(super) fn new(config: &StatisticsConfig) -> Result<Self, ConfigError> {
        config.check()?;
        let mel = MelConfig {
            sample_rate: SAMPLE_RATE,
            n_fft: 512,
            win_length: 400,
            hop_length: 160,
            n_mels: config.n_mels,
            fmin: 60.0,
            fmax: 7600.0,
            ..MelConfig::cosyvoice2()
        };
        let mel = MelSpectrogram::new(mel).map_err(|error| ConfigError::new("n_mels", error.to_string()))?;
        Ok(Self { mel, gate: config.gate_db / NEPER_IN_DECIBELS })
    }

    /// Returns `[mean, deviation] of [static, delta]`, each over all bands.
    pub(super) fn measure(&self, media: &Media) -> Result<Vec<f32>, ExtractError> {
        let samples = media.as_audio(KIND)?.mono_at(SAMPLE_RATE)?;
        let mel = self.mel.compute(&samples)?;
        let slope = deltas(&mel, DELTA_REACH)?;
        let speech = self.speech_frames(&mel);
        let mut statistics = Vec::with_capacity(4 * mel.bins);
        for features in [&mel, &slope] {
            let (mean, deviation) = mean_and_deviation(features, &speech);
            statistics.extend(mean);
            statistics.extend(deviation);
        }
        if statistics.iter().all(|value| value.is_finite()) {
            Ok(statistics)
        } else {
            Err(ExtractError::NotFinite { extractor: KIND })
        }
    }

    /// The frames whose level is within the gate; the loudest always is.
    fn speech_frames(&self, mel: &Features) -> Vec<usize> {
        let levels: Vec<f32> = mel.rows().map(level).collect();
        let loudest = levels.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        (0..levels.len()).filter(|&frame| levels[frame] >= loudest - self.gate).collect()
    }
}

/// Decibels in one neper (20 / ln 10).
const NEPER_IN_DECIBELS: f32 = 8.685_89;

/// The level of a frame of log magnitudes, in nepers.
fn level(frame: &[f32]) -> f32 {
    0.5 * frame.iter().map(|value| (2.0 * value).exp()).sum::<f32>().ln()
}

fn mean_and_deviation(features: &Features, frames: &[usize]) -> (Vec<f32>, Vec<f32>) {
    let mut sums = vec![(0.0f64, 0.0f64); features.bins];
    for &frame in frames {
        for ((sum, squares), &value) in sums.iter_mut().zip(features.frame(frame)) {
            *sum += f64::from(value);
            *squares += f64::from(value) * f64::from(value);
        }
    }
    let scale = 1.0 / frames.len().max(1) as f64;
    let mean = |&(sum, _): &(f64, f64)| sum * scale;
    let deviation = |both: &(f64, f64)| (both.1 * scale - mean(both).powi(2)).max(0.0).sqrt();
    (sums.iter().map(|both| mean(both) as f32).collect(), sums.iter().map(|both| deviation(both) as f32).collect())
}
