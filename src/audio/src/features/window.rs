//! Analysis windows.

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

/// The windows of Kaldi's analyzes; all symmetric (the last sample equals the first).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// Hann to the power 0.85, Kaldi's own.
    Povey,
    /// 0.54 - 0.46 cos.
    Hamming,
    /// 0.5 - 0.5 cos.
    Hann,
    /// All ones.
    Rectangular,
}

impl Window {
    /// The symmetric window of `length` samples.
    pub fn samples(self, length: usize) -> Vec<f32> {
        let step = TAU / length.saturating_sub(1).max(1) as f64;
        (0..length).map(|n| self.at((n as f64 * step).cos()) as f32).collect()
    }

    fn at(self, cosine: f64) -> f64 {
        match self {
            Self::Povey => (0.5 - 0.5 * cosine).powf(0.85),
            Self::Hamming => 0.54 - 0.46 * cosine,
            Self::Hann => 0.5 - 0.5 * cosine,
            Self::Rectangular => 1.0,
        }
    }
}

/// The periodic Hann window of `length` samples, in the middle of `n_fft` samples.
pub(crate) fn hann_periodic(length: usize, n_fft: usize) -> Vec<f32> {
    let mut window = vec![0.0; n_fft];
    let left = (n_fft - length) / 2;
    for (n, value) in window[left..left + length].iter_mut().enumerate() {
        *value = (0.5 - 0.5 * (TAU * n as f64 / length as f64).cos()) as f32;
    }
    window
}
