//! The distance of two recordings by their mel spectra, as the public VALL-E trainer measures it.

use super::filter_bank::{FilterBank, MelScale};
use super::framing::{Analysis, LANES, Mirrored, Spectrum, apply_window};
use super::window::hann_periodic;
use crate::error::AudioError;

const N_FFT: usize = 1024;
const HOP: usize = 256;
const N_MELS: usize = 128;
/// Least squared magnitude.
const FLOOR: f32 = 1e-8;

/// Returns the distance of two mono recordings of the same sample rate in hertz: the spectral convergence, which is the norm of the
/// difference of their mel magnitudes divided by the norm of the second one's, plus the mean absolute difference of the logarithms.
/// If one is longer, its end is left out.
///
/// This is `MelSTFTLoss` of the package auraloss with its default settings.
///
/// # Errors
/// [`AudioError::TooShort`] below 513 samples.
pub fn mel_stft_distance(output: &[f32], target: &[f32], sample_rate: u32) -> Result<f64, AudioError> {
    let length = output.len().min(target.len());
    let [output, target] = [output, target].map(|samples| magnitudes(&samples[..length], sample_rate));
    let (output, target) = (output?, target?);
    let (mut difference, mut norm, mut logarithms) = (0.0, 0.0, 0.0);
    for (a, b) in output.iter().zip(&target) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        difference += (b - a).powi(2);
        norm += b * b;
        logarithms += (b.max(f64::MIN_POSITIVE).ln() - a.max(f64::MIN_POSITIVE).ln()).abs();
    }
    Ok((difference / norm.max(f64::MIN_POSITIVE)).sqrt() + logarithms / target.len().max(1) as f64)
}

/// Returns the mel magnitudes `[frame, band]` of a signal that is mirrored at its ends.
fn magnitudes(samples: &[f32], sample_rate: u32) -> Result<Vec<f32>, AudioError> {
    let padding = N_FFT / 2;
    let too_short = || AudioError::TooShort {
        samples: samples.len(),
        needed: padding + 1,
        analysis: "the distance of mel spectra",
    };
    let signal = Mirrored::new(samples, padding).ok_or_else(too_short)?;
    let range = (0.0, f64::from(sample_rate) / 2.0);
    let filters = FilterBank::triangles_in_hertz(MelScale::Slaney, sample_rate, N_FFT, N_MELS, range);
    let analysis = Analysis::new(N_FFT, N_FFT, HOP, filters.bins_read(), Spectrum::Power);
    let window = hann_periodic(N_FFT, N_FFT);
    let frames = analysis.frames(signal.len());
    let mut bands = vec![[0.0f32; LANES]; filters.len()];
    let mut values = Vec::with_capacity(frames * filters.len());
    let windowed = |frame: &[f32], input: &mut [f32]| apply_window(frame, &window, input);
    analysis.run(signal, frames, windowed, |_, count, spectra| {
        let spectra: Vec<[f32; LANES]> =
            spectra.iter().map(|lanes| lanes.map(|power| power.max(FLOOR).sqrt())).collect();
        filters.apply(&spectra, &mut bands);
        for lane in 0..count {
            values.extend(bands.iter().map(|band| band[lane]));
        }
    });
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(amplitude: f32, hertz: f32) -> Vec<f32> {
        (0..8000).map(|at| amplitude * (at as f32 * hertz * std::f32::consts::TAU / 24_000.0).sin()).collect()
    }

    #[test]
    fn a_recording_has_no_distance_to_itself_and_a_louder_one_that_of_its_gain() {
        let noisy = |gain: f32| -> Vec<f32> {
            (0..8000u32).map(|at| gain * ((at.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0)).collect()
        };
        assert_eq!(mel_stft_distance(&noisy(0.5), &noisy(0.5), 24_000).unwrap(), 0.0);
        // The difference is the target itself, and every logarithm differs by ln 2.
        let doubled = mel_stft_distance(&noisy(1.0), &noisy(0.5), 24_000).unwrap();
        assert!((doubled - 1.0 - std::f64::consts::LN_2).abs() < 1e-4, "{doubled}");
        let longer = [noisy(0.5), vec![0.5; 900]].concat();
        assert_eq!(mel_stft_distance(&longer, &noisy(0.5), 24_000).unwrap(), 0.0);
    }

    #[test]
    fn other_sounds_are_far_and_short_ones_are_refused() {
        let near = mel_stft_distance(&tone(0.5, 440.0), &tone(0.5, 445.0), 24_000).unwrap();
        let far = mel_stft_distance(&tone(0.5, 440.0), &tone(0.5, 3000.0), 24_000).unwrap();
        assert!(near < far, "{near} {far}");
        assert!(matches!(mel_stft_distance(&[0.0; 512], &[0.0; 900], 8000), Err(AudioError::TooShort { .. })));
    }
}
