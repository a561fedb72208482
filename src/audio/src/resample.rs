//! Sampling-rate conversion by a Hann-windowed sinc, the definition of `torchaudio.functional.resample` with its
//! default settings (`sinc_interp_hann`, low-pass width 6, roll-off 0.99).
//!
//! With both rates divided by their greatest common divisor (`from` : `to`), output sample `to * i + p` is the
//! signal, read from sample `from * i` on, weighted by the filter of phase `p`. The filters are computed once per
//! pair of rates, trimmed to their non-zero part, and shared.

use std::f64::consts::PI;
use std::sync::{Arc, Mutex};

use crate::decode::{MAX_SAMPLE_RATE, MIN_SAMPLE_RATE};
use crate::error::AudioError;
use crate::simd::vectorised;

/// Zero crossings of the sinc to either side.
const LOWPASS_WIDTH: f64 = 6.0;
/// Cut-off as a fraction of half the lower rate.
const ROLLOFF: f64 = 0.99;
/// Filters larger than this (all phases together) are refused.
const MAX_TAPS: u64 = 1 << 22;
/// Pairs of rates whose filters are kept.
const CACHED_PAIRS: usize = 16;
/// Filter lengths are padded to multiples of this.
const LANES: usize = 8;

/// Converts `samples` from one rate to another, both in hertz; the result has `ceil(len * to / from)` samples.
///
/// # Errors
/// [`AudioError::SampleRate`] for rates out of bounds, [`AudioError::ResampleRatio`] for pairs of rates with
/// next to no common divisor, whose filters would be huge.
pub fn resample(samples: &[f32], from: u32, to: u32) -> Result<Vec<f32>, AudioError> {
    check_rate(from)?;
    check_rate(to)?;
    if from == to {
        return Ok(samples.to_vec());
    }
    Ok(filters(from, to)?.convert(samples))
}

fn check_rate(rate: u32) -> Result<(), AudioError> {
    if (MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE).contains(&rate) { Ok(()) } else { Err(AudioError::SampleRate { rate }) }
}

/// The filters of one pair of rates.
struct Filters {
    /// The rates, without their common divisor.
    from: usize,
    to: usize,
    /// Taps of every phase, a multiple of [`LANES`].
    taps: usize,
    /// Where the filter of each phase starts, relative to the input sample it belongs to.
    starts: Vec<isize>,
    /// Weights as `[phase][tap]`.
    weights: Vec<f32>,
}

type Cached = ((u32, u32), Arc<Filters>);
static CACHE: Mutex<Vec<Cached>> = Mutex::new(Vec::new());

fn filters(from: u32, to: u32) -> Result<Arc<Filters>, AudioError> {
    let divisor = gcd(from, to);
    let pair = (from / divisor, to / divisor);
    // A panic elsewhere cannot leave the list half-changed, so a poisoned lock is as good as any.
    let mut cache = CACHE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((_, known)) = cache.iter().find(|(key, _)| *key == pair) {
        return Ok(Arc::clone(known));
    }
    let made = Arc::new(Filters::new(pair.0, pair.1).map_err(|taps| AudioError::ResampleRatio { from, to, taps })?);
    if cache.len() == CACHED_PAIRS {
        cache.remove(0);
    }
    cache.push((pair, Arc::clone(&made)));
    Ok(made)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Filters {
    fn new(from: u32, to: u32) -> Result<Self, u64> {
        let cutoff = f64::from(from.min(to)) * ROLLOFF;
        // Input samples to either side of an output sample that the windowed sinc reaches.
        let reach = LOWPASS_WIDTH * f64::from(from) / cutoff;
        let taps = ((2.0 * reach).ceil() as usize + 1).next_multiple_of(LANES);
        let total = taps as u64 * u64::from(to);
        if total > MAX_TAPS {
            return Err(total);
        }
        let mut starts = Vec::with_capacity(to as usize);
        let mut weights = Vec::with_capacity(taps * to as usize);
        for phase in 0..to {
            // Where the output sample lies, counted in input samples.
            let centre = f64::from(phase) * f64::from(from) / f64::from(to);
            let start = (centre - reach).ceil();
            starts.push(start as isize);
            weights.extend((0..taps).map(|tap| {
                let distance = (start + tap as f64) / f64::from(from) - f64::from(phase) / f64::from(to);
                weight(distance * cutoff, cutoff / f64::from(from)) as f32
            }));
        }
        Ok(Self { from: from as usize, to: to as usize, taps, starts, weights })
    }

    fn convert(&self, samples: &[f32]) -> Vec<f32> {
        let length = (samples.len() as u128 * self.to as u128).div_ceil(self.from as u128) as usize;
        let before = self.starts.iter().map(|start| start.unsigned_abs()).max().unwrap_or(0);
        let steps = length.div_ceil(self.to);
        let mut padded = vec![0.0f32; before + steps * self.from + self.from + self.taps];
        padded[before..before + samples.len()].copy_from_slice(samples);
        let mut out = vec![0.0f32; length];
        convert_all(self, &padded, before, &mut out);
        out
    }
}

/// The windowed sinc at `x` zero crossings from its centre.
fn weight(x: f64, scale: f64) -> f64 {
    if x.abs() >= LOWPASS_WIDTH {
        return 0.0;
    }
    let window = (x * PI / LOWPASS_WIDTH / 2.0).cos().powi(2);
    let sinc = if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
    sinc * window * scale
}

vectorised! {
    fn convert_all(filters: &Filters, padded: &[f32], before: usize, out: &mut [f32]) {
        for (step, block) in out.chunks_mut(filters.to).enumerate() {
            // Every start is at least -before, so the sum is not negative.
            let origin = step * filters.from + before;
            let phases = filters.weights.chunks_exact(filters.taps).zip(&filters.starts);
            for (value, (weights, start)) in block.iter_mut().zip(phases) {
                let first = origin.wrapping_add_signed(*start);
                *value = dot(weights, &padded[first..first + filters.taps]);
            }
        }
    }
}

/// The inner product of two slices whose length is a multiple of [`LANES`].
#[inline(always)]
fn dot(weights: &[f32], samples: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    for (w, x) in weights.as_chunks::<LANES>().0.iter().zip(samples.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            sums[lane] += w[lane] * x[lane];
        }
    }
    ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_rounded_up() {
        for (from, to) in [(16_000, 24_000), (24_000, 16_000), (16_000, 22_050), (44_100, 16_000), (48_000, 24_000)] {
            for length in [1usize, 2, 7, 160, 1001] {
                let expected = (length as u64 * u64::from(to)).div_ceil(u64::from(from));
                let converted = resample(&vec![0.5; length], from, to).expect("both rates are ordinary");
                assert_eq!(converted.len() as u64, expected, "{length} samples, {from} to {to} Hz");
            }
        }
    }

    #[test]
    fn constants_stay_constant_away_from_the_ends() {
        let converted = resample(&vec![0.5; 4000], 44_100, 24_000).expect("both rates are ordinary");
        for sample in &converted[100..converted.len() - 100] {
            assert!((sample - 0.5).abs() < 1e-3, "{sample}");
        }
    }

    #[test]
    fn unreasonable_pairs_are_refused() {
        assert!(matches!(resample(&[0.0], 0, 16_000), Err(AudioError::SampleRate { rate: 0 })));
        assert!(matches!(resample(&[0.0], 767_999, 767_998), Err(AudioError::ResampleRatio { .. })));
    }
}
