//! Sampling-rate conversion by a Hann-windowed sinc, the definition of `torchaudio.functional.resample` with its
//! default settings (`sinc_interp_hann`, low-pass width 6, roll-off 0.99).
//!
//! With both rates divided by their greatest common divisor (`from` : `to`), output sample `to * i + p` is the
//! signal, read from sample `from * i` on, weighted by the filter of phase `p`. The filters are computed once per
//! pair of rates, trimmed to their non-zero part, laid out for eight output samples at a time, and shared.

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
/// Output samples that are computed together.
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

/// The filters of one pair of rates, in groups of [`LANES`] consecutive output samples. The groups repeat after a
/// period.
struct Filters {
    /// The rates, without their common divisor.
    from: usize,
    to: usize,
    /// Input samples that a group looks at.
    reach: usize,
    /// Input samples of a period.
    period: usize,
    /// The first input sample of every group, relative to the beginning of its period.
    starts: Vec<isize>,
    /// Weights as `[group][input sample][lane]`.
    weights: Vec<[f32; LANES]>,
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
    /// Fails with the number of taps if that is too large.
    fn new(from: u32, to: u32) -> Result<Self, u64> {
        let cutoff = f64::from(from.min(to)) * ROLLOFF;
        let ratio = f64::from(from) / f64::from(to);
        // Input samples to either side of an output sample that the windowed sinc reaches.
        let half = LOWPASS_WIDTH * f64::from(from) / cutoff;
        let reach = (2.0 * half + ratio * (LANES - 1) as f64).ceil() as usize + 1;
        let groups = to / gcd(to, LANES as u32);
        let taps = u64::from(groups) * reach as u64 * LANES as u64;
        if taps > MAX_TAPS {
            return Err(taps);
        }
        let mut starts = Vec::with_capacity(groups as usize);
        let mut weights = Vec::with_capacity(groups as usize * reach);
        for group in 0..groups as usize {
            let outputs: [f64; LANES] = std::array::from_fn(|lane| (group * LANES + lane) as f64);
            let start = (outputs[0] * ratio - half).ceil();
            starts.push(start as isize);
            weights.extend((0..reach).map(|tap| {
                let input = (start + tap as f64) / f64::from(from);
                outputs.map(|output| weight((input - output / f64::from(to)) * cutoff, cutoff / f64::from(from)) as f32)
            }));
        }
        let period = groups as usize * LANES / to as usize * from as usize;
        Ok(Self { from: from as usize, to: to as usize, reach, period, starts, weights })
    }

    fn convert(&self, samples: &[f32]) -> Vec<f32> {
        let length = (samples.len() as u128 * self.to as u128).div_ceil(self.from as u128) as usize;
        // Room for a whole last group, which is cut afterwards.
        let mut out = Vec::with_capacity(length.next_multiple_of(LANES));
        convert_all(self, samples, length, &mut out);
        out.truncate(length);
        out
    }
}

/// The windowed sinc at `x` zero crossings from its center.
fn weight(x: f64, scale: f64) -> f64 {
    if x.abs() >= LOWPASS_WIDTH {
        return 0.0;
    }
    let window = (x * PI / LOWPASS_WIDTH / 2.0).cos().powi(2);
    let sinc = if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
    sinc * window * scale
}

vectorised! {
    fn convert_all(filters: &Filters, samples: &[f32], length: usize, out: &mut Vec<f32>) {
        let mut edge = vec![0.0; filters.reach];
        let mut origin = 0isize;
        while out.len() < length {
            for (start, weights) in filters.starts.iter().zip(filters.weights.chunks_exact(filters.reach)) {
                let first = origin + start;
                let inside = usize::try_from(first).ok().and_then(|first| samples.get(first..first + filters.reach));
                out.extend_from_slice(&match inside {
                    Some(window) => weighted(weights, window),
                    None => weighted(weights, beyond_the_ends(samples, first, &mut edge)),
                });
                if out.len() >= length {
                    break;
                }
            }
            origin += filters.period as isize;
        }
    }
}

/// Fills `edge` with the samples from `first` on, zeros before the beginning and behind the end.
fn beyond_the_ends<'a>(samples: &[f32], first: isize, edge: &'a mut [f32]) -> &'a [f32] {
    for (position, value) in (first..).zip(edge.iter_mut()) {
        *value = usize::try_from(position).ok().and_then(|position| samples.get(position)).copied().unwrap_or(0.0);
    }
    edge
}

/// The sum of the samples, each with its weights for all lanes; even and odd samples are summed apart.
#[inline(always)]
fn weighted(weights: &[[f32; LANES]], samples: &[f32]) -> [f32; LANES] {
    let (mut even, mut odd) = ([0.0f32; LANES], [0.0f32; LANES]);
    let (weight_pairs, last_weight) = weights.as_chunks::<2>();
    let (sample_pairs, last_sample) = samples.as_chunks::<2>();
    for (w, x) in weight_pairs.iter().zip(sample_pairs) {
        for lane in 0..LANES {
            even[lane] += w[0][lane] * x[0];
            odd[lane] += w[1][lane] * x[1];
        }
    }
    for (w, x) in last_weight.iter().zip(last_sample) {
        for lane in 0..LANES {
            even[lane] += w[lane] * x;
        }
    }
    std::array::from_fn(|lane| even[lane] + odd[lane])
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
