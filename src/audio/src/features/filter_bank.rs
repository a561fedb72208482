//! Triangular filters on a mel scale, stored sparsely.

use serde::{Deserialize, Serialize};

use super::framing::LANES;
use crate::simd::vectorized;

/// Scale from hertz to mel, and the scaling of the triangles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MelScale {
    /// Slaney's Auditory Toolbox: linear below 1 kHz, logarithmic above; triangles of equal area (librosa's default).
    Slaney,
    /// 2595 log10(1 + f/700); triangles of height 1.
    Htk,
}

impl MelScale {
    fn mel(self, hertz: f64) -> f64 {
        match self {
            Self::Slaney if hertz >= SLANEY_BREAK => 15.0 + (hertz / SLANEY_BREAK).ln() / slaney_log_step(),
            Self::Slaney => hertz * 3.0 / 200.0,
            Self::Htk => 2595.0 * (1.0 + hertz / 700.0).log10(),
        }
    }

    /// The `n_mels + 2` edges and centers of equally wide bands over a range in hertz.
    pub(super) fn points(self, n_mels: usize, range: (f64, f64)) -> impl Iterator<Item = f64> {
        let (low, high) = (self.mel(range.0), self.mel(range.1));
        (0..n_mels + 2).map(move |i| self.hertz(low + (high - low) * i as f64 / (n_mels + 1) as f64))
    }

    fn hertz(self, mel: f64) -> f64 {
        match self {
            Self::Slaney if mel >= 15.0 => SLANEY_BREAK * ((mel - 15.0) * slaney_log_step()).exp(),
            Self::Slaney => mel * 200.0 / 3.0,
            Self::Htk => 700.0 * (10f64.powf(mel / 2595.0) - 1.0),
        }
    }
}

const SLANEY_BREAK: f64 = 1000.0;

fn slaney_log_step() -> f64 {
    6.4f64.ln() / 27.0
}

/// One filter: `weights` for the spectrum's bins from `first` on.
#[derive(Debug, Clone)]
struct Filter {
    first: usize,
    weights: Vec<f32>,
}

/// A bank of triangular filters over the bins of a power or magnitude spectrum.
#[derive(Debug, Clone)]
pub(crate) struct FilterBank {
    filters: Vec<Filter>,
}

impl FilterBank {
    /// Triangles between `n_mels + 2` points equally spaced in mel, straight in hertz (librosa's definition).
    pub(crate) fn triangles_in_hertz(
        scale: MelScale,
        sample_rate: u32,
        n_fft: usize,
        n_mels: usize,
        range: (f64, f64),
    ) -> Self {
        let points: Vec<f64> = scale.points(n_mels, range).collect();
        let bin_width = f64::from(sample_rate) / n_fft as f64;
        let filters = points.windows(3).map(|edges| {
            let (left, centre, right) = (edges[0], edges[1], edges[2]);
            let height = if scale == MelScale::Slaney { 2.0 / (right - left) } else { 1.0 };
            Filter::sample(n_fft / 2 + 1, |bin| {
                let hertz = bin as f64 * bin_width;
                height * ((hertz - left) / (centre - left)).min((right - hertz) / (right - centre))
            })
        });
        Self { filters: filters.collect() }
    }

    /// Triangles straight in mel, 1127 ln(1 + f/700), of height 1, over the bins below Nyquist (Kaldi's definition).
    pub(crate) fn triangles_in_mel(sample_rate: f64, n_fft: usize, n_mels: usize, range: (f64, f64)) -> Self {
        let mel = |hertz: f64| 1127.0 * (1.0 + hertz / 700.0).ln();
        let low = mel(range.0);
        let step = (mel(range.1) - low) / (n_mels + 1) as f64;
        let filters = (0..n_mels).map(|i| {
            let left = low + i as f64 * step;
            let right = left + 2.0 * step;
            Filter::sample(n_fft / 2, |bin| {
                let at = mel(bin as f64 * sample_rate / n_fft as f64);
                ((at - left) / step).min((right - at) / step)
            })
        });
        Self { filters: filters.collect() }
    }

    /// Number of filters.
    pub(crate) fn len(&self) -> usize {
        self.filters.len()
    }

    /// One past the last bin of the spectrum that any filter reads.
    pub(crate) fn bins_read(&self) -> usize {
        self.filters.iter().map(|filter| filter.first + filter.weights.len()).max().unwrap_or(0)
    }

    /// Number of filters without a bin, which occur if there are more filters than the spectrum can resolve.
    pub(crate) fn empty_filters(&self) -> usize {
        self.filters.iter().filter(|filter| filter.weights.is_empty()).count()
    }

    /// Applies all filters to [`LANES`] spectra at a time: `spectra` as `[bin][lane]`, `bands` as `[filter][lane]`.
    pub(crate) fn apply(&self, spectra: &[[f32; LANES]], bands: &mut [[f32; LANES]]) {
        apply_filters(&self.filters, spectra, bands);
    }

    /// Each filter as its first bin and its weights.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.filters.iter().map(|filter| (filter.first, filter.weights.as_slice()))
    }
}

impl Filter {
    /// Keeps the positive range of `weight` over the bins below `bins`.
    fn sample(bins: usize, weight: impl Fn(usize) -> f64) -> Self {
        let first = (0..bins).find(|&bin| weight(bin) > 0.0).unwrap_or(0);
        let weights = (first..bins).map(&weight).take_while(|&weight| weight > 0.0).map(|weight| weight as f32);
        Self { first, weights: weights.collect() }
    }
}

vectorized! {
    fn apply_filters(filters: &[Filter], spectra: &[[f32; LANES]], bands: &mut [[f32; LANES]]) {
        for (filter, band) in filters.iter().zip(bands) {
            let mut sums = [0.0f32; LANES];
            for (weight, bin) in filter.weights.iter().zip(&spectra[filter.first..]) {
                for lane in 0..LANES {
                    sums[lane] += weight * bin[lane];
                }
            }
            *band = sums;
        }
    }
}
