//! The `mel-windows` extractor: for each frame of a video, the log-mel of the sound around it. It needs no downloaded weights.
//!
//! The log-mel has four frames per frame of the video, which are averaged. Bands are normalized by the mean and the deviation of the
//! training split, after the mean of the recording is subtracted, so that neither the level nor the microphone matters. A row of the
//! column holds the bands of the frame and of its neighbors, the earliest first; beyond the ends the first and the last frame are repeated.

mod moments;

use std::path::Path;

use candle_core::Device;
use flowmill_audio::features::{Features, MelConfig, MelSpectrogram};
use flowmill_corpus::{Array, ColumnSpec, DType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::moments::Moments;
use crate::error::within;
use crate::{
    Accumulator, Column, ConfigError, ExtractError, Extracted, Extractor, Fit, Fitted, Kind, Matrix, Media, Scope,
    State, StateError,
};

/// The extractor's kind.
pub const KIND: &str = "mel-windows";
/// The column of speech features, one row per frame of the video.
pub const SPEECH_FEATURES: &str = "speech_features";

/// The sample rate of the analysis, in Hz.
const SAMPLE_RATE: u32 = 16_000;
/// Frames of the log-mel per frame of the video.
const HOPS: usize = 4;
/// Length of the Fourier transform and of its window, in samples: 32 and 25 ms.
const N_FFT: usize = 512;
const WINDOW: usize = 400;

/// Settings of the `mel-windows` extractor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MelWindowsConfig {
    /// Frames of the video per second. The sound of a frame is a whole number of samples at 16 kHz, divisible by 4: 25, 40 or 50 are.
    pub fps: u32,
    /// Number of mel bands from 0 to 8 kHz.
    pub n_mels: usize,
    /// Frames on each side of a frame that its window reaches. A row has `(2 * context + 1) * n_mels` values.
    pub context: usize,
    /// Subtracts the mean of each band over the recording.
    pub subtract_mean: bool,
}

impl Default for MelWindowsConfig {
    fn default() -> Self {
        Self { fps: 25, n_mels: 26, context: 2, subtract_mean: true }
    }
}

impl MelWindowsConfig {
    /// Returns the number of speech features of a frame.
    pub fn features(&self) -> usize {
        (2 * self.context + 1) * self.n_mels
    }

    /// The settings that measuring reads.
    fn measuring(&self) -> Value {
        json!({"fps": self.fps, "n_mels": self.n_mels, "subtract_mean": self.subtract_mean})
    }

    /// Returns the samples of a frame of the video.
    fn samples(&self) -> usize {
        (SAMPLE_RATE / self.fps.max(1)) as usize
    }

    fn mel(&self) -> MelConfig {
        MelConfig {
            sample_rate: SAMPLE_RATE,
            n_fft: N_FFT,
            win_length: WINDOW,
            hop_length: self.samples() / HOPS,
            n_mels: self.n_mels,
            fmax: SAMPLE_RATE as f32 / 2.0,
            ..MelConfig::cosyvoice2()
        }
    }
}

impl Kind for MelWindowsConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "Speech features for each frame of a video, without any weights: the log-mel of the frame and its neighbors, \
                                 normalized on the training split.";

    fn columns(&self) -> Vec<Column> {
        let features = ColumnSpec::new(SPEECH_FEATURES, DType::F32).axis("frame");
        vec![features.fixed_axis("feature", self.features()).into()]
    }

    fn open(state: &State, _: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(MelWindows::from_state(state)?))
    }

    fn check(&self) -> Result<(), ConfigError> {
        within("fps", self.fps as usize, 5, 100)?;
        if !SAMPLE_RATE.is_multiple_of(self.fps * HOPS as u32) {
            let reason =
                format!("{} does not divide {SAMPLE_RATE} Hz into frames of 4 equal parts; use 25, 40 or 50", self.fps);
            return Err(ConfigError::new("fps", reason));
        }
        within("n_mels", self.n_mels, 1, 128)?;
        within("context", self.context, 0, 50)?;
        // Bands that contain no bin of the spectrum.
        MelSpectrogram::new(self.mel()).map(drop).map_err(|error| ConfigError::new("n_mels", error.to_string()))
    }

    fn learning(&self) -> Option<Value> {
        Some(self.measuring())
    }

    fn fit(&self, _: u64, _: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        self.check()?;
        let mel = MelSpectrogram::new(self.mel()).map_err(|error| ConfigError::new("n_mels", error.to_string()))?;
        Ok(Box::new(MelWindowsFit { config: self.clone(), mel }))
    }
}

