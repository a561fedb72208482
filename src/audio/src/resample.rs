//! Sampling-rate conversion by a Hann-windowed sinc, the definition of `torchaudio.functional.resample` with its
//! default settings (`sinc_interp_hann`, low-pass width 6, roll-off 0.99).
//!
//! With both rates divided by their greatest common divisor (`from` : `to`), output sample `to * i + p` is the
//! signal, read from sample `from * i` on, weighted by the filter of phase `p`. The filters are computed once per
//! pair of rates, trimmed to their non-zero part, laid out for eight output samples at a time, and shared.
//!
//! Pairs of rates that hardly reduce would have huge filters; rubato converts these, between filters of a fixed number of phases.

use std::f64::consts::PI;
use std::sync::{Arc, Mutex};

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Async, FixedAsync, Resampler, SincInterpolationParameters, WindowFunction, calculate_cutoff};

use crate::audio::Audio;
use crate::decode::{MAX_SAMPLE_RATE, MIN_SAMPLE_RATE};
use crate::error::AudioError;
use crate::simd::vectorized;

/// Zero crossings of the sinc to either side.
const LOWPASS_WIDTH: f64 = 6.0;
/// Cut-off as a fraction of half the lower rate.
const ROLLOFF: f64 = 0.99;
/// Most taps of the filters of a pair of rates, all phases together.
const MAX_TAPS: u64 = 1 << 22;
/// Pairs of rates whose filters are kept.
const CACHED_PAIRS: usize = 16;
/// Output samples that are computed together.
const LANES: usize = 8;

/// Returns a recording played faster by the factor `speed`, at the same sample rate: shorter, with all frequencies higher. The factor is rounded
/// so that its product with the sample rate is whole.
///
/// # Errors
/// [`AudioError::SampleRate`] if the product of rate and speed is out of bounds.
pub fn at_speed(audio: &Audio, speed: f64) -> Result<Audio, AudioError> {
    let (rate, played) = (audio.sample_rate, (f64::from(audio.sample_rate) * speed).round() as u32);
    let samples = audio.samples.iter().map(|channel| resample(channel, played, rate)).collect::<Result<_, _>>()?;
    Ok(Audio { samples, sample_rate: rate, warnings: audio.warnings.clone() })
}

