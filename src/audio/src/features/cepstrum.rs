//! Cepstra of log-mel features, and slopes over time.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use super::Features;
use super::mel::require;
use crate::error::AudioError;

/// Settings of cepstra: orthonormal DCT-II of the log-mel bands, then sinusoidal liftering.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CepstrumConfig {
    /// Number of coefficients to keep, including the zeroth.
    pub coefficients: usize,
    /// Length of the lifter, 1 + L/2 sin(πi/L) as in Kaldi; 0 for none.
    pub lifter: f64,
}

impl Default for CepstrumConfig {
    fn default() -> Self {
        Self { coefficients: 13, lifter: 22.0 }
    }
}

/// Mel-frequency cepstral coefficients of log-mel features: same frames, `coefficients` values each.
///
/// # Errors
/// [`AudioError::Config`] if there are more coefficients than bands, or none.
pub fn mfcc(log_mel: &Features, config: &CepstrumConfig) -> Result<Features, AudioError> {
    let bins = log_mel.bins;
    require((1..=bins).contains(&config.coefficients), "coefficients", config.coefficients, || {
        format!("1 to the number of bands, {bins}")
    })?;
    require(config.lifter >= 0.0, "lifter", config.lifter, || "at least 0".into())?;
    let basis = cosine_basis(bins, config);
    let mut data = Vec::with_capacity(log_mel.frames * config.coefficients);
    for row in log_mel.rows() {
        data.extend(basis.chunks_exact(bins).map(|wave| dot(wave, row)));
    }
    Features::new(data, log_mel.frames, config.coefficients)
}

fn cosine_basis(bins: usize, config: &CepstrumConfig) -> Vec<f32> {
    let count = bins as f64;
    let rows = (0..config.coefficients).flat_map(|i| {
        let norm = if i == 0 { (1.0 / count).sqrt() } else { (2.0 / count).sqrt() };
        let lift = lifter_weight(i, config.lifter);
        (0..bins).map(move |n| (norm * lift * (PI * i as f64 * (n as f64 + 0.5) / count).cos()) as f32)
    });
    rows.collect()
}

fn lifter_weight(i: usize, length: f64) -> f64 {
    if length > 0.0 { 1.0 + 0.5 * length * (PI * i as f64 / length).sin() } else { 1.0 }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Returns the slope of every bin over time, by linear regression over `reach` frames to either side, the ends repeated:
/// d\[t\] = Σ n (x\[t+n\] - x\[t-n\]) / (2 Σ n²). Same shape as the input.
///
/// # Errors
/// [`AudioError::Config`] if `reach` is 0 or above 100.
pub fn deltas(features: &Features, reach: usize) -> Result<Features, AudioError> {
    require((1..=100).contains(&reach), "reach", reach, || "1 to 100 frames".into())?;
    let scale = 1.0 / (2 * (1..=reach).map(|n| n * n).sum::<usize>()) as f32;
    let last = features.frames.saturating_sub(1);
    let mut data = vec![0.0; features.data.len()];
    for (t, row) in data.chunks_exact_mut(features.bins.max(1)).enumerate() {
        for n in 1..=reach {
            let weight = n as f32 * scale;
            let (later, earlier) = (features.frame((t + n).min(last)), features.frame(t.saturating_sub(n)));
            for ((slope, after), before) in row.iter_mut().zip(later).zip(earlier) {
                *slope += weight * (after - before);
            }
        }
    }
    Features::new(data, features.frames, features.bins)
}