/// Returns the log-mel bands of each frame of the video, `[frame][band]`.
fn bands(config: &MelWindowsConfig, mel: &MelSpectrogram, media: &Media) -> Result<Matrix, ExtractError> {
    let mut samples = media.as_audio(KIND)?.mono_at(SAMPLE_RATE)?;
    let per_frame = config.samples();
    // The sound of a video is as long as its frames, up to rounding by the resampler.
    let frames = (samples.len() + per_frame / 2) / per_frame;
    if frames == 0 {
        let seconds = |samples: usize| samples as f64 / f64::from(SAMPLE_RATE);
        let (seconds, needed) = (seconds(samples.len()), seconds(per_frame));
        return Err(ExtractError::TooShort { extractor: KIND, seconds, needed });
    }
    samples.resize(frames * per_frame, 0.0);
    // The analysis reflects the ends, for which a single frame is too short.
    samples.resize(samples.len().max(2 * N_FFT), 0.0);
    let mel = mel.compute(&samples)?;
    let mut averaged = Vec::with_capacity(frames * mel.bins);
    for part in mel.data.chunks_exact(HOPS * mel.bins).take(frames) {
        averaged.extend(
            (0..mel.bins).map(|band| (0..HOPS).map(|hop| part[hop * mel.bins + band]).sum::<f32>() / HOPS as f32),
        );
    }
    let mut features = Features::new(averaged, frames, mel.bins)?;
    if config.subtract_mean {
        features.subtract_mean();
    }
    let bands = Matrix::new(features.data, features.bins);
    if bands.is_finite() { Ok(bands) } else { Err(ExtractError::NotFinite { extractor: KIND }) }
}

/// Fits mean and deviation of the bands.
struct MelWindowsFit {
    config: MelWindowsConfig,
    mel: MelSpectrogram,
}

impl Fit for MelWindowsFit {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn measure(&self, media: &Media) -> Result<Matrix, ExtractError> {
        bands(&self.config, &self.mel, media)
    }

    fn accumulator(&self, _: Scope) -> Box<dyn Accumulator> {
        Box::new(Moments::new(self.config.measuring(), self.config.n_mels))
    }

    fn finish(&self, state: &State) -> Result<Fitted, StateError> {
        let mut moments = Moments::new(self.config.measuring(), self.config.n_mels);
        moments.absorb(state)?;
        let frames = moments.count();
        let (mean, deviation) = moments.finish()?;
        let mut state = State::new(KIND, json!(self.config));
        state.set_f32("mean", &[mean.len()], mean);
        state.set_f32("deviation", &[deviation.len()], deviation);
        Ok(Fitted { state, facts: vec![("frames".to_owned(), frames.into())] })
    }
}

/// The fitted extractor.
struct MelWindows {
    config: MelWindowsConfig,
    mel: MelSpectrogram,
    mean: Vec<f32>,
    deviation: Vec<f32>,
}

impl MelWindows {
    fn from_state(state: &State) -> Result<Self, StateError> {
        let foreign = |reason: String| StateError::Foreign { wanted: KIND.to_owned(), found: reason };
        let config: MelWindowsConfig = state.settings_as(KIND)?;
        config.check().map_err(|error| foreign(error.to_string()))?;
        let mel = MelSpectrogram::new(config.mel()).map_err(|error| foreign(error.to_string()))?;
        let array = |name: &str| state.f32(name, &[Some(config.n_mels)]).map(<[f32]>::to_vec);
        Ok(Self { mean: array("mean")?, deviation: array("deviation")?, config, mel })
    }
}

