//! Short-time analysis: framing, windows and Fourier transforms, several frames at a time.
//!
//! Spectra are passed on as `[bin][lane]`, one lane per frame, so that everything after the transform is a plain
//! loop over lanes.

use std::cell::RefCell;
use std::sync::Arc;

use realfft::num_complex::Complex32;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

use crate::simd::vectorized;

/// Number of frames processed together.
pub(crate) const LANES: usize = 8;

thread_local! {
    static PLANNER: RefCell<RealFftPlanner<f32>> = RefCell::new(RealFftPlanner::new());
}

/// The plan of a real forward transform, from this thread's cache.
pub(crate) fn plan_forward(length: usize) -> Arc<dyn RealToComplex<f32>> {
    PLANNER.with_borrow_mut(|planner| planner.plan_fft_forward(length))
}

/// The plan of a real inverse transform, from this thread's cache.
pub(crate) fn plan_inverse(length: usize) -> Arc<dyn ComplexToReal<f32>> {
    PLANNER.with_borrow_mut(|planner| planner.plan_fft_inverse(length))
}

/// Function of the complex spectrum that is returned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Spectrum {
    /// re² + im².
    Power,
    /// √(re² + im² + floor).
    Magnitude {
        /// Added under the root.
        floor: f32,
    },
}

/// The short-time analysis that all features share.
pub(crate) struct Analysis {
    fft: Arc<dyn RealToComplex<f32>>,
    /// Samples between frames.
    hop: usize,
    /// Number of samples per frame; at most the transform's length.
    span: usize,
    /// Number of bins needed of each spectrum.
    bins: usize,
    spectrum: Spectrum,
}

impl Analysis {
    pub(crate) fn new(n_fft: usize, span: usize, hop: usize, bins: usize, spectrum: Spectrum) -> Self {
        Self { fft: plan_forward(n_fft), hop, span, bins, spectrum }
    }

    /// Number of whole frames in `samples` samples.
    pub(crate) fn frames(&self, samples: usize) -> usize {
        if samples < self.span { 0 } else { 1 + (samples - self.span) / self.hop }
    }

    /// Calls `prepare(frame's samples, transform's input)` for the first `frames` frames of `signal` (input that it does not
    /// write is zero), and `sink(first frame, frames, spectra)` for each group.
    pub(crate) fn run(
        &self,
        signal: Mirrored<'_>,
        frames: usize,
        prepare: impl Fn(&[f32], &mut [f32]),
        mut sink: impl FnMut(usize, usize, &[[f32; LANES]]),
    ) {
        let mut input = self.fft.make_input_vec();
        let mut output = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        let mut edge = vec![0.0; self.span];
        let mut rows = vec![0.0f32; self.bins * LANES];
        let mut spectra = vec![[0.0f32; LANES]; self.bins];
        for first in (0..frames).step_by(LANES) {
            let count = LANES.min(frames - first);
            for (lane, row) in rows.chunks_exact_mut(self.bins).take(count).enumerate() {
                let start = (first + lane) * self.hop;
                // The transform leaves garbage in its input, so the zero padding is renewed.
                input[self.span..].fill(0.0);
                prepare(signal.stretch(start, &mut edge), &mut input);
                self.transform(&mut input, &mut output, &mut scratch);
                match self.spectrum {
                    Spectrum::Power => power(&output[..self.bins], row),
                    Spectrum::Magnitude { floor } => magnitude(&output[..self.bins], row, floor),
                }
            }
            transpose(&rows, &mut spectra);
            sink(first, count, &spectra);
        }
    }

    fn transform(&self, input: &mut [f32], output: &mut [Complex32], scratch: &mut [Complex32]) {
        self.fft
            .process_with_scratch(input, output, scratch)
            .expect("the three buffers come from the plan itself, so their lengths fit");
    }
}

vectorized! {
    fn power(spectrum: &[Complex32], out: &mut [f32]) {
        for (value, bin) in out.iter_mut().zip(spectrum) {
            *value = bin.re * bin.re + bin.im * bin.im;
        }
    }

    fn magnitude(spectrum: &[Complex32], out: &mut [f32], floor: f32) {
        for (value, bin) in out.iter_mut().zip(spectrum) {
            *value = (bin.re * bin.re + bin.im * bin.im + floor).sqrt();
        }
    }

    fn transpose(rows: &[f32], columns: &mut [[f32; LANES]]) {
        let bins = columns.len();
        for (bin, column) in columns.iter_mut().enumerate() {
            for lane in 0..LANES {
                column[lane] = rows[lane * bins + bin];
            }
        }
    }

    /// `out[i] = signal[i] * window[i]`.
    pub(crate) fn apply_window(signal: &[f32], window: &[f32], out: &mut [f32]) {
        for ((value, sample), weight) in out.iter_mut().zip(signal).zip(window) {
            *value = sample * weight;
        }
    }
}

/// A signal with some samples mirrored at each end, the end samples themselves not repeated.
#[derive(Clone, Copy)]
pub(crate) struct Mirrored<'a> {
    samples: &'a [f32],
    padding: usize,
}

impl<'a> Mirrored<'a> {
    /// Returns `None` if the signal is not longer than the part to be mirrored.
    pub(crate) fn new(samples: &'a [f32], padding: usize) -> Option<Self> {
        (samples.len() > padding).then_some(Self { samples, padding })
    }

    /// Number of samples, including the mirrored ones.
    pub(crate) fn len(&self) -> usize {
        self.samples.len() + 2 * self.padding
    }

    /// Returns the samples from `start` on, as many as `edge` has; `edge` is used as a buffer if they exceed the signal's ends.
    pub(crate) fn stretch<'b>(&'b self, start: usize, edge: &'b mut [f32]) -> &'b [f32] {
        let inside = start.checked_sub(self.padding).and_then(|first| self.samples.get(first..first + edge.len()));
        inside.unwrap_or_else(|| {
            for (position, value) in (start..).zip(edge.iter_mut()) {
                *value = self.at(position);
            }
            edge
        })
    }

    fn at(&self, position: usize) -> f32 {
        let last = self.samples.len() - 1;
        let from_start = position.abs_diff(self.padding);
        let index = if from_start > last { (2 * last).saturating_sub(from_start) } else { from_start };
        self.samples[index]
    }
}

#[cfg(test)]
mod tests {
    use super::Mirrored;

    #[test]
    fn ends_are_mirrored_without_themselves() {
        let signal = Mirrored::new(&[0.0, 1.0, 2.0, 3.0], 2).expect("longer than its padding");
        assert_eq!(signal.len(), 8);
        assert_eq!(signal.stretch(0, &mut [0.0; 8]), [2.0, 1.0, 0.0, 1.0, 2.0, 3.0, 2.0, 1.0]);
        assert_eq!(signal.stretch(2, &mut [0.0; 4]), [0.0, 1.0, 2.0, 3.0]);
        assert!(Mirrored::new(&[0.0, 1.0], 2).is_none());
    }
}
