//! Measurements that compare recordings and judge their quality.

use crate::audio::Audio;
use crate::error::AudioError;
use crate::features::Features;

/// Log-spectral distance of two natural-log magnitude (mel) spectrograms in decibels: the root mean square over bins
/// of the difference, averaged over frames. If one has more frames, its last ones are left out.
///
/// # Errors
/// [`AudioError::Shape`] if the numbers of bins differ or one has no frames.
pub fn log_spectral_distance(one: &Features, other: &Features) -> Result<f64, AudioError> {
    let frames = one.frames.min(other.frames);
    if one.bins != other.bins || frames == 0 || one.bins == 0 {
        let problem = format!("cannot be compared with {} frames x {} bins", other.frames, other.bins);
        return Err(AudioError::Shape { frames: one.frames, bins: one.bins, problem });
    }
    let decibels_per_neper = 20.0 / std::f64::consts::LN_10;
    let distance = |(a, b): (&[f32], &[f32])| {
        let squares: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        (squares / one.bins as f64).sqrt() * decibels_per_neper
    };
    Ok(one.rows().zip(other.rows()).map(distance).sum::<f64>() / frames as f64)
}

/// Returns the root mean square of every section of `hop_length` samples (a last, shorter one is left out), in decibels of full
/// scale, at least -100.
pub fn energy_contour(samples: &[f32], hop_length: usize) -> Vec<f64> {
    let level = |stretch: &[f32]| {
        let power = stretch.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / stretch.len() as f64;
        10.0 * power.max(1e-10).log10()
    };
    samples.chunks_exact(hop_length.max(1)).map(level).collect()
}

/// Pearson's correlation of two series, over the length of the shorter; `None` if one does not vary.
pub fn correlation(one: &[f64], other: &[f64]) -> Option<f64> {
    let count = one.len().min(other.len());
    let mean = |values: &[f64]| values[..count].iter().sum::<f64>() / count.max(1) as f64;
    let (mean_one, mean_other) = (mean(one), mean(other));
    let (mut cross, mut square_one, mut square_other) = (0.0, 0.0, 0.0);
    for (a, b) in one.iter().zip(other) {
        let (a, b) = (a - mean_one, b - mean_other);
        cross += a * b;
        square_one += a * a;
        square_other += b * b;
    }
    let scale = (square_one * square_other).sqrt();
    (scale > 0.0).then(|| cross / scale)
}

/// Result of a quality check.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Largest magnitude.
    pub peak: f32,
    /// Root mean square, where 1 is full scale.
    pub rms: f32,
    /// Mean of the samples.
    pub dc_offset: f32,
    /// Fraction of samples at or beyond full scale.
    pub clipped: f32,
}

/// Measures a recording over all channels.
pub fn quality(audio: &Audio) -> Quality {
    // The largest 16-bit integer counts as full scale.
    const FULL_SCALE: f32 = 32_767.0 / 32_768.0;
    let (mut peak, mut squares, mut sum, mut clipped, mut count) = (0.0f32, 0.0f64, 0.0f64, 0u64, 0u64);
    for &sample in audio.samples.iter().flatten() {
        peak = peak.max(sample.abs());
        squares += f64::from(sample).powi(2);
        sum += f64::from(sample);
        clipped += u64::from(sample.abs() >= FULL_SCALE);
        count += 1;
    }
    let count = count.max(1) as f64;
    Quality {
        peak,
        rms: (squares / count).sqrt() as f32,
        dc_offset: (sum / count) as f32,
        clipped: (clipped as f64 / count) as f32,
    }
}