impl Extractor for MelWindows {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        self.config.columns()
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let bands = bands(&self.config, &self.mel, media)?;
        let normal: Vec<Vec<f32>> = bands
            .iter()
            .map(|frame| {
                let moments = self.mean.iter().zip(&self.deviation);
                frame.iter().zip(moments).map(|(value, (mean, deviation))| (value - mean) / deviation).collect()
            })
            .collect();
        let context = self.config.context;
        let mut values = Vec::with_capacity(normal.len() * self.config.features());
        for frame in 0..normal.len() {
            for place in frame..=frame + 2 * context {
                values.extend_from_slice(&normal[place.saturating_sub(context).min(normal.len() - 1)]);
            }
        }
        let array = Array::new(vec![normal.len(), self.config.features()], values);
        Ok(array.map_err(|error| ExtractError::Media(error.to_string()))?.into())
    }
}

#[cfg(test)]
mod tests {
    use flowmill_audio::Audio;

    use super::*;

    fn media(samples: Vec<f32>) -> Media {
        Media::audio(move || {
            Ok::<_, String>(Audio { sample_rate: SAMPLE_RATE, samples: vec![samples.clone()], warnings: Vec::new() })
        })
    }

    fn noise(samples: usize) -> Vec<f32> {
        flowmill_nn::random::RngKey::new(1).normals(samples).into_iter().map(|value| 0.1 * value).collect()
    }

    fn fitted(config: &MelWindowsConfig, samples: &[f32]) -> Box<dyn Extractor> {
        let fit = config.fit(0, Path::new("")).unwrap();
        let mut accumulator = fit.accumulator(Scope::Part);
        accumulator.add("a", &fit.measure(&media(samples.to_vec())).unwrap()).unwrap();
        let state = fit.finish(&accumulator.into_state()).unwrap().state;
        MelWindowsConfig::open(&state, &Device::Cpu).unwrap()
    }

    #[test]
    fn a_window_holds_its_neighbors() {
        let config = MelWindowsConfig { n_mels: 4, context: 1, ..MelWindowsConfig::default() };
        // 10 frames of 640 samples, one sample short.
        let samples = noise(6399);
        let values = fitted(&config, &samples).extract(&media(samples)).unwrap().into_arrays().remove(0);
        assert_eq!(values.shape(), [10, 12]);
        let values = values.values::<f32>().unwrap();
        let row = |frame: usize, part: usize| &values[frame * 12 + part * 4..][..4];
        for frame in 1..10 {
            assert_eq!(row(frame, 0), row(frame - 1, 1));
        }
        assert_eq!(row(0, 0), row(0, 1));
        assert_eq!(row(9, 2), row(9, 1));
        let middle: Vec<f32> = (0..10).flat_map(|frame| row(frame, 1).to_vec()).collect();
        let squares: f32 = middle.iter().map(|value| value * value).sum();
        assert!((squares / 40.0 - 1.0).abs() < 1e-3, "{squares}");
    }

    #[test]
    fn the_level_does_not_matter_and_silence_is_allowed() {
        let config = MelWindowsConfig { n_mels: 8, ..MelWindowsConfig::default() };
        let samples = noise(16_000);
        let extractor = fitted(&config, &samples);
        let values = |samples: Vec<f32>| {
            extractor.extract(&media(samples)).unwrap().into_arrays()[0].values::<f32>().unwrap().to_vec()
        };
        let (loud, soft) = (values(samples.clone()), values(samples.iter().map(|sample| sample / 4.0).collect()));
        assert!(loud.iter().zip(&soft).all(|(one, other)| (one - other).abs() < 0.02));
        assert!(values(vec![0.0; 16_000]).iter().all(|value| value.is_finite()));
        assert!(matches!(extractor.extract(&media(vec![0.0; 10])), Err(ExtractError::TooShort { .. })));
    }

    #[test]
    fn rates_that_do_not_divide_are_refused() {
        let field = |config: MelWindowsConfig| config.check().unwrap_err().field;
        assert_eq!(field(MelWindowsConfig { fps: 30, ..MelWindowsConfig::default() }), "fps");
        assert_eq!(field(MelWindowsConfig { n_mels: 0, ..MelWindowsConfig::default() }), "n_mels");
        MelWindowsConfig::default().check().unwrap();
    }
}
