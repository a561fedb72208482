//! Loudness of speech and music by ITU-R BS.1770-4, of one channel.
//!
//! The signal is K-weighted by two second-order filters (the formulas of Bristow-Johnson's "Audio EQ cookbook" with the parameters of
//! pyloudnorm, so that they fit any sample rate), then the mean power of blocks of 400 ms with 75 % overlap is averaged over the blocks
//! that pass two gates. As in descript's audiotools, with which published codecs normalize recordings, zeros fill the last block,
//! and a signal shorter than half a second is extended to half a second.

use std::f64::consts::PI;

/// The loudness of silence, in LUFS: the absolute gate.
pub const SILENCE: f64 = -70.0;

/// The length of a block, in seconds.
const BLOCK: f64 = 0.4;

/// Blocks that begin within a block.
const OVERLAP: usize = 4;

/// The length to which shorter signals are extended, in seconds.
const SHORTEST: f64 = 0.5;

/// Level of the relative gate below the mean of the blocks that pass the absolute one, in dB.
const RELATIVE_GATE: f64 = 10.0;

/// Loudness of a power of 1, in LUFS.
const OFFSET: f64 = -0.691;

/// A second-order filter, coefficients divided by the first one of its denominator.
struct Biquad {
    b: [f64; 3],
    a: [f64; 2],
}

impl Biquad {
    fn new(b: [f64; 3], a: [f64; 3]) -> Self {
        Self { b: b.map(|b| b / a[0]), a: [a[1] / a[0], a[2] / a[0]] }
    }

    /// The shelf that raises high frequencies like a head does: 4 dB above 1.5 kHz.
    fn high_shelf(sample_rate: f64) -> Self {
        let gain = 10f64.powf(4.0 / 40.0);
        let (cosine, alpha) = (frequency(1500.0, sample_rate).cos(), alpha(1500.0, sample_rate, 0.5f64.sqrt()));
        let (sum, difference, slope) = (gain + 1.0, gain - 1.0, 2.0 * gain.sqrt() * alpha);
        let b = [
            gain * (sum + difference * cosine + slope),
            -2.0 * gain * (difference + sum * cosine),
            gain * (sum + difference * cosine - slope),
        ];
        let a =
            [sum - difference * cosine + slope, 2.0 * (difference - sum * cosine), sum - difference * cosine - slope];
        Self::new(b, a)
    }

    /// The high-pass filter at 38 Hz.
    fn high_pass(sample_rate: f64) -> Self {
        let (cosine, alpha) = (frequency(38.0, sample_rate).cos(), alpha(38.0, sample_rate, 0.5));
        let b = [(1.0 + cosine) / 2.0, -(1.0 + cosine), (1.0 + cosine) / 2.0];
        Self::new(b, [1.0 + alpha, -2.0 * cosine, 1.0 - alpha])
    }

    fn apply(&self, samples: &mut [f64]) {
        let (mut first, mut second) = (0.0, 0.0);
        for sample in samples {
            let x = *sample;
            let y = self.b[0] * x + first;
            first = self.b[1] * x - self.a[0] * y + second;
            second = self.b[2] * x - self.a[1] * y;
            *sample = y;
        }
    }
}

/// A frequency in Hz as radians per sample.
fn frequency(hertz: f64, sample_rate: f64) -> f64 {
    2.0 * PI * hertz / sample_rate
}

fn alpha(hertz: f64, sample_rate: f64, quality: f64) -> f64 {
    frequency(hertz, sample_rate).sin() / (2.0 * quality)
}

