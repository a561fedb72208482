//! The `kmeans` units: a discrete description of speech at 25 Hz that needs no downloaded weights.
//!
//! A unit covers two frames of CosyVoice 2's log-mel spectrogram (24 kHz, hop 480), so that unit t stands for the
//! frames 2t and 2t + 1. A recording of n samples at 24 kHz has ⌈n / 960⌉ units, as many as CosyVoice's training code expects: it
//! fills the last one with silence. The centres are fitted on the ⌊n / 960⌋ units that a recording fills. What is quantized are the stacked frames as their mean and their slope (over further neighbors too, if `context` says so),
//! the level, and the pitch, each with a weight; see [`KmeansConfig`]. The index of the nearest centre is the token.
//!
//! The weights are a choice between spectrum, loudness and melody. Fitted on 6 minutes of six readers and applied to
//! unseen sentences (12 of them, 512 units; distance of the mean mel of a unit to the mel, correlations within an
//! utterance):
//!
//! | weights (slope, level, pitch) | mel | level | pitch | voicing right |
//! |---|---|---|---|---|
//! | 0, 0, 0 | 5.65 dB | 0.925 | 0.60 | 84 % |
//! | 0.5, 3, 20 | 5.80 dB | 0.961 | 0.90 | 96 % |
//! | 0.5, 6, 30 (default) | 5.97 dB | 0.973 | 0.94 | 98 % |
//! | 0.5, 3, 20 and `normalise: utterance` | 7.35 dB | 0.896 | 0.86 | 94 % |
//! | 0.5, 3, 20 and 128 units | 6.52 dB | 0.945 | 0.84 | 94 % |
//! | 0.5, 3, 20 and 1024 units | 5.65 dB | 0.962 | 0.93 | 97 % |
//!
//! Centres: a uniform sample of the training frames (the ones with the smallest keyed hashes, so that the sample does
//! not depend on the order or the parts), k-means++ seeding (Arthur and Vassilvitskii 2007), Lloyd's iterations. All
//! draws are counter-based and all sums run in a fixed order.

mod measure;
mod usage;

use std::path::Path;

use candle_core::Device;
use flowmill_nn::random::RngKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::measure::Measure;
pub use self::usage::Usage;
use crate::clustering::{Clustering, Reservoir, rounded};
use crate::error::within;
use crate::{
    Accumulator, Column, ConfigError, ExtractError, Extracted, Extractor, Fit, Fitted, Kind, Matrix, Media, Scope,
    State, StateError, nearest::Nearest,
};

/// The extractor's kind.
pub const KIND: &str = "kmeans";

/// Units per second.
pub const TOKEN_RATE: f64 = 25.0;

/// Mel frames in a unit: 50 frames a second, 25 units a second.
const FRAMES_PER_UNIT: usize = 2;

/// Settings of the `kmeans` extractor. The weights are factors on features in nepers (natural logarithms of
/// amplitudes).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KmeansConfig {
    /// Number of units.
    pub k: usize,
    /// Most iterations.
    pub iterations: usize,
    /// Most training frames to cluster; of more a sample is taken.
    pub max_frames: usize,
    /// Most frames that one part of the corpus contributes.
    pub max_frames_per_part: usize,
    /// Mel frames to either side of a unit's own two that its slope includes.
    pub context: usize,
    /// Weight of the slope of every band, a factor on features in nepers; 0 leaves it out.
    pub slope_weight: f32,
    /// Weight of the level; 0 leaves it out.
    pub level_weight: f32,
    /// Weight of the logarithm of the fundamental frequency (and, a fifth of it, of voicing); 0 leaves both out.
    pub pitch_weight: f32,
    /// Normalization of the features.
    pub normalise: Normalization,
}

/// Normalization of `kmeans` features: the vector that is subtracted before they are quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// Nothing: units tell loud from soft and one voice from another.
    None,
    /// The mean of the utterance: units say less of the speaker and the recording.
    Utterance,
}

impl Default for KmeansConfig {
    fn default() -> Self {
        Self {
            k: 512,
            iterations: 50,
            max_frames: 200_000,
            max_frames_per_part: 20_000,
            context: 0,
            slope_weight: 0.5,
            level_weight: 6.0,
            pitch_weight: 30.0,
            normalise: Normalization::None,
        }
    }
}

