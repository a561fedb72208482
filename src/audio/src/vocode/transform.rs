//! The search of phases: short-time transforms in both directions, and the fast Griffin-Lim algorithm.

use std::f32::consts::TAU;
use std::sync::Arc;

use realfft::num_complex::Complex32;
use realfft::{ComplexToReal, RealToComplex};

use super::TINY;
use crate::features::{MelConfig, hann_periodic, plan_forward, plan_inverse};

/// Overshoot of each step of the phase search (Perraudin, Balazs and Søndergaard 2013).
const MOMENTUM: f32 = 0.99;

/// A part of a padded signal that is given, and the number of its first frame in a longer signal.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known<'a> {
    /// The first known sample.
    pub start: usize,
    /// The known samples.
    pub samples: &'a [f32],
    /// The number of frames before the first one, on which the initial phases depend.
    pub first_frame: usize,
}

impl Known<'_> {
    fn put(&self, signal: &mut [f32]) {
        signal[self.start..self.start + self.samples.len()].copy_from_slice(self.samples);
    }
}

/// Short-time transforms of one signal in both directions.
pub(super) struct Transform {
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
    forward_scratch: Vec<Complex32>,
    inverse_scratch: Vec<Complex32>,
    frame: Vec<f32>,
    window: Vec<f32>,
    /// Reciprocal of the summed squared windows at every sample of the padded signal, including the inverse transform's
    /// scale.
    weights: Vec<f32>,
    hop: usize,
    n_fft: usize,
    frames: usize,
}

impl Transform {
    /// Creates the transforms of a signal of this number of frames.
    pub fn new(config: &MelConfig, frames: usize) -> Self {
        let (n_fft, hop) = (config.n_fft, config.hop_length);
        let forward = plan_forward(n_fft);
        let inverse = plan_inverse(n_fft);
        let window = hann_periodic(config.win_length, n_fft);
        let mut weights = vec![0.0f32; (frames - 1) * hop + n_fft];
        for frame in 0..frames {
            for (sum, value) in weights[frame * hop..].iter_mut().zip(&window) {
                *sum += value * value;
            }
        }
        for sum in &mut weights {
            *sum = if *sum > 1e-3 { 1.0 / (*sum * n_fft as f32) } else { 0.0 };
        }
        Self {
            forward_scratch: forward.make_scratch_vec(),
            inverse_scratch: inverse.make_scratch_vec(),
            frame: forward.make_input_vec(),
            forward,
            inverse,
            window,
            weights,
            hop,
            n_fft,
            frames,
        }
    }

    /// Runs the fast Griffin-Lim algorithm. Returns the signal with its padding; the known part is returned as it is.
    pub fn search_phase(&mut self, magnitudes: &[f32], iterations: usize, known: &Known<'_>) -> Vec<f32> {
        let bins = self.n_fft / 2 + 1;
        let first = known.first_frame * bins;
        let mut spectra: Vec<Complex32> = magnitudes
            .iter()
            .enumerate()
            .map(|(at, magnitude)| Complex32::from_polar(*magnitude, first_phase((first + at) as u64)))
            .collect();
        let mut signal = vec![0.0f32; self.weights.len()];
        let mut consistent = vec![Complex32::default(); bins];
        let mut before = vec![Complex32::default(); spectra.len()];
        self.take_phases(&mut spectra, magnitudes, known);
        let overshoot = MOMENTUM / (1.0 + MOMENTUM);
        for _ in 0..iterations {
            self.synthesize(&mut spectra, &mut signal);
            known.put(&mut signal);
            for frame in 0..self.frames {
                self.analyze(&signal, frame, &mut consistent);
                let range = frame * bins..(frame + 1) * bins;
                let rows = spectra[range.clone()].iter_mut().zip(&mut before[range.clone()]);
                for (((value, old), new), magnitude) in rows.zip(&consistent).zip(&magnitudes[range]) {
                    let direction = new - *old * overshoot;
                    *value = direction * (magnitude / direction.norm_sqr().sqrt().max(TINY));
                    *old = *new;
                }
            }
        }
        self.synthesize(&mut spectra, &mut signal);
        known.put(&mut signal);
        signal
    }

    /// Gives the frames that lie in the known part its phases.
    fn take_phases(&mut self, spectra: &mut [Complex32], magnitudes: &[f32], known: &Known<'_>) {
        let bins = self.n_fft / 2 + 1;
        let mut signal = vec![0.0f32; self.weights.len()];
        known.put(&mut signal);
        let mut row = vec![Complex32::default(); bins];
        let inside = |frame: &usize| {
            let start = frame * self.hop;
            start >= known.start && start + self.n_fft <= known.start + known.samples.len()
        };
        let frames: Vec<usize> = (0..self.frames).filter(inside).collect();
        for frame in frames {
            self.analyze(&signal, frame, &mut row);
            let range = frame * bins..(frame + 1) * bins;
            for ((value, new), magnitude) in spectra[range.clone()].iter_mut().zip(&row).zip(&magnitudes[range]) {
                *value = new * (magnitude / new.norm_sqr().sqrt().max(TINY));
            }
        }
    }

    /// Overlap-adds the inverse transforms; the spectra serve as scratch memory and are overwritten.
    fn synthesize(&mut self, spectra: &mut [Complex32], signal: &mut [f32]) {
        signal.fill(0.0);
        let bins = self.n_fft / 2 + 1;
        for (frame, spectrum) in spectra.chunks_exact_mut(bins).enumerate() {
            // A real signal's spectrum is real at both ends.
            spectrum[0].im = 0.0;
            if self.n_fft.is_multiple_of(2) {
                spectrum[bins - 1].im = 0.0;
            }
            self.inverse
                .process_with_scratch(spectrum, &mut self.frame, &mut self.inverse_scratch)
                .expect("the buffers have the plan's lengths, and the ends were made real");
            let start = frame * self.hop;
            for ((sum, value), weight) in signal[start..].iter_mut().zip(&self.frame).zip(&self.window) {
                *sum += value * weight;
            }
        }
        for (value, weight) in signal.iter_mut().zip(&self.weights) {
            *value *= weight;
        }
    }

    fn analyze(&mut self, signal: &[f32], frame: usize, spectrum: &mut [Complex32]) {
        let start = frame * self.hop;
        let samples = &signal[start..start + self.n_fft];
        for ((value, sample), weight) in self.frame.iter_mut().zip(samples).zip(&self.window) {
            *value = sample * weight;
        }
        self.forward
            .process_with_scratch(&mut self.frame, spectrum, &mut self.forward_scratch)
            .expect("the buffers have the plan's lengths");
    }
}

/// Returns a phase that looks random but depends on its position only (the finalizer of SplitMix64).
fn first_phase(position: u64) -> f32 {
    let mut bits = position.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((bits >> 40) as f32 / (1u64 << 24) as f32) * TAU
}
