//! The short-time Fourier transform and its inverse, with the phase, for networks that read or write complex spectra.

use realfft::num_complex::Complex32;
use serde::{Deserialize, Serialize};

use crate::error::AudioError;
use crate::features::{Mirrored, hann_periodic, plan_forward, plan_inverse, require};

/// The position of the frames relative to the ends of a signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FramePosition {
    /// The first frame is centered on the first sample: `n` frames have `(n - 1) * hop` samples. This is `center=True` of
    /// PyTorch's `stft` and `istft`.
    #[default]
    Center,
    /// A frame exceeds its hop equally on both sides: `n` frames have `n * hop` samples.
    Same,
}

/// Largest accepted Fourier transform.
const MAX_FFT: usize = 1 << 16;
/// Least sum of squared windows by which a sample may be divided, as in PyTorch.
const LEAST_WEIGHT: f32 = 1e-11;

/// A short-time Fourier transform with a periodic Hann window as long as the transform. A spectrum is `[frame][bin]` with `n_fft / 2 + 1`
/// bins, each a real and an imaginary part.
#[derive(Debug, Clone)]
pub struct Stft {
    n_fft: usize,
    hop: usize,
    /// Samples of the first frame before the signal, and of the last one after it.
    padding: usize,
    window: Vec<f32>,
}

impl Stft {
    /// Prepares the window.
    ///
    /// # Errors
    /// [`AudioError::Config`] if the lengths do not fit together.
    pub fn new(n_fft: usize, hop_length: usize, position: FramePosition) -> Result<Self, AudioError> {
        let even = n_fft.is_multiple_of(2) && (2..=MAX_FFT).contains(&n_fft);
        require(even, "n_fft", n_fft, || format!("an even number from 2 to {MAX_FFT}"))?;
        require((1..n_fft).contains(&hop_length), "hop_length", hop_length, || {
            format!("at least 1 and below n_fft = {n_fft}")
        })?;
        let padding = match position {
            FramePosition::Center => n_fft / 2,
            FramePosition::Same => {
                require(hop_length.is_multiple_of(2), "hop_length", hop_length, || "an even number".to_owned())?;
                (n_fft - hop_length) / 2
            }
        };
        Ok(Self { n_fft, hop: hop_length, padding, window: hann_periodic(n_fft, n_fft) })
    }

    /// Returns the number of bins of a frame.
    pub fn bins(&self) -> usize {
        self.n_fft / 2 + 1
    }

    /// Returns the length of the transform, in samples.
    pub fn n_fft(&self) -> usize {
        self.n_fft
    }

    /// Returns the number of samples from one frame to the next.
    pub fn hop_length(&self) -> usize {
        self.hop
    }

    /// Transforms a signal, which is mirrored at its ends.
    ///
    /// # Errors
    /// [`AudioError::TooShort`] if it is too short to be mirrored or has no frame.
    pub fn forward(&self, samples: &[f32]) -> Result<Vec<[f32; 2]>, AudioError> {
        let needed = (self.padding + 1).max(self.n_fft.saturating_sub(2 * self.padding));
        let too_short = || AudioError::TooShort { samples: samples.len(), needed, analysis: "the Fourier transform" };
        let signal = Mirrored::new(samples, self.padding).filter(|signal| signal.len() >= self.n_fft);
        let signal = signal.ok_or_else(too_short)?;
        let plan = plan_forward(self.n_fft);
        let (mut input, mut output) = (plan.make_input_vec(), plan.make_output_vec());
        let (mut scratch, mut edge) = (plan.make_scratch_vec(), vec![0.0; self.n_fft]);
        let frames = 1 + (signal.len() - self.n_fft) / self.hop;
        let mut spectra = Vec::with_capacity(frames * self.bins());
        for frame in 0..frames {
            let samples = signal.stretch(frame * self.hop, &mut edge);
            for ((value, sample), weight) in input.iter_mut().zip(samples).zip(&self.window) {
                *value = sample * weight;
            }
            plan.process_with_scratch(&mut input, &mut output, &mut scratch)
                .expect("the buffers have the plan's lengths");
            spectra.extend(output.iter().map(|bin| [bin.re, bin.im]));
        }
        Ok(spectra)
    }

