//! Step-Audio's preparation of a recording before it is tokenized.

use flowmill_audio::{AudioError, TrimConfig, trim_silence};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Samples per second.
const SAMPLE_RATE: f64 = 16_000.0;

/// The peak after normalization.
const PEAK: f32 = 0.999;

/// A lower peak is not amplified further.
const LOWEST_PEAK: f32 = 0.01;

/// The settings that define silence.
const SILENCE: TrimConfig = TrimConfig { top_db: 20.0, frame_length: 512, hop_length: 128 };

/// Samples kept before the first sound: 0.05 s.
const KEPT_LEFT: usize = 800;

/// Samples by which the result is longer than the sound, rounded up to whole units: 0.05 s and 0.22 s.
const KEPT: usize = (0.27 * SAMPLE_RATE) as usize;

/// Samples of a unit.
const UNIT: usize = 240;

/// Preparation of recordings before they are tokenized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Preparation {
    /// Scales the recording to a peak of 0.999.
    pub normalise_energy: bool,
    /// Trims silence at both ends, but for 0.05 s before and 0.22 s after, as Step-Audio's tokenizer does. Off,
    /// because the tokens of a trimmed recording do not fit the mel of the whole one.
    pub trim: bool,
}

impl Default for Preparation {
    /// Returns the preparation without trimming: the tokens of a trimmed recording do not fit the mel of the whole one.
    fn default() -> Self {
        Self { normalise_energy: true, trim: false }
    }
}

impl Preparation {
    /// Prepares a recording at 16 kHz.
    ///
    /// # Errors
    /// When silence cannot be found.
    pub fn apply(self, mut samples: Vec<f32>) -> Result<Vec<f32>, AudioError> {
        if self.normalise_energy {
            normalise_energy(&mut samples);
        }
        if self.trim { trim_ends(&samples) } else { Ok(samples) }
    }
}

/// Scales to a peak of 0.999, or less where the peak is below 0.01.
pub fn normalise_energy(samples: &mut [f32]) {
    let peak = samples.iter().fold(0f32, |peak, sample| peak.max(sample.abs()));
    samples.iter_mut().for_each(|sample| *sample = *sample / peak.max(LOWEST_PEAK) * PEAK);
}

/// The sound of a recording at 16 kHz with 0.05 s before and 0.22 s after it, in units of 240 samples; zeros where the recording
/// has no more.
///
/// # Errors
/// When silence cannot be found.
pub fn trim_ends(samples: &[f32]) -> Result<Vec<f32>, AudioError> {
    let (start, end) = trim_silence(samples, &SILENCE)?;
    let length = end.saturating_sub(start).div_ceil(UNIT) * UNIT + KEPT;
    let (zeros, from) = (KEPT_LEFT.saturating_sub(start), start.saturating_sub(KEPT_LEFT));
    let mut trimmed = vec![0.0; zeros.min(length)];
    trimmed.extend(samples[from.min(samples.len())..].iter().take(length - trimmed.len()));
    trimmed.resize(length, 0.0);
    Ok(trimmed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tone between silences.
    fn tone(before: usize, length: usize, after: usize) -> Vec<f32> {
        let sound = (0..length).map(|n| (n as f32 * 0.3).sin() * 0.5);
        std::iter::repeat_n(0.0, before).chain(sound).chain(std::iter::repeat_n(0.0, after)).collect()
    }

    #[test]
    fn the_peak_becomes_0_999_unless_it_is_very_low() {
        let mut samples = [0.1, -0.5, 0.25];
        normalise_energy(&mut samples);
        assert!((samples[1] + 0.999).abs() < 1e-6, "{samples:?}");
        let mut quiet = [0.001, 0.0];
        normalise_energy(&mut quiet);
        assert!((quiet[0] - 0.0999).abs() < 1e-6, "{quiet:?}");
    }

    #[test]
    fn silence_is_cut_to_what_is_kept() {
        let samples = tone(8000, 4000, 8000);
        let (start, end) = trim_silence(&samples, &SILENCE).unwrap();
        let trimmed = trim_ends(&samples).unwrap();
        assert_eq!(trimmed.len(), (end - start).div_ceil(240) * 240 + 4320);
        assert_eq!(trimmed[..], samples[start - 800..][..trimmed.len()]);
    }

    #[test]
    fn what_is_missing_at_the_ends_becomes_zeros() {
        let samples = tone(0, 4000, 0);
        let trimmed = trim_ends(&samples).unwrap();
        assert!(trimmed[..800].iter().all(|sample| *sample == 0.0));
        assert_eq!(trimmed[800..4800], samples[..]);
        assert!(trimmed[4800..].iter().all(|sample| *sample == 0.0));
        assert_eq!(trimmed.len(), 4000usize.div_ceil(240) * 240 + 4320);
    }
}
