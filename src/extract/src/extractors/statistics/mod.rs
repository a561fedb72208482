//! The `statistics` embedding: how a voice sounds on average, without any downloaded weights.
//!
//! The mean and the deviation over time of log-mel bands and of their deltas, taken over the frames that carry speech
//! (within `gate_db` of the loudest), whitened with the mean and covariance of the training split, scaled to unit
//! length. With the default 48 bands that is 192 values, the length of a CAM++ embedding, in whose columns it stands.
//!
//! Whitening: every dimension is standardized first; of the correlation matrix R that remains, (1 − s) R + s I is
//! taken, with the shrinkage s, and its symmetric inverse square root applied (ZCA). On few recordings the directions
//! of least variance are noise, and amplifying them hides the speaker; hence the strong default.

mod measure;
mod moments;
mod whitening;

use std::path::Path;

use candle_core::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::{measure::Measure, moments::Moments, whitening::Whitening};
use crate::{
    Accumulator, Column, ConfigError, ExtractError, Extracted, Extractor, Fit, Fitted, Kind, Matrix, Media, Scope,
    State, StateError,
};

/// The extractor's kind.
pub const KIND: &str = "statistics";

/// Values per band: mean and deviation, static and delta.
const VALUES_PER_BAND: usize = 4;

/// Settings of the `statistics` extractor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StatisticsConfig {
    /// Mel bands from 60 to 7600 Hz; the embedding has four values for each.
    pub n_mels: usize,
    /// Largest distance of a frame from the loudest one, in decibels; quieter frames are left out.
    pub gate_db: f32,
    /// How far the correlation matrix is drawn to the identity before whitening, above 0 and at most 1. With 1 every
    /// dimension is only standardized.
    pub shrinkage: f64,
}

impl Default for StatisticsConfig {
    fn default() -> Self {
        Self { n_mels: 48, gate_db: 30.0, shrinkage: 0.97 }
    }
}

impl StatisticsConfig {
    /// The length of the embedding.
    pub fn dimensions(&self) -> usize {
        VALUES_PER_BAND * self.n_mels
    }

    /// The settings that measuring reads.
    fn measuring(&self) -> Value {
        serde_json::json!({"n_mels": self.n_mels, "gate_db": self.gate_db})
    }
}

impl Kind for StatisticsConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "Speaker embeddings without any weights: mean and deviation of log-mel bands and of their slopes, whitened \
                                 on the training split, at unit length.";

    fn columns(&self) -> Vec<Column> {
        vec![Column::embedding("utt_embedding", self.dimensions())]
    }

    fn open(state: &State, _: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(Statistics::from_state(state)?))
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !(8..=64).contains(&self.n_mels) {
            return Err(ConfigError::new("n_mels", format!("{} is not within 8 to 64 bands", self.n_mels)));
        }
        if !(self.gate_db > 0.0 && self.gate_db <= 200.0) {
            return Err(ConfigError::new("gate_db", format!("{} is not above 0 and at most 200 dB", self.gate_db)));
        }
        if !(self.shrinkage > 0.0 && self.shrinkage <= 1.0) {
            return Err(ConfigError::new("shrinkage", format!("{} is not above 0 and at most 1", self.shrinkage)));
        }
        Ok(())
    }

    fn learning(&self) -> Option<Value> {
        Some(self.measuring())
    }

    fn fit(&self, _: u64, _: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        Ok(Box::new(StatisticsFit::new(self.clone())?))
    }
}

/// Fits the whitening.
pub struct StatisticsFit {
    config: StatisticsConfig,
    measure: Measure,
}

impl StatisticsFit {
    /// Prepares to fit with these settings.
    ///
    /// # Errors
    /// The setting that cannot be used.
    pub fn new(config: StatisticsConfig) -> Result<Self, ConfigError> {
        Ok(Self { measure: Measure::new(&config)?, config })
    }
}

impl Fit for StatisticsFit {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn measure(&self, media: &Media) -> Result<Matrix, ExtractError> {
        Ok(Matrix::new(self.measure.measure(media)?, self.config.dimensions()))
    }

    fn accumulator(&self, _scope: Scope) -> Box<dyn Accumulator> {
        Box::new(Moments::new(&self.config))
    }

    fn finish(&self, state: &State) -> Result<Fitted, StateError> {
        let moments = Moments::from_state(&self.config, state)?;
        let whitening = Whitening::fit(&moments, self.config.shrinkage)?;
        let facts = vec![
            ("rows fitted on".to_owned(), moments.count().into()),
            ("dimensions".to_owned(), self.config.dimensions().into()),
        ];
        Ok(Fitted { state: whitening.to_state(&self.config), facts })
    }
}

/// The fitted extractor.
pub struct Statistics {
    config: StatisticsConfig,
    measure: Measure,
    whitening: Whitening,
}

impl Statistics {
    /// The extractor that a fitted state describes.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub fn from_state(state: &State) -> Result<Self, StateError> {
        let foreign = |reason: String| StateError::Foreign { wanted: KIND.to_owned(), found: reason };
        let config: StatisticsConfig = state.settings_as(KIND)?;
        let measure = Measure::new(&config).map_err(|error| foreign(error.to_string()))?;
        Ok(Self { whitening: Whitening::from_state(state, config.dimensions())?, measure, config })
    }
}

impl Extractor for Statistics {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        self.config.columns()
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let measured = self.measure.measure(media)?;
        let mut embedding = self.whitening.apply(&measured);
        if !scale_to_unit_length(&mut embedding) {
            if embedding.iter().any(|value| !value.is_finite()) {
                return Err(ExtractError::NotFinite { extractor: KIND });
            }
            // Exactly the mean, as where all that was fitted on is the same: no direction is its own.
            embedding.fill(0.0);
        }
        Ok(Extracted::embedding(embedding))
    }
}

/// Scales a vector to unit length; `false`, and the vector unchanged, when it has none.
pub fn scale_to_unit_length(vector: &mut [f32]) -> bool {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if !length.is_normal() {
        return false;
    }
    vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    true
}
