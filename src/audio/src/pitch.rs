//! Fundamental frequency over time: YIN's normalized difference function (de Cheveigné and Kawahara 2002) proposes
//! candidates for every frame, and the cheapest path through them determines the pitch, including voicing.

use realfft::num_complex::Complex32;
use serde::{Deserialize, Serialize};

use crate::error::AudioError;
use crate::features::{plan_forward, plan_inverse, require};

/// Settings of the pitch tracker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PitchConfig {
    /// Sampling rate of the signal, in hertz.
    pub sample_rate: u32,
    /// Samples from one frame to the next.
    pub hop_length: usize,
    /// Lowest pitch, in hertz.
    pub fmin: f32,
    /// Highest pitch, in hertz.
    pub fmax: f32,
    /// Aperiodicity (0 periodic, 1 noise) at which voiced and unvoiced are equally likely.
    pub voicing_threshold: f32,
    /// Cost of a change by one octave from one frame to the next, in units of aperiodicity.
    pub octave_cost: f32,
    /// Cost of a change between voiced and unvoiced, in units of aperiodicity.
    pub voicing_cost: f32,
}

impl Default for PitchConfig {
    fn default() -> Self {
        Self {
            sample_rate: 24_000,
            hop_length: 480,
            fmin: 60.0,
            fmax: 500.0,
            voicing_threshold: 0.35,
            octave_cost: 0.4,
            voicing_cost: 0.12,
        }
    }
}

/// Pitch of every frame; frame `t` is centered on sample `t * hop + hop / 2`, like the frames of a mel spectrogram that
/// is not centered.
#[derive(Debug, Clone, PartialEq)]
pub struct PitchTrack {
    /// Pitch in hertz; 0 where unvoiced.
    pub f0: Vec<f32>,
    /// True for voiced frames.
    pub voiced: Vec<bool>,
}

/// Number of candidates kept per frame.
const CANDIDATES: usize = 6;
/// Frames quieter than the loudest by this factor (60 dB) are unvoiced.
const SILENCE: f32 = 1e-3;
/// Cost of an octave down, which favors shorter periods among equally periodic ones.
const SUBHARMONIC_COST: f32 = 0.02;

impl PitchConfig {
    fn check(&self) -> Result<(), AudioError> {
        let nyquist = self.sample_rate as f32 / 2.0;
        require(self.sample_rate > 0, "sample_rate", self.sample_rate, || "a rate above 0 Hz".into())?;
        require(self.hop_length > 0, "hop_length", self.hop_length, || "at least 1".into())?;
        require(self.fmin >= 20.0 && self.fmin < self.fmax, "fmin", self.fmin, || {
            format!("20 to below fmax = {}", self.fmax)
        })?;
        require(self.fmax <= nyquist / 2.0, "fmax", self.fmax, || {
            format!("at most a quarter of the sampling rate, {}", nyquist / 2.0)
        })?;
        for (field, value) in [
            ("voicing_threshold", self.voicing_threshold),
            ("octave_cost", self.octave_cost),
            ("voicing_cost", self.voicing_cost),
        ] {
            require(value.is_finite() && value >= 0.0, field, value, || "a finite number, at least 0".into())?;
        }
        Ok(())
    }

    fn longest_lag(&self) -> usize {
        (self.sample_rate as f32 / self.fmin).ceil() as usize
    }

    fn shortest_lag(&self) -> usize {
        ((self.sample_rate as f32 / self.fmax).floor() as usize).max(2)
    }
}

/// Tracks the pitch of `samples`: `samples / hop_length` frames, at least one.
///
/// # Errors
/// [`AudioError::Config`] if the configuration contradicts itself.
pub fn track_pitch(samples: &[f32], config: &PitchConfig) -> Result<PitchTrack, AudioError> {
    config.check()?;
    let frames = (samples.len() / config.hop_length).max(1);
    let mut difference = Difference::new(config);
    let samples = &voice_band(samples, config);
    let peak = samples.iter().fold(0.0f32, |peak, sample| peak.max(sample.abs()));
    let candidates: Vec<Vec<Candidate>> = (0..frames)
        .map(|frame| {
            let centre = frame * config.hop_length + config.hop_length / 2;
            difference.of(samples, centre);
            if difference.level <= peak * SILENCE { Vec::new() } else { candidates(&difference.values, config) }
        })
        .collect();
    Ok(cheapest_path(&candidates, config))
}

