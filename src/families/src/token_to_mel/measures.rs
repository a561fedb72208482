//! Scores of generated log-mels and waveforms against real recordings.
//!
//! Every function is pure. Log-mels are natural logarithms of magnitudes, row-major `[frame][bin]`, as [`Features`] holds them.

use flowmill_audio::features::Features;
use flowmill_audio::measure::correlation;

use crate::DECIBELS_PER_NEPER;

fn row(features: &Features, frame: usize) -> &[f32] {
    &features.data[frame * features.bins..(frame + 1) * features.bins]
}

/// Returns the mean of several log-mels of one shape, as an estimate of the conditional mean.
///
/// Returns `None` for an empty list or differing shapes.
pub fn mean_of(samples: &[Features]) -> Option<Features> {
    let first = samples.first()?;
    if samples.iter().any(|sample| (sample.frames, sample.bins) != (first.frames, first.bins)) {
        return None;
    }
    let mut sums = vec![0f64; first.data.len()];
    for sample in samples {
        for (sum, value) in sums.iter_mut().zip(&sample.data) {
            *sum += f64::from(*value);
        }
    }
    let data = sums.iter().map(|sum| (sum / samples.len() as f64) as f32).collect();
    Some(Features { data, frames: first.frames, bins: first.bins })
}

/// Running moments of log-mels: the deviation of speech from its mean, per bin, over all frames.
#[derive(Debug, Clone, Default)]
pub struct Spread {
    count: f64,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Spread {
    /// Adds every frame of `mel` up to `frames`.
    pub fn add(&mut self, mel: &Features, frames: usize) {
        self.sums.resize(mel.bins, 0.0);
        self.squares.resize(mel.bins, 0.0);
        for frame in 0..frames.min(mel.frames) {
            for (bin, value) in row(mel, frame).iter().enumerate() {
                let value = f64::from(*value);
                self.sums[bin] += value;
                self.squares[bin] += value * value;
            }
            self.count += 1.0;
        }
    }

    /// Returns the standard deviation over frames, averaged over bins, in dB.
    pub fn decibels(&self) -> f64 {
        if self.count == 0.0 || self.sums.is_empty() {
            return 0.0;
        }
        let total: f64 = self
            .sums
            .iter()
            .zip(&self.squares)
            .map(|(sum, square)| {
                let mean = sum / self.count;
                (square / self.count - mean * mean).max(0.0).sqrt()
            })
            .sum();
        DECIBELS_PER_NEPER * total / self.sums.len() as f64
    }
}

/// Sum of squared differences between log-mels, for a root-mean-square in dB over many utterances.
#[derive(Debug, Clone, Copy, Default)]
pub struct Residual {
    count: f64,
    squares: f64,
}

impl Residual {
    /// Adds the differences of the frames that both have.
    pub fn add(&mut self, a: &Features, b: &Features) {
        let values = a.frames.min(b.frames) * a.bins;
        for (x, y) in a.data[..values].iter().zip(&b.data[..values]) {
            self.squares += (f64::from(*x) - f64::from(*y)).powi(2);
        }
        self.count += values as f64;
    }

    /// Returns the root mean square in dB; 0 without data.
    pub fn decibels(&self) -> f64 {
        if self.count == 0.0 {
            return 0.0;
        }
        DECIBELS_PER_NEPER * (self.squares / self.count).sqrt()
    }
}

/// Returns the energy contour of a waveform in dB: one value per `hop_length` samples, over a window of two hops.
///
/// A floor of −60 dB below the loudest frame keeps digital silence finite and stops inaudible noise from dominating
/// the correlation.
pub fn energy_contour(samples: &[f32], hop_length: usize) -> Vec<f64> {
    let mut powers = Vec::with_capacity(samples.len() / hop_length + 1);
    let mut start = 0;
    while start + hop_length <= samples.len() {
        let window = &samples[start..(start + 2 * hop_length).min(samples.len())];
        let power: f64 = window.iter().map(|s| f64::from(*s).powi(2)).sum();
        powers.push(power / window.len() as f64);
        start += hop_length;
    }
    let loudest = powers.iter().copied().fold(1e-12, f64::max);
    powers.into_iter().map(|power| 10.0 * power.max(loudest * 1e-6).log10()).collect()
}

/// Returns the correlation of log F0 over the frames where both tracks are voiced (F0 in Hz, `None` if unvoiced),
/// with the number of such frames; `None` for fewer than ten.
pub fn pitch_correlation(a: &[Option<f32>], b: &[Option<f32>]) -> Option<(f64, usize)> {
    let (logs_a, logs_b): (Vec<f64>, Vec<f64>) =
        a.iter().zip(b).filter_map(|(x, y)| Some((f64::from((*x)?).ln(), f64::from((*y)?).ln()))).unzip();
    if logs_a.len() < 10 {
        return None;
    }
    Some((correlation(&logs_a, &logs_b)?, logs_a.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowmill_audio::measure::log_spectral_distance;

    fn mel(values: &[f32], bins: usize) -> Features {
        Features { data: values.to_vec(), frames: values.len() / bins, bins }
    }

    #[test]
    fn a_constant_gap_of_one_neper_is_8_69_decibels() {
        let a = mel(&[0.0; 8], 4);
        let b = mel(&[1.0; 8], 4);
        assert!((log_spectral_distance(&a, &b).unwrap() - 8.6859).abs() < 1e-3);
        let mut residual = Residual::default();
        residual.add(&a, &b);
        assert!((residual.decibels() - 8.6859).abs() < 1e-3);
    }

    #[test]
    fn spread_is_the_deviation_over_frames() {
        let mut spread = Spread::default();
        spread.add(&mel(&[-1.0, 0.0, 1.0, 0.0], 2), 2);
        // Bin 0 deviates by 1, bin 1 not at all.
        assert!((spread.decibels() - DECIBELS_PER_NEPER / 2.0).abs() < 1e-9);
    }

    #[test]
    fn the_mean_of_samples_needs_one_shape() {
        let mean = mean_of(&[mel(&[0.0, 2.0], 2), mel(&[2.0, 4.0], 2)]).map(|m| m.data);
        assert_eq!(mean, Some(vec![1.0, 3.0]));
        assert!(mean_of(&[mel(&[0.0, 2.0], 2), mel(&[2.0], 1)]).is_none());
    }

    #[test]
    fn correlation_is_one_for_scaled_series_and_undefined_for_flat_ones() {
        let r = correlation(&[1.0, 2.0, 4.0], &[10.0, 20.0, 40.0]);
        assert!((r.unwrap_or(0.0) - 1.0).abs() < 1e-12);
        assert!(correlation(&[1.0, 1.0], &[1.0, 2.0]).is_none());
    }

    #[test]
    fn energy_of_silence_is_finite() {
        assert!(energy_contour(&[0.0; 100], 10).iter().all(|value| value.is_finite()));
    }
}