    /// Returns the signal of spectra: the sum of the windowed inverse transforms, divided by the sum of the squared windows. The imaginary
    /// parts of the first and the last bin are ignored.
    ///
    /// # Errors
    /// [`AudioError::Shape`] if there is not a whole number of frames; [`AudioError::Config`] if the frames leave a gap.
    pub fn inverse(&self, spectra: &[[f32; 2]]) -> Result<Vec<f32>, AudioError> {
        let bins = self.bins();
        let frames = spectra.len() / bins;
        if !spectra.len().is_multiple_of(bins) {
            let problem = format!("{} values were given", spectra.len());
            return Err(AudioError::Shape { frames, bins, problem });
        }
        if frames == 0 {
            return Ok(Vec::new());
        }
        let plan = plan_inverse(self.n_fft);
        let (mut input, mut output) = (plan.make_input_vec(), plan.make_output_vec());
        let mut scratch = plan.make_scratch_vec();
        let length = (frames - 1) * self.hop + self.n_fft;
        let (mut sums, mut weights) = (vec![0.0f32; length], vec![0.0f32; length]);
        for (frame, spectrum) in spectra.chunks_exact(bins).enumerate() {
            input.iter_mut().zip(spectrum).for_each(|(bin, [re, im])| *bin = Complex32::new(*re, *im));
            // A real signal's spectrum is real at both ends.
            (input[0].im, input[bins - 1].im) = (0.0, 0.0);
            plan.process_with_scratch(&mut input, &mut output, &mut scratch)
                .expect("the buffers have the plan's lengths, and the ends were made real");
            let range = frame * self.hop..frame * self.hop + self.n_fft;
            let places = sums[range.clone()].iter_mut().zip(&mut weights[range]);
            for (((sum, total), value), weight) in places.zip(&output).zip(&self.window) {
                *sum += value * weight;
                *total += weight * weight;
            }
        }
        let inside = self.padding..length - self.padding;
        if weights[inside.clone()].iter().any(|weight| *weight <= LEAST_WEIGHT) {
            let expected = format!("frames that overlap: fewer than n_fft = {} samples", self.n_fft);
            return Err(AudioError::Config { field: "hop_length", value: self.hop.to_string(), expected });
        }
        let scale = 1.0 / self.n_fft as f32;
        Ok(sums[inside.clone()].iter().zip(&weights[inside]).map(|(sum, weight)| sum * scale / weight).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(count: usize) -> Vec<f32> {
        (0..count as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0).collect()
    }

    #[test]
    fn the_inverse_returns_the_signal() {
        for (position, count) in [(FramePosition::Center, 640), (FramePosition::Same, 640)] {
            let stft = Stft::new(64, 16, position).unwrap();
            let samples = signal(count);
            let spectra = stft.forward(&samples).unwrap();
            let frames = spectra.len() / stft.bins();
            assert_eq!(frames, if position == FramePosition::Center { 41 } else { 40 });
            let found = stft.inverse(&spectra).unwrap();
            assert_eq!(found.len(), count);
            assert!(found.iter().zip(&samples).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        for (n_fft, hop) in [(0, 1), (15, 4), (16, 0), (16, 16), (1 << 20, 4)] {
            assert!(Stft::new(n_fft, hop, FramePosition::Center).is_err(), "{n_fft} {hop}");
        }
        let stft = Stft::new(16, 4, FramePosition::Center).unwrap();
        assert!(matches!(stft.forward(&signal(8)), Err(AudioError::TooShort { needed: 9, .. })));
        assert!(matches!(stft.inverse(&[[0.0; 2]; 10]), Err(AudioError::Shape { .. })));
        assert!(stft.inverse(&[]).unwrap().is_empty());
        assert!(stft.inverse(&[[f32::NAN; 2]; 18]).unwrap().iter().all(|sample| sample.is_nan()));
    }
}