/// Removes hum below the lowest pitch and hiss far above the highest.
fn voice_band(samples: &[f32], config: &PitchConfig) -> Vec<f32> {
    let rate = f64::from(config.sample_rate);
    let mut high_pass = Biquad::high_pass(f64::from(config.fmin) * 0.75 / rate);
    let mut low_pass = Biquad::low_pass((f64::from(config.fmax) * 3.0 / rate).min(0.4));
    samples.iter().map(|sample| low_pass.step(high_pass.step(f64::from(*sample))) as f32).collect()
}

/// A second-order Butterworth filter.
struct Biquad {
    forward: [f64; 3],
    back: [f64; 2],
    memory: [f64; 2],
}

impl Biquad {
    /// Designs a filter by the bilinear transform: `cutoff` is a fraction of the sampling rate; `sign` is -1 for high-pass.
    fn design(cutoff: f64, sign: f64) -> Self {
        let warped = (std::f64::consts::PI * cutoff).tan();
        let square = warped * warped;
        let scale = 1.0 / (1.0 + std::f64::consts::SQRT_2 * warped + square);
        let gain = scale * if sign > 0.0 { square } else { 1.0 };
        Self {
            forward: [gain, 2.0 * sign * gain, gain],
            back: [2.0 * (square - 1.0) * scale, (1.0 - std::f64::consts::SQRT_2 * warped + square) * scale],
            memory: [0.0; 2],
        }
    }

    fn low_pass(cutoff: f64) -> Self {
        Self::design(cutoff, 1.0)
    }

    fn high_pass(cutoff: f64) -> Self {
        Self::design(cutoff, -1.0)
    }

    /// Filters one sample, in transposed direct form II.
    fn step(&mut self, input: f64) -> f64 {
        let output = self.forward[0] * input + self.memory[0];
        self.memory[0] = self.forward[1] * input - self.back[0] * output + self.memory[1];
        self.memory[1] = self.forward[2] * input - self.back[1] * output;
        output
    }
}

/// One possible period of a frame.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    f0: f32,
    cost: f32,
}

/// YIN's cumulative-mean-normalized difference of one frame, for all lags up to the longest.
struct Difference {
    values: Vec<f32>,
    /// Root mean square of the frame.
    level: f32,
    span: usize,
    n_fft: usize,
}

impl Difference {
    fn new(config: &PitchConfig) -> Self {
        let lags = config.longest_lag() + 2;
        // The compared part is as long as the longest period; with the lag it spans two.
        let span = lags;
        Self { values: vec![0.0; lags], level: 0.0, span, n_fft: (span + 2 * lags).next_power_of_two() }
    }

    fn of(&mut self, samples: &[f32], centre: usize) {
        let lags = self.values.len();
        let length = self.span + lags;
        let mut frame = vec![0.0f32; self.n_fft];
        for (at, value) in frame[..length].iter_mut().enumerate() {
            let position = (centre + at).checked_sub(length / 2);
            *value = position.and_then(|position| samples.get(position)).copied().unwrap_or(0.0);
        }
        let correlation = self.correlation(&frame);
        let mut energy = vec![0.0f64; length + 1];
        for (at, sample) in frame[..length].iter().enumerate() {
            energy[at + 1] = energy[at] + f64::from(*sample) * f64::from(*sample);
        }
        self.level = (energy[length] / length as f64).sqrt() as f32;
        let head = energy[self.span];
        let mut sum = 0.0;
        self.values[0] = 1.0;
        for lag in 1..lags {
            let shifted = energy[lag + self.span] - energy[lag];
            let difference = (head + shifted - 2.0 * f64::from(correlation[lag])).max(0.0);
            sum += difference;
            self.values[lag] = if sum > 0.0 { (difference * lag as f64 / sum) as f32 } else { 1.0 };
        }
    }

