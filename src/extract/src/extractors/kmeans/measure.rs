//! The features of a recording that are quantized.

use flowmill_audio::{
    features::{Features, MelConfig, MelSpectrogram},
    pitch::{PitchConfig, track_pitch},
};

use super::{KIND, KmeansConfig, Normalization};
use crate::{ConfigError, ExtractError, Kind, Matrix, Media};

/// The pitch that counts as 0, in Hz: between common male and female voices.
const REFERENCE_PITCH: f32 = 150.0;

/// The weight of voicing, as a fraction of that of pitch.
const VOICING_FRACTION: f32 = 0.2;

/// The front end of the units.
pub(super) struct Measure {
    mel: MelSpectrogram,
    config: KmeansConfig,
    /// Mel frames in a unit, of which there are 50 a second.
    frames_per_unit: usize,
}

impl Measure {
    pub(super) fn new(config: &KmeansConfig, frames_per_unit: usize) -> Result<Self, ConfigError> {
        config.check()?;
        let mel = MelSpectrogram::new(MelConfig::cosyvoice2())
            .map_err(|error| ConfigError::new("kind", error.to_string()))?;
        Ok(Self { mel, config: config.clone(), frames_per_unit })
    }

    /// Returns the length of a measured vector.
    pub(super) fn dimensions(&self) -> usize {
        let bands = self.mel.config().n_mels;
        let slopes = if self.config.slope_weight > 0.0 { bands } else { 0 };
        let level = usize::from(self.config.level_weight > 0.0);
        let pitch = if self.config.pitch_weight > 0.0 { 2 } else { 0 };
        bands + slopes + level + pitch
    }

    /// Returns `[unit][dimension]` for the units that the samples of a recording fill.
    pub(super) fn measure(&self, samples: &[f32]) -> Result<Matrix, ExtractError> {
        self.check_length(samples)?;
        self.measure_samples(samples)
    }

    /// Returns `[unit][dimension]` for the units that the samples of a recording fill or begin: the rest of the last one is silence, as in
    /// CosyVoice's training data.
    pub(super) fn measure_to_the_end(&self, samples: &[f32]) -> Result<Matrix, ExtractError> {
        self.check_length(samples)?;
        let mut whole = samples.to_vec();
        whole.resize(samples.len().next_multiple_of(self.samples_per_unit()), 0.0);
        self.measure_samples(&whole)
    }

    fn samples_per_unit(&self) -> usize {
        self.mel.config().hop_length * self.frames_per_unit
    }

    /// The samples of a recording, at the rate of the spectrogram.
    pub(super) fn samples(&self, media: &Media) -> Result<Vec<f32>, ExtractError> {
        media.as_audio(KIND)?.mono_at(self.mel.config().sample_rate)
    }

    /// Refuses a recording that fills no unit.
    fn check_length(&self, samples: &[f32]) -> Result<(), ExtractError> {
        let needed = self.samples_per_unit();
        let seconds = |samples: usize| samples as f64 / f64::from(self.mel.config().sample_rate);
        if samples.len() < needed {
            let (seconds, needed) = (seconds(samples.len()), seconds(needed));
            return Err(ExtractError::TooShort { extractor: KIND, seconds, needed });
        }
        Ok(())
    }

    fn measure_samples(&self, samples: &[f32]) -> Result<Matrix, ExtractError> {
        let mel = self.mel.compute(samples)?;
        let mut columns = vec![self.bands(&mel)];
        if self.config.slope_weight > 0.0 {
            columns.push(self.slopes(&mel));
        }
        if self.config.level_weight > 0.0 {
            columns.push(self.levels(&mel));
        }
        if self.config.pitch_weight > 0.0 {
            columns.push(self.pitches(samples, &mel)?);
        }
        if self.config.normalise == Normalization::Utterance {
            columns.iter_mut().for_each(Features::subtract_mean);
        }
        let measured = join(&columns);
        if measured.is_finite() { Ok(measured) } else { Err(ExtractError::NotFinite { extractor: KIND }) }
    }

    /// The mean of a unit's frames, band by band.
    fn bands(&self, mel: &Features) -> Features {
        self.per_unit(mel.frames, mel.bins, |unit, values| {
            for frame in self.own_frames(unit) {
                for (value, band) in values.iter_mut().zip(mel.frame(frame)) {
                    *value += band / self.frames_per_unit as f32;
                }
            }
        })
    }

    /// The slope of every band over the unit's frames and `context` more to either side (the ends repeated), as the
    /// inner product with a ramp of unit length: of the same scale as the bands themselves.
    fn slopes(&self, mel: &Features) -> Features {
        let ramp = unit_ramp(self.frames_per_unit + 2 * self.config.context);
        self.per_unit(mel.frames, mel.bins, |unit, values| {
            for (place, height) in ramp.iter().enumerate() {
                let frame =
                    (unit * self.frames_per_unit + place).saturating_sub(self.config.context).min(mel.frames - 1);
                let weight = height * self.config.slope_weight;
                for (value, band) in values.iter_mut().zip(mel.frame(frame)) {
                    *value += weight * band;
                }
            }
        })
    }

