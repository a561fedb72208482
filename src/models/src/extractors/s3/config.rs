//! Settings of the `s3-tokenizer` extractor, and how its weights are taken over.

use std::{collections::BTreeMap, path::Path};

use candle_core::Tensor;
use flowmill_nn::{
    random::Draw,
    weights::{self, Archive, Format},
};
use serde::{Deserialize, Serialize};

use super::{Checkpoint, Dimensions, KIND, TOKEN_RATE, Version, onnx};
use crate::extractors::{
    Column, ConfigError, Fit, Fitted, State, StateError, UnusableWeights, ValueType, Weights,
    weights::{self as taken, Pretrained},
};

/// Settings of the `s3-tokenizer` extractor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3Config {
    /// Which of the published tokenizers.
    pub version: Version,
    /// Its weights: `.onnx`, `.pt` or `.safetensors`, or `random`.
    pub weights: Option<Weights>,
    /// Heads of the attention; one for every 64 channels, as published, when left out.
    pub heads: Option<usize>,
}

impl Default for S3Config {
    fn default() -> Self {
        Self { version: Version::V2, weights: None, heads: None }
    }
}

impl S3Config {
    /// The column that it fills.
    pub fn column(&self) -> Column {
        let values = ValueType::Tokens { vocabulary: self.version.entries(), rate: TOKEN_RATE };
        Column { name: "speech_token", values }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// The field that cannot be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.heads == Some(0) {
            return Err(ConfigError::new("heads", "0: at least 1"));
        }
        self.required().map(drop)
    }

    fn required(&self) -> Result<&Weights, ConfigError> {
        let published = format!("the path of speech_tokenizer_{}.onnx (or .pt, .safetensors)", self.version.name());
        taken::required("weights", self.weights.as_ref(), &published)
    }

    pub(in crate::extractors) fn weights(&self) -> Vec<&Weights> {
        self.weights.iter().collect()
    }

    pub(in crate::extractors) fn fit(&self, seed: u64, root: &Path) -> Result<impl Fit + use<>, ConfigError> {
        let (weights, config, root) = (self.required()?.clone(), self.clone(), root.to_owned());
        Ok(Pretrained::new(KIND, move || {
            let checkpoint = load(config.version, config.heads, &weights, seed, &root)?;
            let settings = serde_json::json!({"version": config.version, "heads": checkpoint.dimensions().heads});
            let mut state = State::new(KIND, settings);
            let kept = taken::keep(&mut state, "", checkpoint.parameters());
            kept.map_err(|error| taken::unusable(Path::new(KIND), error))?;
            Ok(Fitted { state, facts: weights.facts() })
        }))
    }
}

/// The weights, read or drawn.
pub(in crate::extractors) fn load(
    version: Version,
    heads: Option<usize>,
    weights: &Weights,
    seed: u64,
    root: &Path,
) -> Result<Checkpoint, StateError> {
    let Some(file) = weights.file() else {
        let draw = Draw::new(seed).purpose(KIND);
        let checkpoint = Checkpoint::random(version, Dimensions::small(version), draw);
        return checkpoint.map_err(|error| taken::unusable(Path::new(KIND), error));
    };
    let path = root.join(file);
    let checkpoint = tensors(&path, version).and_then(|tensors| {
        let checkpoint = Checkpoint::from_tensors(version, heads, &tensors)?;
        checkpoint.dimensions().check_bands()?;
        Ok(checkpoint)
    });
    checkpoint.map_err(|error| taken::unusable(&path, error))
}

/// The tensors of a weight file under the names of the public `state_dict`.
fn tensors(path: &Path, version: Version) -> Result<BTreeMap<String, Tensor>, UnusableWeights> {
    if Archive::open(path)?.format == Format::Onnx {
        return onnx::read(path, version);
    }
    Ok(weights::read(path)?.tensors)
}