/// Converts `samples` from one rate to another, both in hertz; the result has `ceil(len * to / from)` samples.
///
/// # Errors
/// [`AudioError::SampleRate`] for rates out of bounds.
pub fn resample(samples: &[f32], from: u32, to: u32) -> Result<Vec<f32>, AudioError> {
    check_rate(from)?;
    check_rate(to)?;
    if from == to {
        return Ok(samples.to_vec());
    }
    Ok(match filters(from, to) {
        Some(filters) => filters.convert(samples),
        None => convert_any(samples, from, to),
    })
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

/// The filters of a pair of rates; `None` if they would be huge.
fn filters(from: u32, to: u32) -> Option<Arc<Filters>> {
    let divisor = gcd(from, to);
    let pair = (from / divisor, to / divisor);
    // A panic elsewhere cannot leave the list half-changed, so a poisoned lock is as good as any.
    let mut cache = CACHE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((_, known)) = cache.iter().find(|(key, _)| *key == pair) {
        return Some(Arc::clone(known));
    }
    let made = Arc::new(Filters::new(pair.0, pair.1)?);
    if cache.len() == CACHED_PAIRS {
        cache.remove(0);
    }
    cache.push((pair, Arc::clone(&made)));
    Some(made)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Filters {
    /// The filters of two rates without a common divisor; `None` for more than [`MAX_TAPS`].
    fn new(from: u32, to: u32) -> Option<Self> {
        let cutoff = f64::from(from.min(to)) * ROLLOFF;
        let ratio = f64::from(from) / f64::from(to);
        // Input samples to either side of an output sample that the windowed sinc reaches.
        let half = LOWPASS_WIDTH * f64::from(from) / cutoff;
        let reach = (2.0 * half + ratio * (LANES - 1) as f64).ceil() as usize + 1;
        let groups = to / gcd(to, LANES as u32);
        let taps = u64::from(groups) * reach as u64 * LANES as u64;
        if taps > MAX_TAPS {
            return None;
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
        Some(Self { from: from as usize, to: to as usize, reach, period, starts, weights })
    }

    fn convert(&self, samples: &[f32]) -> Vec<f32> {
        let length = length(samples.len(), self.from, self.to);
        // Room for a whole last group, which is cut afterwards.
        let mut out = Vec::with_capacity(length.next_multiple_of(LANES));
        convert_all(self, samples, length, &mut out);
        out.truncate(length);
        out
    }
}

/// Number of samples that `samples` become.
fn length(samples: usize, from: usize, to: usize) -> usize {
    (samples as u128 * to as u128).div_ceil(from as u128) as usize
}

/// Taps of rubato's filters, in samples of the lower rate.
const ANY_TAPS: usize = 256;

/// Converts between any two rates through rubato. Samples may be early by up to one output sample, since rubato takes the delay of its
/// filters for a whole number of these, and by a hundredth of an input sample. Its vector instructions are those of the processor, and so are the last bits.
fn convert_any(samples: &[f32], from: u32, to: u32) -> Vec<f32> {
    let ratio = f64::from(to) / f64::from(from);
    let window = WindowFunction::BlackmanHarris2;
    // rubato counts taps in samples of the input.
    let taps = (ANY_TAPS as f64 / ratio.min(1.0)).ceil() as usize;
    let filter = SincInterpolationParameters::new(taps, window).f_cutoff(calculate_cutoff(ANY_TAPS, window));
    let mut rubato = Async::<f32>::new_sinc(ratio, 1.0, &filter, 1024, 1, FixedAsync::Input)
        .expect("a ratio of two rates within bounds is positive and finite");
    let input = InterleavedSlice::new(samples, 1, samples.len()).expect("one channel has as many frames as samples");
    let output =
        rubato.process_all(&input, samples.len(), None).expect("the input has as many frames as it is said to");
    let mut output = output.take_data();
    // rubato rounds a product of floats up, which may be one too many.
    output.truncate(length(samples.len(), from as usize, to as usize));
    output
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

vectorized! {
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
    fn a_faster_recording_is_shorter_and_higher() {
        let sine = |cycles: f64, frames: usize| -> Vec<f32> {
            (0..frames).map(|n| (2.0 * PI * cycles * n as f64 / 8000.0).sin() as f32).collect()
        };
        let audio = Audio { samples: vec![sine(400.0, 4400); 2], sample_rate: 8000, warnings: Vec::new() };
        let faster = at_speed(&audio, 1.1).expect("an ordinary speed");
        assert_eq!((faster.sample_rate, faster.samples.len(), faster.frames()), (8000, 2, 4000));
        let expected = sine(440.0, 4000);
        for (sample, expected) in faster.samples[1].iter().zip(&expected).skip(100).take(3800) {
            assert!((sample - expected).abs() < 2e-3, "{sample} {expected}");
        }
        assert!(matches!(at_speed(&audio, 1e9), Err(AudioError::SampleRate { .. })));
    }

    /// A pair of rates whose filters would be huge.
    const ODD: [(u32, u32); 4] = [(44_101, 23_999), (16_000, 44_101), (767_999, 23_999), (1_001, 767_999)];

    #[test]
    fn rates_out_of_bounds_are_refused() {
        assert!(matches!(resample(&[0.0], 0, 16_000), Err(AudioError::SampleRate { rate: 0 })));
        assert!(matches!(resample(&[0.0], 16_000, 768_001), Err(AudioError::SampleRate { rate: 768_001 })));
    }

    #[test]
    fn a_sine_keeps_its_frequency_and_level_between_any_two_rates() {
        for (from, to) in ODD {
            assert!(filters(from, to).is_none(), "{from} to {to} Hz");
            let cycles = 0.1 * f64::from(from.min(to));
            let phase = |n: usize, rate: u32| 2.0 * PI * cycles * n as f64 / f64::from(rate);
            let samples: Vec<f32> = (0..from as usize / 2 + 1).map(|n| 0.5 * phase(n, from).sin() as f32).collect();
            let converted = resample(&samples, from, to).expect("both rates are within bounds");
            assert_eq!(converted.len() as u64, (samples.len() as u64 * u64::from(to)).div_ceil(u64::from(from)));
            // The sine of that frequency that is nearest to the middle half, and what is left without it.
            let middle = converted.len() / 4..converted.len() * 3 / 4;
            let (mut sine, mut cosine) = (0.0, 0.0);
            for n in middle.clone() {
                sine += 2.0 * f64::from(converted[n]) * phase(n, to).sin() / middle.len() as f64;
                cosine += 2.0 * f64::from(converted[n]) * phase(n, to).cos() / middle.len() as f64;
            }
            let left = |n: usize| f64::from(converted[n]) - sine * phase(n, to).sin() - cosine * phase(n, to).cos();
            let rest = middle.map(|n| left(n).abs()).fold(0.0, f64::max);
            let early = cosine.atan2(sine) / phase(1, to);
            assert!((sine.hypot(cosine) - 0.5).abs() < 1e-3, "{from} to {to} Hz: level {}", sine.hypot(cosine));
            assert!(rest < 1e-3, "{from} to {to} Hz: {rest} besides the sine");
            let most = 1.0 + 0.01 * f64::from(to) / f64::from(from);
            assert!(early > -0.01 && early < most, "{from} to {to} Hz: early by {early} samples");
            assert_eq!(resample(&samples, from, to).expect("as before"), converted, "{from} to {to} Hz");
        }
    }

    #[test]
    fn short_recordings_have_their_length_between_any_two_rates() {
        for (from, to) in ODD {
            for length in [0usize, 1, 2, 1023, 1024, 1025] {
                let converted = resample(&vec![0.5; length], from, to).expect("both rates are within bounds");
                assert_eq!(converted.len() as u64, (length as u64 * u64::from(to)).div_ceil(u64::from(from)));
            }
        }
    }
}