impl KmeansConfig {
    /// The settings that measuring and sampling in a part read.
    fn measuring(&self) -> Value {
        serde_json::json!({
            "max_frames_per_part": self.max_frames_per_part,
            "context": self.context,
            "slope_weight": self.slope_weight,
            "level_weight": self.level_weight,
            "pitch_weight": self.pitch_weight,
            "normalise": self.normalise,
        })
    }
}

impl Kind for KmeansConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "Tokens without any weights: the nearest centers of log-mel, level and pitch at 25 Hz, one for every 40 ms \
                                 that a recording begins.";

    fn columns(&self) -> Vec<Column> {
        vec![Column::tokens("speech_token", self.k, TOKEN_RATE)]
    }

    fn open(state: &State, _: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(Kmeans::from_state(state)?))
    }

    fn check(&self) -> Result<(), ConfigError> {
        within("k", self.k, 2, 65_536)?;
        within("iterations", self.iterations, 1, 10_000)?;
        within("max_frames", self.max_frames, self.k, 10_000_000)?;
        within("max_frames_per_part", self.max_frames_per_part, 1, self.max_frames)?;
        within("context", self.context, 0, 10)?;
        for (field, weight) in [
            ("slope_weight", self.slope_weight),
            ("level_weight", self.level_weight),
            ("pitch_weight", self.pitch_weight),
        ] {
            if !(0.0..=1000.0).contains(&weight) {
                return Err(ConfigError::new(field, format!("{weight} is not within 0 to 1000")));
            }
        }
        Ok(())
    }

    fn learning(&self) -> Option<Value> {
        Some(self.measuring())
    }

    fn fit(&self, seed: u64, _: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        Ok(Box::new(KmeansFit::new(self.clone(), seed)?))
    }

    fn reads_seed(&self) -> bool {
        true
    }

    fn has_centers(&self) -> bool {
        true
    }
}

/// Fits the centres.
pub struct KmeansFit {
    config: KmeansConfig,
    measure: Measure,
    rng_key: RngKey,
}

impl KmeansFit {
    /// Prepares to fit with these settings; `seed` decides which frames are sampled and where the centres start.
    ///
    /// # Errors
    /// The setting that cannot be used.
    pub fn new(config: KmeansConfig, seed: u64) -> Result<Self, ConfigError> {
        Self::with_frames(config, FRAMES_PER_UNIT, RngKey::new(seed).purpose("kmeans"))
    }

    /// Does what [`new`](Self::new) does, for units of `frames` mel frames.
    pub(super) fn with_frames(config: KmeansConfig, frames: usize, rng_key: RngKey) -> Result<Self, ConfigError> {
        Ok(Self { measure: Measure::new(&config, frames)?, rng_key, config })
    }

    /// Returns the length of a measured vector.
    pub(super) fn dimensions(&self) -> usize {
        self.measure.dimensions()
    }

    /// The samples of a recording that are measured.
    pub(super) fn samples(&self, media: &Media) -> Result<Vec<f32>, ExtractError> {
        self.measure.samples(media)
    }

    /// Returns the contribution of these samples of a recording.
    pub(super) fn measure_samples(&self, samples: &[f32]) -> Result<Matrix, ExtractError> {
        self.measure.measure(samples)
    }

    fn reservoir(&self, scope: Scope) -> Reservoir {
        let capacity = match scope {
            Scope::Part => self.config.max_frames_per_part,
            Scope::Whole => self.config.max_frames,
        };
        let (settings, rng_key) = (self.config.measuring(), self.rng_key.purpose("sample"));
        Reservoir::new(KIND, settings, self.measure.dimensions(), capacity, rng_key)
    }
}

impl Fit for KmeansFit {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn measure(&self, media: &Media) -> Result<Matrix, ExtractError> {
        self.measure_samples(&self.samples(media)?)
    }

    fn accumulator(&self, scope: Scope) -> Box<dyn Accumulator> {
        Box::new(self.reservoir(scope))
    }