    /// Correlation of the frame's first `span` samples with the frame shifted by every lag.
    fn correlation(&self, frame: &[f32]) -> Vec<f32> {
        let forward = plan_forward(self.n_fft);
        let inverse = plan_inverse(self.n_fft);
        let transform = |mut values: Vec<f32>| {
            let mut spectrum = forward.make_output_vec();
            forward.process(&mut values, &mut spectrum).expect("the buffers have the plan's lengths");
            spectrum
        };
        let mut head = frame.to_vec();
        head[self.span..].fill(0.0);
        let head = transform(head);
        let whole = transform(frame.to_vec());
        let scale = 1.0 / self.n_fft as f32;
        let mut product: Vec<Complex32> = head.iter().zip(&whole).map(|(a, b)| a.conj() * b * scale).collect();
        let last = product.len() - 1;
        (product[0].im, product[last].im) = (0.0, 0.0);
        let mut correlation = inverse.make_output_vec();
        inverse.process(&mut product, &mut correlation).expect("the buffers fit, and the ends are real");
        correlation
    }
}

/// The deepest dips of the difference function, refined by a parabola.
fn candidates(difference: &[f32], config: &PitchConfig) -> Vec<Candidate> {
    let lags = config.shortest_lag()..=config.longest_lag().min(difference.len() - 2);
    let mut found: Vec<Candidate> = lags
        .filter(|&lag| difference[lag] < difference[lag - 1] && difference[lag] <= difference[lag + 1])
        .map(|lag| {
            let (left, here, right) = (difference[lag - 1], difference[lag], difference[lag + 1]);
            let curve = left - 2.0 * here + right;
            let shift = if curve > 0.0 { 0.5 * (left - right) / curve } else { 0.0 };
            let depth = here - 0.25 * (left - right) * shift;
            let f0 = config.sample_rate as f32 / (lag as f32 + shift);
            Candidate { f0, cost: depth.max(0.0) + SUBHARMONIC_COST * (config.fmax / f0).log2() }
        })
        .collect();
    found.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    found.truncate(CANDIDATES);
    found
}

/// Returns the cheapest path through the candidates of all frames; state 0 is unvoiced.
fn cheapest_path(candidates: &[Vec<Candidate>], config: &PitchConfig) -> PitchTrack {
    let mut totals = vec![0.0f32; 1];
    let mut states: Vec<Option<f32>> = vec![None];
    let mut from = Vec::with_capacity(candidates.len());
    for frame in candidates {
        let next: Vec<Option<f32>> = std::iter::once(None).chain(frame.iter().map(|one| Some(one.f0))).collect();
        let own = std::iter::once(config.voicing_threshold).chain(frame.iter().map(|one| one.cost));
        let best: Vec<(f32, usize)> = next
            .iter()
            .zip(own)
            .map(|(state, cost)| {
                let arrivals = totals.iter().zip(&states).map(|(total, before)| total + step(*before, *state, config));
                let (index, total) = least(arrivals);
                (total + cost, index)
            })
            .collect();
        // Only differences matter; keeping the totals small keeps them exact over hours.
        let lowest = best.iter().fold(f32::INFINITY, |lowest, (total, _)| lowest.min(*total));
        totals = best.iter().map(|(total, _)| total - lowest).collect();
        from.push(best.into_iter().map(|(_, index)| index).collect::<Vec<_>>());
        states = next;
    }
    let (mut state, _) = least(totals.into_iter());
    let mut f0 = vec![0.0; candidates.len()];
    for (frame, origins) in from.iter().enumerate().rev() {
        f0[frame] = state.checked_sub(1).map_or(0.0, |candidate| candidates[frame][candidate].f0);
        state = origins[state];
    }
    PitchTrack { voiced: f0.iter().map(|f0| *f0 > 0.0).collect(), f0 }
}

fn step(before: Option<f32>, after: Option<f32>, config: &PitchConfig) -> f32 {
    match (before, after) {
        (None, None) => 0.0,
        (Some(before), Some(after)) => config.octave_cost * (after / before).log2().abs(),
        _ => config.voicing_cost,
    }
}

fn least(values: impl Iterator<Item = f32>) -> (usize, f32) {
    values
        .enumerate()
        .fold((0, f32::INFINITY), |least, (index, value)| if value < least.1 { (index, value) } else { least })
}
