//! The linear spectrum of a mel.

use super::TINY;
use crate::features::{Features, FilterBank, MelConfig};

/// Number of updates of the linear spectrum, which hardly changes after these.
const INVERSION_STEPS: usize = 60;

/// Returns the non-negative linear spectra, as `[frame][bin]`, whose mel bands are closest to the given ones, by
/// multiplicative updates (Lee and Seung) from a start that spreads each band evenly over its bins.
pub(super) fn linear_magnitudes(log_mel: &Features, config: &MelConfig) -> Vec<f32> {
    let filters = config.filter_bank();
    let bins = config.n_fft / 2 + 1;
    let mut magnitudes = vec![0.0f32; log_mel.frames * bins];
    let mut inversion = Inversion::new(&filters, bins);
    for (row, spectrum) in log_mel.rows().zip(magnitudes.chunks_exact_mut(bins)) {
        inversion.solve(&filters, row, spectrum);
    }
    magnitudes
}

struct Inversion {
    /// Total weight of every filter, and of every bin over all filters.
    filter_weights: Vec<f32>,
    bin_weights: Vec<f32>,
    bands: Vec<f32>,
    target: Vec<f32>,
    current: Vec<f32>,
}

impl Inversion {
    fn new(filters: &FilterBank, bins: usize) -> Self {
        let filter_weights: Vec<f32> = filters.rows().map(|(_, weights)| weights.iter().sum()).collect();
        let mut bin_weights = vec![0.0; bins];
        spread(filters, &vec![1.0; filters.len()], &mut bin_weights);
        let count = filters.len();
        Self { filter_weights, bin_weights, bands: vec![0.0; count], target: vec![0.0; bins], current: vec![0.0; bins] }
    }

    fn solve(&mut self, filters: &FilterBank, log_bands: &[f32], spectrum: &mut [f32]) {
        let wanted: Vec<f32> = log_bands.iter().map(|value| value.exp()).collect();
        let level: Vec<f32> =
            wanted.iter().zip(&self.filter_weights).map(|(band, weight)| band / weight.max(TINY)).collect();
        spread(filters, &level, spectrum);
        for (value, weight) in spectrum.iter_mut().zip(&self.bin_weights) {
            *value = if *weight > 0.0 { *value / weight } else { 0.0 };
        }
        spread(filters, &wanted, &mut self.target);
        for _ in 0..INVERSION_STEPS {
            gather(filters, spectrum, &mut self.bands);
            spread(filters, &self.bands, &mut self.current);
            for ((value, target), current) in spectrum.iter_mut().zip(&self.target).zip(&self.current) {
                *value *= target / current.max(TINY);
            }
        }
    }
}

/// Bands of a spectrum.
fn gather(filters: &FilterBank, spectrum: &[f32], bands: &mut [f32]) {
    for (band, (first, weights)) in bands.iter_mut().zip(filters.rows()) {
        *band = weights.iter().zip(&spectrum[first..]).map(|(weight, value)| weight * value).sum();
    }
}

/// The transpose of [`gather`].
fn spread(filters: &FilterBank, bands: &[f32], spectrum: &mut [f32]) {
    spectrum.fill(0.0);
    for (band, (first, weights)) in bands.iter().zip(filters.rows()) {
        for (weight, value) in weights.iter().zip(&mut spectrum[first..]) {
            *value += weight * band;
        }
    }
}
