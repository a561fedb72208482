//! Settings of the `campplus` extractor, and how its weights are taken over.

use std::path::Path;

use candle_core::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Campplus, CampplusExtractor, Dimensions, KIND, extractor::to_state};
use crate::{
    Column, ConfigError, Extractor, Fit, Fitted, Kind, State, StateError, UnusableWeights, Weights,
    weights::{self as taken, Pretrained},
};

/// Settings of the `campplus` extractor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CampplusConfig {
    /// Weights of the encoder, `.onnx`, `.pt`, `.bin` or `.safetensors`, relative to the folder of the recipe; or
    /// `random`, to try a run without any. Required.
    pub weights: Option<Weights>,
    /// Length of the embedding: that of the weights.
    pub embedding_size: usize,
    /// Size of an encoder with random weights.
    pub random_size: RandomSize,
}

/// Sizes of encoders with random weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RandomSize {
    /// A fortieth of the published work.
    Small,
    /// The published size.
    Full,
}

/// The longest embedding that is believed.
const LONGEST: usize = 1 << 16;

impl Default for CampplusConfig {
    fn default() -> Self {
        Self { weights: None, embedding_size: Dimensions::default().embedding_size, random_size: RandomSize::Small }
    }
}

impl CampplusConfig {
    fn required(&self) -> Result<&Weights, ConfigError> {
        let published = "the path of campplus.onnx (or campplus_cn_common.bin, .pt, .safetensors)";
        taken::required("weights", self.weights.as_ref(), published)
    }

    fn random_dimensions(&self) -> Dimensions {
        let sizes = match self.random_size {
            RandomSize::Small => Dimensions::small(),
            RandomSize::Full => Dimensions::default(),
        };
        Dimensions { embedding_size: self.embedding_size, ..sizes }
    }
}

impl Kind for CampplusConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "Speaker embeddings of the published CAM++ encoder.";
    const PATHS: &'static [&'static str] = &["weights"];
    const WORDS: &'static [&'static str] = &["random"];
    const NETWORK: bool = true;

    fn columns(&self) -> Vec<Column> {
        vec![Column::embedding("utt_embedding", self.embedding_size)]
    }

    fn open(state: &State, device: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(CampplusExtractor::from_state(state, device)?))
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !(1..=LONGEST).contains(&self.embedding_size) {
            return Err(ConfigError::new("embedding_size", format!("{}: 1 to {LONGEST}", self.embedding_size)));
        }
        self.required().map(drop)
    }

    fn fit(&self, seed: u64, root: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        let (weights, config, root) = (self.required()?.clone(), self.clone(), root.to_owned());
        Ok(Box::new(Pretrained::new(KIND, move || {
            let path = weights.file().map_or_else(|| Path::new(KIND).to_owned(), |file| root.join(file));
            let state = match weights.file() {
                Some(_) => to_state(&mut *super::open(&path).map_err(|error| taken::unusable(&path, error.into()))?),
                None => to_state(&mut super::Random::new(config.random_dimensions(), seed)),
            };
            let (state, dimensions) = state.map_err(|error| taken::unusable(&path, error.into()))?;
            if dimensions.embedding_size != config.embedding_size {
                let (found, wanted) = (dimensions.embedding_size, config.embedding_size);
                let reason = format!("its embeddings have {found} values, the recipe says `embedding_size: {wanted}`");
                return Err(taken::unusable(&path, UnusableWeights(reason)));
            }
            let mut facts = weights.facts();
            facts.push(("embedding size".to_owned(), dimensions.embedding_size.into()));
            Ok(Fitted { state, facts })
        })))
    }

    fn weights(&self) -> Vec<&Weights> {
        self.weights.iter().collect()
    }
}

impl Campplus {
    /// The encoder of a weight file, to run on a device.
    ///
    /// # Errors
    /// When it cannot be read, or is not that of a CAM++ encoder.
    pub fn open(path: &Path, device: &Device) -> Result<Self, super::CampplusError> {
        Self::from_source(&mut *super::open(path)?, device)
    }
}