    /// The level of the unit's frames.
    fn levels(&self, mel: &Features) -> Features {
        self.per_unit(mel.frames, 1, |unit, values| {
            let sum: f32 = self.own_frames(unit).map(|frame| level(mel.frame(frame))).sum();
            values[0] = self.config.level_weight * sum / self.frames_per_unit as f32;
        })
    }

    /// The logarithm of the fundamental frequency over the reference (0 when unvoiced), and voicing.
    fn pitches(&self, samples: &[f32], mel: &Features) -> Result<Features, ExtractError> {
        let MelConfig { sample_rate, hop_length, .. } = *self.mel.config();
        let track = track_pitch(samples, &PitchConfig { sample_rate, hop_length, ..PitchConfig::default() })?;
        let weight = self.config.pitch_weight;
        Ok(self.per_unit(mel.frames.min(track.f0.len()), 2, |unit, values| {
            let voiced: Vec<f32> =
                self.own_frames(unit).map(|frame| track.f0[frame]).filter(|hertz| *hertz > 0.0).collect();
            if !voiced.is_empty() {
                let log = voiced.iter().map(|hertz| (hertz / REFERENCE_PITCH).ln()).sum::<f32>() / voiced.len() as f32;
                values[0] = weight * log;
                values[1] = weight * VOICING_FRACTION * voiced.len() as f32 / self.frames_per_unit as f32;
            }
        }))
    }

    fn own_frames(&self, unit: usize) -> std::ops::Range<usize> {
        unit * self.frames_per_unit..(unit + 1) * self.frames_per_unit
    }

    /// Features with one row for every whole unit in `frames`, each filled in by `fill`.
    fn per_unit(&self, frames: usize, bins: usize, fill: impl Fn(usize, &mut [f32])) -> Features {
        let units = frames / self.frames_per_unit;
        let mut data = vec![0.0; units * bins];
        for (unit, values) in data.chunks_exact_mut(bins).enumerate() {
            fill(unit, values);
        }
        Features { data, frames: units, bins }
    }
}

/// The level of a frame of log magnitudes, in nepers.
fn level(frame: &[f32]) -> f32 {
    0.5 * frame.iter().map(|value| (2.0 * value).exp()).sum::<f32>().ln()
}

/// Equally spaced values around 0 whose squares sum to 1.
fn unit_ramp(length: usize) -> Vec<f32> {
    let centre = (length - 1) as f32 / 2.0;
    let norm = (0..length).map(|i| (i as f32 - centre).powi(2)).sum::<f32>().sqrt();
    (0..length).map(|i| (i as f32 - centre) / norm).collect()
}

/// Features of equally many units side by side.
fn join(columns: &[Features]) -> Matrix {
    let units = columns.iter().map(|features| features.frames).min().unwrap_or(0);
    let width = columns.iter().map(|features| features.bins).sum();
    let row = |unit: usize| columns.iter().flat_map(move |features| features.frame(unit).iter().copied());
    Matrix::new((0..units).flat_map(row).collect(), width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_a_steady_rise_does_not_depend_on_the_place() {
        let config = KmeansConfig { context: 1, slope_weight: 1.0, ..KmeansConfig::default() };
        let measure = Measure::new(&config, 2).unwrap();
        let mel = Features { data: (0..20).map(|frame| 0.5 * frame as f32).collect(), frames: 20, bins: 1 };
        let slopes = measure.slopes(&mel);
        // The ramp (-1.5, -0.5, 0.5, 1.5) / sqrt(5) over a rise of 0.5 a frame: 0.5 * sqrt(5).
        for unit in 1..9 {
            assert!((slopes.frame(unit)[0] - 0.5 * 5.0f32.sqrt()).abs() < 1e-5, "{:?}", slopes.frame(unit));
        }
        assert!(slopes.frame(0)[0] < slopes.frame(1)[0], "the first frame is repeated");
    }

    #[test]
    fn a_recording_has_one_unit_per_two_mel_frames() {
        let measure = Measure::new(&KmeansConfig { pitch_weight: 0.0, ..KmeansConfig::default() }, 2).unwrap();
        for samples in [960, 1919, 1920, 24_000, 24_479, 24_480] {
            let tone: Vec<f32> = (0..samples).map(|i| (i as f32 * 0.05).sin() * 0.1).collect();
            assert_eq!(measure.measure(&tone).unwrap().rows(), samples / 960, "{samples} samples");
            assert_eq!(measure.measure_to_the_end(&tone).unwrap().rows(), samples.div_ceil(960), "{samples} samples");
        }
    }
}