/// Returns the integrated loudness of a signal, in LUFS; at least [`SILENCE`].
pub fn integrated_loudness(samples: &[f32], sample_rate: u32) -> f64 {
    let rate = f64::from(sample_rate);
    let mut weighted: Vec<f64> = samples.iter().map(|sample| f64::from(*sample)).collect();
    let shortest = (SHORTEST * rate) as usize;
    if weighted.len() < shortest {
        weighted.resize(shortest, 0.0);
    }
    Biquad::high_shelf(rate).apply(&mut weighted);
    Biquad::high_pass(rate).apply(&mut weighted);
    let (length, step) = ((BLOCK * rate) as usize, (BLOCK * rate / OVERLAP as f64) as usize);
    if step == 0 {
        return SILENCE;
    }
    let blocks = weighted.len().saturating_sub(length).div_ceil(step) + 1;
    let power = |block: usize| {
        let samples = weighted[block * step..].iter().take(length);
        samples.map(|sample| sample * sample).sum::<f64>() / (BLOCK * rate)
    };
    let powers: Vec<f64> = (0..blocks).map(power).collect();
    let mean_above = |gate: f64| {
        let (count, sum) = powers
            .iter()
            .filter(|power| loudness_of(**power) > gate)
            .fold((0usize, 0.0), |(count, sum), power| (count + 1, sum + power));
        if count == 0 { 0.0 } else { sum / count as f64 }
    };
    let relative = loudness_of(mean_above(SILENCE)) - RELATIVE_GATE;
    loudness_of(mean_above(relative.max(SILENCE))).max(SILENCE)
}

/// The loudness of a mean power, in LUFS.
fn loudness_of(power: f64) -> f64 {
    OFFSET + 10.0 * power.log10()
}

/// Scales a signal to a loudness in LUFS. A silent signal counts as one of [`SILENCE`].
pub fn bring_to_loudness(samples: &mut [f32], sample_rate: u32, loudness: f64) {
    let gain = 10f64.powf((loudness - integrated_loudness(samples, sample_rate)) / 20.0) as f32;
    samples.iter_mut().for_each(|sample| *sample *= gain);
}

/// Scales a signal down whose largest magnitude exceeds `peak`.
pub fn limit_peak(samples: &mut [f32], peak: f32) {
    let largest = samples.iter().fold(0.0f32, |largest, sample| largest.max(sample.abs()));
    if largest > peak {
        samples.iter_mut().for_each(|sample| *sample *= peak / largest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hertz: f64, amplitude: f64, seconds: f64, sample_rate: u32) -> Vec<f32> {
        let count = (seconds * f64::from(sample_rate)) as usize;
        let sample = |i: usize| (amplitude * (frequency(hertz, f64::from(sample_rate)) * i as f64).sin()) as f32;
        (0..count).map(sample).collect()
    }

    #[test]
    fn a_tone_has_the_loudness_of_the_standard_at_every_rate() {
        // BS.1770: a sine of 997 Hz at full scale in one channel has -3.01 LKFS.
        for rate in [16_000, 24_000, 44_100, 48_000] {
            let full = integrated_loudness(&tone(997.0, 1.0, 3.0, rate), rate);
            assert!((full + 3.01).abs() < 0.1, "{rate} Hz: {full}");
            let quiet = integrated_loudness(&tone(997.0, 0.1, 3.0, rate), rate);
            assert!((full - quiet - 20.0).abs() < 1e-3, "{rate} Hz: {quiet}");
        }
    }

    #[test]
    fn pauses_do_not_count() {
        let rate = 16_000;
        let speech = tone(500.0, 0.3, 4.0, rate);
        let with_pause = [speech.clone(), vec![0.0; 16_000 * 6], speech.clone()].concat();
        let (alone, paused) = (integrated_loudness(&speech, rate), integrated_loudness(&with_pause, rate));
        assert!((alone - paused).abs() < 0.3, "{alone} {paused}");
    }

    #[test]
    fn a_signal_is_brought_to_a_loudness() {
        let rate = 44_100;
        let mut signal = tone(300.0, 0.01, 2.0, rate);
        bring_to_loudness(&mut signal, rate, -16.0);
        assert!((integrated_loudness(&signal, rate) + 16.0).abs() < 1e-3);
        // Silence and very short signals stay finite.
        for mut signal in [vec![], vec![0.0; 100], vec![0.5; 10]] {
            bring_to_loudness(&mut signal, rate, -16.0);
            limit_peak(&mut signal, 1.0);
            assert!(signal.iter().all(|sample| sample.abs() <= 1.0));
        }
        assert_eq!(integrated_loudness(&[0.0; 1000], rate), SILENCE);
        let mut loud = vec![0.5, -2.0];
        limit_peak(&mut loud, 1.0);
        assert_eq!(loud, [0.25, -1.0]);
    }
}
