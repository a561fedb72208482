//! Settings of the `rvq-kmeans` codec.

use std::path::Path;

use candle_core::Device;
use flowmill_audio::features::{MelConfig, MelSpectrogram};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{KIND, RvqKmeans, RvqKmeansFit};
use crate::error::within;
use crate::{Codec, Column, ConfigError, Extractor, Fit, Kind, State, StateError};

/// Hops that a window covers: frames overlap by three quarters, which the search for the phase needs.
const HOPS_PER_WINDOW: usize = 4;

/// The highest frequency that bands reach, in Hz; less at sample rates that end below it.
const HIGHEST: f32 = 8000.0;

/// Settings of the `rvq-kmeans` codec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RvqKmeansConfig {
    /// Number of levels: codes per frame.
    pub levels: usize,
    /// Number of different codes of each level.
    pub k: usize,
    /// Most iterations per level.
    pub iterations: usize,
    /// Most training frames to cluster; of more a sample is taken.
    pub max_frames: usize,
    /// Most frames that one part of the corpus contributes.
    pub max_frames_per_part: usize,
    /// Sample rate of the recordings as they are encoded and decoded, in Hz.
    pub sample_rate: u32,
    /// Samples from one frame to the next. Frames per second are `sample_rate / hop_length`.
    pub hop_length: usize,
    /// Number of mel bands of a frame, from 0 to 8 kHz or half the sample rate.
    pub n_mels: usize,
    /// The loudness that recordings are brought to before they are encoded: the level of the louder half of their samples, in dB below full
    /// scale, such as -20. Without it, recordings keep their own, and codes differ between loud and soft voices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loudness: Option<f64>,
    /// Iterations of the search for the phase (Griffin-Lim) when codes are decoded; more is better and slower.
    pub griffin_lim_iterations: usize,
}

impl Default for RvqKmeansConfig {
    fn default() -> Self {
        Self {
            levels: 8,
            k: 1024,
            iterations: 25,
            max_frames: 100_000,
            max_frames_per_part: 20_000,
            sample_rate: 24_000,
            hop_length: 320,
            n_mels: 80,
            loudness: None,
            griffin_lim_iterations: 60,
        }
    }
}

impl RvqKmeansConfig {
    /// The definition of the log-mel.
    pub fn mel(&self) -> MelConfig {
        let window = self.hop_length.saturating_mul(HOPS_PER_WINDOW);
        MelConfig {
            sample_rate: self.sample_rate,
            n_fft: window,
            win_length: window,
            hop_length: self.hop_length,
            n_mels: self.n_mels,
            fmax: HIGHEST.min(self.sample_rate as f32 / 2.0),
            ..MelConfig::cosyvoice2()
        }
    }

    /// The settings that measuring and sampling in a part read.
    pub(super) fn measuring(&self) -> Value {
        let mut measuring = serde_json::json!({
            "max_frames_per_part": self.max_frames_per_part,
            "sample_rate": self.sample_rate,
            "hop_length": self.hop_length,
            "n_mels": self.n_mels,
        });
        if let Some(loudness) = self.loudness {
            measuring["loudness"] = loudness.into();
        }
        measuring
    }
}

impl Kind for RvqKmeansConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "Codes without any weights: residual k-means on log-mel frames, 8 levels at 75 Hz, fitted on the corpus. They \
                                 are decoded through the mel and Griffin-Lim.";

    fn columns(&self) -> Vec<Column> {
        vec![Column::codes(self.levels, self.k, self.mel().frame_rate())]
    }

    fn open(state: &State, _: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(RvqKmeans::from_state(state)?))
    }

    fn codec(state: &State, _: &Device) -> Result<Option<Box<dyn Codec>>, StateError> {
        Ok(Some(Box::new(RvqKmeans::from_state(state)?)))
    }

    fn check(&self) -> Result<(), ConfigError> {
        within("levels", self.levels, 1, 32)?;
        within("k", self.k, 2, 65_536)?;
        within("iterations", self.iterations, 1, 10_000)?;
        within("max_frames", self.max_frames, self.k, 10_000_000)?;
        within("max_frames_per_part", self.max_frames_per_part, 1, self.max_frames)?;
        within("sample_rate", self.sample_rate as usize, 4000, 192_000)?;
        within("hop_length", self.hop_length, 16, 8192)?;
        within("n_mels", self.n_mels, 1, 512)?;
        within("griffin_lim_iterations", self.griffin_lim_iterations, 1, 10_000)?;
        if let Some(loudness) = self.loudness.filter(|loudness| !(-90.0..=0.0).contains(loudness)) {
            return Err(ConfigError::new("loudness", format!("{loudness} is not in -90..=0 dB")));
        }
        // Bands that contain no bin of the spectrum.
        MelSpectrogram::new(self.mel()).map(drop).map_err(|error| ConfigError::new("n_mels", error.to_string()))
    }

    fn learning(&self) -> Option<Value> {
        Some(self.measuring())
    }

    fn fit(&self, seed: u64, _: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        Ok(Box::new(RvqKmeansFit::new(self.clone(), seed)?))
    }

    fn reads_seed(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_eight_levels_at_75_hz() {
        let config = RvqKmeansConfig::default();
        config.check().unwrap();
        assert_eq!(config.columns()[0], Column::codes(8, 1024, 75.0));
        assert_eq!(config.mel().n_fft, 1280);
    }

    #[test]
    fn settings_that_cannot_be_used_are_named() {
        let field = |config: RvqKmeansConfig| config.check().unwrap_err().field;
        let default = RvqKmeansConfig::default;
        assert_eq!(field(RvqKmeansConfig { levels: 0, ..default() }), "levels");
        assert_eq!(field(RvqKmeansConfig { k: 1, ..default() }), "k");
        assert_eq!(field(RvqKmeansConfig { max_frames: 1023, ..default() }), "max_frames");
        assert_eq!(field(RvqKmeansConfig { sample_rate: 0, ..default() }), "sample_rate");
        assert_eq!(field(RvqKmeansConfig { hop_length: usize::MAX, ..default() }), "hop_length");
        assert_eq!(field(RvqKmeansConfig { loudness: Some(f64::NAN), ..default() }), "loudness");
        assert_eq!(field(RvqKmeansConfig { hop_length: 16, ..default() }), "n_mels");
        RvqKmeansConfig { sample_rate: 8000, hop_length: 100, n_mels: 40, ..default() }.check().unwrap();
    }
}
