//! Sound from log-mel spectrograms without a network: the linear spectrum by non-negative least squares, the phase
//! by the fast Griffin-Lim algorithm.

use std::f32::consts::TAU;
use std::sync::Arc;

use realfft::num_complex::Complex32;
use realfft::{ComplexToReal, RealToComplex};

use crate::error::AudioError;
use crate::features::{Features, FilterBank, MelConfig, hann_periodic, plan_forward, plan_inverse};

/// Number of updates of the linear spectrum, which hardly changes after these.
const INVERSION_STEPS: usize = 60;
/// Overshoot of each step of the phase search (Perraudin, Balazs and Søndergaard 2013).
const MOMENTUM: f32 = 0.99;
/// Magnitude below which a spectrum counts as zero.
const TINY: f32 = 1e-12;

/// Reconstructs the waveform of a log-mel spectrogram made by [`crate::features::MelSpectrogram`]: `frames * hop_length` samples at
/// `config.sample_rate`.
///
/// `iterations` of the phase search, 30 to 60 for speech; more is better and slower. Nothing is random: the initial phases
/// are a fixed function of frame and bin.
///
/// # Errors
/// [`AudioError::Config`] if the configuration contradicts itself, [`AudioError::Shape`] if the features do not fit
/// it or are not finite.
pub fn griffin_lim(log_mel: &Features, config: &MelConfig, iterations: usize) -> Result<Vec<f32>, AudioError> {
    config.check()?;
    check_shape(log_mel, config)?;
    if log_mel.frames == 0 {
        return Ok(Vec::new());
    }
    let magnitudes = linear_magnitudes(log_mel, config);
    let mut transform = Transform::new(config, log_mel.frames);
    Ok(transform.search_phase(&magnitudes, iterations))
}

fn check_shape(log_mel: &Features, config: &MelConfig) -> Result<(), AudioError> {
    let fault = |problem| AudioError::Shape { frames: log_mel.frames, bins: log_mel.bins, problem };
    if log_mel.bins != config.n_mels || log_mel.data.len() != log_mel.frames * log_mel.bins {
        return Err(fault(format!("the configuration has {} bands", config.n_mels)));
    }
    if log_mel.data.iter().any(|value| !value.is_finite() || *value > MAX_LOG) {
        return Err(fault(format!("all values must be finite and at most {MAX_LOG}")));
    }
    Ok(())
}

/// Largest log-mel value for which sums fit into 32-bit float.
const MAX_LOG: f32 = 40.0;

/// Returns the non-negative linear spectra, as `[frame][bin]`, whose mel bands are closest to the given ones, by
/// multiplicative updates (Lee and Seung) from a start that spreads each band evenly over its bins.
fn linear_magnitudes(log_mel: &Features, config: &MelConfig) -> Vec<f32> {
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

/// Short-time transforms of one signal in both directions.
struct Transform {
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
    padding: usize,
    frames: usize,
}

impl Transform {
    fn new(config: &MelConfig, frames: usize) -> Self {
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
            padding: config.padding(),
            frames,
        }
    }

    /// Runs the fast Griffin-Lim algorithm.
    fn search_phase(&mut self, magnitudes: &[f32], iterations: usize) -> Vec<f32> {
        let bins = self.n_fft / 2 + 1;
        let mut spectra: Vec<Complex32> = magnitudes
            .iter()
            .enumerate()
            .map(|(at, magnitude)| Complex32::from_polar(*magnitude, first_phase(at as u64)))
            .collect();
        let mut signal = vec![0.0f32; self.weights.len()];
        let mut consistent = vec![Complex32::default(); bins];
        let mut before = vec![Complex32::default(); spectra.len()];
        let overshoot = MOMENTUM / (1.0 + MOMENTUM);
        for _ in 0..iterations {
            self.synthesize(&mut spectra, &mut signal);
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
        let end = (self.padding + self.frames * self.hop).min(signal.len());
        signal[self.padding.min(end)..end].to_vec()
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
