//! The `rvq-kmeans` codec: residual k-means on log-mel frames, which needs no downloaded weights and can be heard.
//!
//! A frame is a column of a log-mel spectrogram (24 kHz, hop 320: 75 frames a second). Level 0 is the nearest of `k` centers to the
//! frame, each further level the nearest of `k` centers of its own to what the levels before it left (residual vector quantization,
//! as in Zeghidour et al., "SoundStream", 2021). The centers are fitted level by level on a uniform sample of the training frames. Decoding
//! adds up the centers of a frame's codes to its log-mel, and the Griffin-Lim algorithm gives the waveform.
//!
//! A recording of n samples has ⌈n / hop⌉ frames; silence fills the last one, as in EnCodec.

mod config;
mod fit;

use flowmill_audio::features::{Features, MelSpectrogram};
use flowmill_audio::vocode::griffin_lim;
use flowmill_corpus::Array;

pub use self::config::RvqKmeansConfig;
pub use self::fit::RvqKmeansFit;
use crate::codec::{Codes, finite};
use crate::residual_quantizer::ResidualQuantizer;
use crate::{Codec, CodecError, Column, ExtractError, Extracted, Extractor, Kind, Matrix, Media, State, StateError};

/// The extractor's kind.
pub const KIND: &str = "rvq-kmeans";

/// The power of a recording without sound, -90 dB.
const SILENCE: f64 = 1e-9;

/// The length of codes that are decoded at a time, in seconds; it bounds the memory.
const LONGEST: f64 = 600.0;

/// Computes the frames of a recording that are quantized.
struct Measure {
    mel: MelSpectrogram,
    /// The loudness of encoded recordings, in dB.
    loudness: Option<f64>,
}

impl Measure {
    /// Creates the front end; the error of settings that contradict each other.
    fn new(config: &RvqKmeansConfig) -> Result<Self, flowmill_audio::AudioError> {
        Ok(Self { mel: MelSpectrogram::new(config.mel())?, loudness: config.loudness })
    }

    /// Returns the log-mel frames of a recording, `[frame][band]`, the last one filled with silence.
    fn measure(&self, media: &Media) -> Result<Matrix, ExtractError> {
        let config = self.mel.config();
        let audio = media.as_audio(KIND)?;
        let mut samples = audio.mono_at(config.sample_rate)?;
        let needed = config.n_fft;
        if samples.len() < needed {
            let seconds = |samples: usize| samples as f64 / f64::from(config.sample_rate);
            let (seconds, needed) = (seconds(samples.len()), seconds(needed));
            return Err(ExtractError::TooShort { extractor: KIND, seconds, needed });
        }
        if let Some(loudness) = self.loudness {
            bring_to_level(&mut samples, loudness);
        }
        samples.resize(samples.len().next_multiple_of(config.hop_length), 0.0);
        let mel = self.mel.compute(&samples)?;
        let frames = Matrix::new(mel.data, mel.bins);
        if frames.is_finite() { Ok(frames) } else { Err(ExtractError::NotFinite { extractor: KIND }) }
    }
}

/// Scales samples so that the mean power of the louder half of them has this level in dB. Pauses do not count, nor does silence.
fn bring_to_level(samples: &mut [f32], decibels: f64) {
    let mut powers: Vec<f32> = samples.iter().map(|sample| sample * sample).collect();
    powers.sort_unstable_by(f32::total_cmp);
    let louder = &powers[powers.len() / 2..];
    let power = louder.iter().map(|power| f64::from(*power)).sum::<f64>() / louder.len().max(1) as f64;
    if power > SILENCE {
        let gain = (10f64.powf(decibels / 10.0) / power).sqrt() as f32;
        samples.iter_mut().for_each(|sample| *sample *= gain);
    }
}

/// The fitted codec, encoder and decoder.
pub struct RvqKmeans {
    config: RvqKmeansConfig,
    measure: Measure,
    quantizer: ResidualQuantizer,
    /// The smallest and the largest value of the frames that it was fitted on.
    range: [f32; 2],
}

impl RvqKmeans {
    /// The codec that a fitted state describes.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub fn from_state(state: &State) -> Result<Self, StateError> {
        let foreign = |reason: String| StateError::Foreign { wanted: KIND.to_owned(), found: reason };
        let config: RvqKmeansConfig = state.settings_as(KIND)?;
        config.check().map_err(|error| foreign(error.to_string()))?;
        let measure = Measure::new(&config).map_err(|error| foreign(error.to_string()))?;
        let RvqKmeansConfig { levels, k, n_mels, .. } = config;
        let centers = state.f32(fit::CENTERS, &[Some(levels), Some(k), Some(n_mels)])?;
        let quantizer = ResidualQuantizer::new(centers, [levels, k, n_mels]);
        let &[low, high] = state.f32(fit::RANGE, &[Some(2)])? else {
            return Err(foreign("a range that has not two ends".to_owned()));
        };
        Ok(Self { config, measure, quantizer, range: [low, high] })
    }

    /// Returns the log-mel frames of a recording, `[frame][band]`, as the codec quantizes them.
    ///
    /// # Errors
    /// The reason why the recording cannot be used.
    pub fn measure(&self, media: &Media) -> Result<Matrix, ExtractError> {
        self.measure.measure(media)
    }

    /// Returns the codes of measured frames, level by level.
    pub fn quantize(&self, frames: &Matrix) -> Vec<Vec<u32>> {
        self.quantizer.quantize(frames)
    }

    /// Returns the log-mel frames of codes, `[frame][band]`, within the range of the frames that the codec was fitted on.
    ///
    /// # Errors
    /// When the codes are not the codec's.
    pub fn log_mel(&self, codes: &Array) -> Result<Matrix, CodecError> {
        let codes = Codes::check(codes, self, LONGEST)?;
        let mut frames = self.quantizer.sum(codes);
        let [low, high] = self.range;
        frames.iter_mut().for_each(|value| *value = value.max(low).min(high));
        Ok(Matrix::new(frames, self.config.n_mels))
    }
}

impl Extractor for RvqKmeans {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        self.config.columns()
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        Extracted::codes(KIND, &self.quantize(&self.measure(media)?))
    }
}

impl Codec for RvqKmeans {
    fn levels(&self) -> usize {
        self.config.levels
    }

    fn vocabulary(&self) -> usize {
        self.config.k
    }

    fn frame_rate(&self) -> f64 {
        self.config.mel().frame_rate()
    }

    fn sample_rate(&self) -> u32 {
        self.config.sample_rate
    }

    fn decode(&self, codes: &Array) -> Result<Vec<f32>, CodecError> {
        let frames = self.log_mel(codes)?;
        let mel = Features::new(frames.as_slice().to_vec(), frames.rows(), frames.columns())?;
        finite(griffin_lim(&mel, &self.config.mel(), self.config.griffin_lim_iterations)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_louder_half_has_the_level() {
        let mut samples = [vec![0.0; 100], [0.5, -0.5].repeat(50)].concat();
        bring_to_level(&mut samples, -20.0);
        assert!(samples.iter().skip(100).all(|sample| (sample.abs() - 0.1).abs() < 1e-6));
        let mut silent = vec![1e-6; 10];
        bring_to_level(&mut silent, -20.0);
        assert_eq!(silent, [1e-6; 10]);
    }
}