    fn finish(&self, state: &State) -> Result<Fitted, StateError> {
        let mut sample = self.reservoir(Scope::Whole);
        sample.absorb(state)?;
        let seen = sample.seen();
        let frames = sample.into_frames();
        if frames.rows() < self.config.k {
            let reason = format!(
                "the training split has {} units of audio, fewer than k = {}; lower k or add recordings",
                frames.rows(),
                self.config.k
            );
            return Err(StateError::NotEnough { kind: KIND, reason });
        }
        let clustering =
            Clustering::fit(&frames, self.config.k, self.config.iterations, self.rng_key.purpose("seeding"));
        if !clustering.centres.is_finite() {
            return Err(StateError::NotFinite { kind: KIND });
        }
        let usage = Usage::of(clustering.assignment.iter().map(|&unit| unit as usize), self.config.k);
        let facts = vec![
            ("frames".to_owned(), seen.into()),
            ("fitted on".to_owned(), frames.rows().into()),
            ("iterations".to_owned(), clustering.iterations.into()),
            ("converged".to_owned(), clustering.converged.into()),
            ("distortion".to_owned(), rounded(clustering.distortion).into()),
            ("variance explained".to_owned(), rounded(clustering.variance_explained).into()),
            ("used".to_owned(), usage.used().into()),
            ("perplexity".to_owned(), rounded(usage.perplexity()).into()),
        ];
        let mut state = State::new(KIND, serde_json::json!(self.config));
        let shape = [self.config.k, clustering.centres.columns()];
        state.set_f32("centres", &shape, clustering.centres.as_slice().to_vec());
        Ok(Fitted { state, facts })
    }
}

/// The fitted extractor: the codebook and how to measure what it quantizes.
pub struct Kmeans {
    config: KmeansConfig,
    measure: Measure,
    nearest: Nearest,
}

impl Kmeans {
    /// The extractor that a fitted state describes.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub fn from_state(state: &State) -> Result<Self, StateError> {
        Self::with_frames(state, FRAMES_PER_UNIT)
    }

    /// Does what [`from_state`](Self::from_state) does, for units of `frames` mel frames.
    pub(super) fn with_frames(state: &State, frames: usize) -> Result<Self, StateError> {
        let foreign = |reason: String| StateError::Foreign { wanted: KIND.to_owned(), found: reason };
        let config: KmeansConfig = state.settings_as(KIND)?;
        let measure = Measure::new(&config, frames).map_err(|error| foreign(error.to_string()))?;
        let centres = state.f32("centres", &[Some(config.k), Some(measure.dimensions())])?.to_vec();
        Ok(Self { nearest: Nearest::new(Matrix::new(centres, measure.dimensions())), measure, config })
    }

    /// Returns the number of units.
    pub fn vocabulary(&self) -> usize {
        self.config.k
    }

    /// The centres, `[unit][dimension]`: mean log-mel of the unit's frames (80), then slopes, level and pitch as
    /// configured.
    pub fn centres(&self) -> &Matrix {
        self.nearest.centres()
    }

    /// The units of already measured frames.
    pub fn quantize(&self, measured: &Matrix) -> Vec<u32> {
        self.nearest.assign(measured).into_iter().map(|(unit, _)| unit).collect()
    }

    /// The samples of a recording that units are of.
    pub(super) fn samples(&self, media: &Media) -> Result<Vec<f32>, ExtractError> {
        self.measure.samples(media)
    }

    /// The units of a recording with these samples, one for every unit that it begins.
    pub(super) fn units(&self, samples: &[f32]) -> Result<Vec<u32>, ExtractError> {
        Ok(self.quantize(&self.measure.measure_to_the_end(samples)?))
    }

    /// Returns the features of the recording, `[unit][dimension]`, in the coordinates of [`Kmeans::centres`].
    ///
    /// # Errors
    /// The reason why the recording cannot be used.
    pub fn measure(&self, media: &Media) -> Result<Matrix, ExtractError> {
        self.measure.measure(&self.samples(media)?)
    }
}

impl Extractor for Kmeans {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        self.config.columns()
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        Ok(Extracted::tokens(self.units(&self.samples(media)?)?.into_iter().map(i64::from).collect()))
    }
}
