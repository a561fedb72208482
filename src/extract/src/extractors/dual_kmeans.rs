//! The `dual-kmeans` units: two streams of speech tokens in the form of Step-Audio's tokenizer, fitted on the corpus.
//!
//! Stands in for the published codebooks where no weights are there: the same rates, the same mixed sequence (see
//! [`crate::dual_codebook`]), but units of log-mel instead of networks. The *linguistic* stream has a unit per three mel frames
//! (60 ms, 16.7 Hz) and by default sees the spectrum alone, minus its mean over the utterance: what is said rather than how and by
//! whom. The *semantic* one has a unit per two (40 ms, 25 Hz) and sees what [`super::kmeans`] sees. Six mel frames are a group.
//!
//! Both streams have a unit for every stretch that a recording begins, and the mixed sequence has the groups that both fill, as in
//! Step-Audio's tokenizer: a last group counts when more than 80 of its 120 ms are there.

use std::path::Path;

use candle_core::Device;
use flowmill_nn::random::RngKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::kmeans::{self, Kmeans, KmeansConfig, KmeansFit, Normalization};
use crate::dual_codebook::{DualCodebook, LINGUISTIC_PER_GROUP, MIXED_RATE, SEMANTIC_PER_GROUP};
use crate::{
    Accumulator, Column, ConfigError, ExtractError, Extracted, Extractor, Fit, Fitted, Kind, Matrix, Media, Scope,
    State, StateError,
};

/// The extractor's kind.
pub const KIND: &str = "dual-kmeans";

/// The names of the streams' arrays.
const STREAMS: [&str; 2] = ["linguistic", "semantic"];
/// Mel frames in a unit of each stream: six to a group.
const FRAMES: [usize; 2] = [3, 2];
/// Units of a group.
const PER_GROUP: [usize; 2] = [LINGUISTIC_PER_GROUP, SEMANTIC_PER_GROUP];

/// Settings of the `dual-kmeans` extractor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DualKmeansConfig {
    /// Units of the linguistic stream.
    pub vq02_size: usize,
    /// Units of the semantic stream.
    pub vq06_size: usize,
    /// Most iterations.
    pub iterations: usize,
    /// Most units of audio to cluster, of each stream; of more a sample is taken.
    pub max_frames: usize,
    /// Most units of audio that one part of the corpus contributes, of each stream.
    pub max_frames_per_part: usize,
}

impl Default for DualKmeansConfig {
    fn default() -> Self {
        let (sizes, stream) = (DualCodebook::default(), KmeansConfig::default());
        Self {
            vq02_size: sizes.linguistic,
            vq06_size: sizes.semantic,
            iterations: stream.iterations,
            max_frames: stream.max_frames,
            max_frames_per_part: stream.max_frames_per_part,
        }
    }
}

impl DualKmeansConfig {
    /// The sizes of the codebooks.
    pub fn codebook(&self) -> DualCodebook {
        DualCodebook { linguistic: self.vq02_size, semantic: self.vq06_size }
    }

    fn streams(&self) -> [KmeansConfig; 2] {
        let all = |k| KmeansConfig {
            k,
            iterations: self.iterations,
            max_frames: self.max_frames,
            max_frames_per_part: self.max_frames_per_part,
            ..KmeansConfig::default()
        };
        let spectrum = |config| KmeansConfig {
            level_weight: 0.0,
            pitch_weight: 0.0,
            normalise: Normalization::Utterance,
            ..config
        };
        [spectrum(all(self.vq02_size)), all(self.vq06_size)]
    }

    /// The settings that measuring and sampling in a part read.
    fn measuring(&self) -> Value {
        serde_json::json!({ "max_frames_per_part": self.max_frames_per_part })
    }
}

impl Kind for DualKmeansConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str =
        "Tokens of two codebooks without any weights, at 16.7 and 25 Hz, as the mixed sequence of Step-Audio.";

    fn columns(&self) -> Vec<Column> {
        vec![Column::tokens("speech_token", self.codebook().mixed_vocabulary(), MIXED_RATE)]
    }

    fn open(state: &State, _: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(DualKmeans::from_state(state)?))
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (size, config) in ["vq02_size", "vq06_size"].into_iter().zip(self.streams()) {
            config.check().map_err(|error| match error.field {
                "k" => ConfigError::new(size, error.reason),
                _ => error,
            })?;
        }
        Ok(())
    }

    fn learning(&self) -> Option<Value> {
        Some(self.measuring())
    }

    fn fit(&self, seed: u64, _: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        Ok(Box::new(DualKmeansFit::new(self.clone(), seed)?))
    }

    fn reads_seed(&self) -> bool {
        true
    }

    fn has_centers(&self) -> bool {
        true
    }
}

/// Fits the centres of both streams.
pub struct DualKmeansFit {
    config: DualKmeansConfig,
    streams: [KmeansFit; 2],
}

impl DualKmeansFit {
    /// Prepares to fit with these settings; `seed` decides which frames are sampled and where the centres start.
    ///
    /// # Errors
    /// The setting that cannot be used.
    pub fn new(config: DualKmeansConfig, seed: u64) -> Result<Self, ConfigError> {
        config.check()?;
        let rng_key = RngKey::new(seed).purpose(KIND);
        let [linguistic, semantic] = config.streams();
        let stream =
            |index: usize, config| KmeansFit::with_frames(config, FRAMES[index], rng_key.purpose(STREAMS[index]));
        Ok(Self { streams: [stream(0, linguistic)?, stream(1, semantic)?], config })
    }

    fn widths(&self) -> [usize; 2] {
        [0, 1].map(|index| self.streams[index].dimensions())
    }
}

impl Fit for DualKmeansFit {
    fn kind(&self) -> &'static str {
        KIND
    }

    /// Returns one row per group: its linguistic units, then its semantic ones.
    fn measure(&self, media: &Media) -> Result<Matrix, ExtractError> {
        let samples = self.streams[0].samples(media)?;
        let [linguistic, semantic] =
            [self.streams[0].measure_samples(&samples)?, self.streams[1].measure_samples(&samples)?];
        groups(&linguistic, &semantic).map_or_else(|| Err(too_short(media, GROUP_SECONDS)?), Ok)
    }

    fn accumulator(&self, scope: Scope) -> Box<dyn Accumulator> {
        Box::new(Both {
            settings: self.config.measuring(),
            widths: self.widths(),
            streams: [self.streams[0].accumulator(scope), self.streams[1].accumulator(scope)],
        })
    }

    fn finish(&self, state: &State) -> Result<Fitted, StateError> {
        let mut fitted = State::new(KIND, serde_json::json!(self.config));
        let mut facts = Vec::new();
        for (name, fit) in STREAMS.into_iter().zip(&self.streams) {
            let stream = fit.finish(&part(state, name))?;
            facts.extend(stream.facts.into_iter().map(|(fact, value)| (format!("{name} {fact}"), value)));
            fitted.set_part(name, stream.state);
        }
        Ok(Fitted { state: fitted, facts })
    }
}

/// Seconds of a group, which fitting needs.
const GROUP_SECONDS: f64 = 0.12;

/// A recording has tokens when it is longer than this: the third semantic unit of 40 ms has begun.
const SHORTEST: f64 = 0.08;

/// Returns the error for a recording without a group.
fn too_short(media: &Media, needed: f64) -> Result<ExtractError, ExtractError> {
    Ok(ExtractError::TooShort { extractor: KIND, seconds: media.as_audio(KIND)?.seconds()?, needed })
}

/// Both streams' measured units side by side, a group per row; `None` without a whole group.
fn groups(linguistic: &Matrix, semantic: &Matrix) -> Option<Matrix> {
    let widths = [linguistic.columns() * PER_GROUP[0], semantic.columns() * PER_GROUP[1]];
    let rows = linguistic.as_slice().chunks_exact(widths[0]).zip(semantic.as_slice().chunks_exact(widths[1]));
    let values: Vec<f32> = rows.flat_map(|(linguistic, semantic)| linguistic.iter().chain(semantic)).copied().collect();
    (!values.is_empty()).then(|| Matrix::new(values, widths[0] + widths[1]))
}

/// Returns the state of one stream's accumulator.
fn part(state: &State, name: &str) -> State {
    state.part(name, kmeans::KIND, serde_json::Value::Null)
}

/// The accumulators of both streams.
struct Both {
    settings: serde_json::Value,
    widths: [usize; 2],
    streams: [Box<dyn Accumulator>; 2],
}

impl Accumulator for Both {
    fn add(&mut self, id: &str, measured: &Matrix) -> Result<(), StateError> {
        let first = self.widths[0] * PER_GROUP[0];
        if measured.columns() != first + self.widths[1] * PER_GROUP[1] {
            let reason = format!("a group measures {} values", measured.columns());
            return Err(StateError::NotEnough { kind: KIND, reason });
        }
        let columns = [0..first, first..measured.columns()];
        for ((stream, columns), width) in self.streams.iter_mut().zip(columns).zip(self.widths) {
            let values = measured.iter().flat_map(|row| &row[columns.clone()]).copied().collect();
            stream.add(id, &Matrix::new(values, width))?;
        }
        Ok(())
    }

    fn absorb(&mut self, state: &State) -> Result<(), StateError> {
        state.expect_kind(KIND)?;
        for (name, stream) in STREAMS.into_iter().zip(&mut self.streams) {
            stream.absorb(&part(state, name))?;
        }
        Ok(())
    }

    fn into_state(self: Box<Self>) -> State {
        let mut state = State::new(KIND, self.settings);
        for (name, stream) in STREAMS.into_iter().zip(self.streams) {
            state.set_part(name, stream.into_state());
        }
        state
    }
}

/// The fitted extractor.
pub struct DualKmeans {
    config: DualKmeansConfig,
    streams: [Kmeans; 2],
}

impl DualKmeans {
    /// The extractor that a fitted state describes.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub fn from_state(state: &State) -> Result<Self, StateError> {
        let config: DualKmeansConfig = state.settings_as(KIND)?;
        let [linguistic, semantic] = config.streams();
        let stream = |index: usize, config: KmeansConfig| {
            let part = state.part(STREAMS[index], kmeans::KIND, serde_json::json!(config));
            Kmeans::with_frames(&part, FRAMES[index])
        };
        Ok(Self { streams: [stream(0, linguistic)?, stream(1, semantic)?], config })
    }

    /// The sizes of the codebooks.
    pub fn codebook(&self) -> DualCodebook {
        self.config.codebook()
    }

    /// The centres of the linguistic and of the semantic stream.
    pub fn centres(&self) -> [&Matrix; 2] {
        [self.streams[0].centres(), self.streams[1].centres()]
    }
}

impl Extractor for DualKmeans {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        self.config.columns()
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let samples = self.streams[0].samples(media)?;
        let [linguistic, semantic] = [self.streams[0].units(&samples)?, self.streams[1].units(&samples)?];
        // Units are places in their codebooks, so they mix.
        let mixed = self.codebook().mix(&linguistic, &semantic).unwrap_or_default();
        if mixed.is_empty() { Err(too_short(media, SHORTEST)?) } else { Ok(Extracted::tokens(mixed)) }
    }
}
