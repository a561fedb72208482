//! Settings of the `s3-tokenizer` extractor, and how its weights are taken over.

use std::path::Path;

use candle_core::Device;
use flowmill_nn::random::RngKey;
use flowmill_weights::{Archive, Format};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Checkpoint, Dimensions, KIND, LayerNormEpsilon, S3Extractor, TOKEN_RATE, Version,
    onnx::{self, Exported},
};
use crate::{
    Column, ConfigError, Extractor, Fit, Fitted, Kind, State, StateError, UnusableWeights, Weights,
    weights::{self as taken, Pretrained},
};

/// Settings of the `s3-tokenizer` extractor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct S3Config {
    /// The version of the published tokenizer.
    pub version: Version,
    /// The weights, the published `speech_tokenizer_v1.onnx`, `speech_tokenizer_v2.onnx` or
    /// `speech_tokenizer_v3.onnx`, a `.pt` or a `.safetensors`, relative to the folder of the recipe; or `random`. An attribute of a graph that the network
    /// does not have is an error. Required.
    pub weights: Option<Weights>,
    /// Heads of the attention; without it one for every 64 channels, as published.
    pub heads: Option<usize>,
    /// Epsilons of the layer normalizations. An `.onnx` has them in its graph; for other weights they are those of
    /// s3tokenizer 0.3.0 (`1e-5`), and `{attn_ln: 1e-6}` gives those of 0.2.0.
    pub layer_norm_epsilon: Option<LayerNormEpsilon>,
}

impl Default for S3Config {
    fn default() -> Self {
        Self { version: Version::V2, weights: None, heads: None, layer_norm_epsilon: None }
    }
}

impl S3Config {
    fn required(&self) -> Result<&Weights, ConfigError> {
        let published = format!("the path of speech_tokenizer_{}.onnx (or .pt, .safetensors)", self.version.name());
        taken::required("weights", self.weights.as_ref(), &published)
    }
}

impl Kind for S3Config {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "The supervised semantic tokens of CosyVoice at 25 Hz.";
    const PATHS: &'static [&'static str] = &["weights"];
    const WORDS: &'static [&'static str] = &["random"];
    const NETWORK: bool = true;

    fn columns(&self) -> Vec<Column> {
        vec![Column::tokens("speech_token", self.version.entries(), TOKEN_RATE)]
    }

    fn open(state: &State, device: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(S3Extractor::from_state(state, device)?))
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.heads == Some(0) {
            return Err(ConfigError::new("heads", "0: at least 1"));
        }
        if self.layer_norm_epsilon.is_some_and(|epsilon| !epsilon.is_usable()) {
            return Err(ConfigError::new("layer_norm_epsilon", "from 0 to below 1"));
        }
        self.required().map(drop)
    }

    fn fit(&self, seed: u64, root: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        let (weights, config, root) = (self.required()?.clone(), self.clone(), root.to_owned());
        Ok(Box::new(Pretrained::new(KIND, move || {
            let given = Given { heads: config.heads, epsilon: config.layer_norm_epsilon };
            let checkpoint = load(config.version, given, &weights, seed, &root)?;
            let settings = serde_json::json!({
                "version": config.version,
                "heads": checkpoint.dimensions().heads,
                "layer_norm_epsilon": checkpoint.epsilons(),
            });
            let mut state = State::new(KIND, settings);
            let kept = taken::keep(&mut state, "", checkpoint.parameters());
            kept.map_err(|error| taken::unusable(Path::new(KIND), error))?;
            Ok(Fitted { state, facts: weights.facts() })
        })))
    }

    fn weights(&self) -> Vec<&Weights> {
        self.weights.iter().collect()
    }
}

/// The facts about a network that a recipe gives in addition to its weights.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Given {
    pub(crate) heads: Option<usize>,
    pub(crate) epsilon: Option<LayerNormEpsilon>,
}

/// The weights, read or drawn.
pub(crate) fn load(
    version: Version,
    given: Given,
    weights: &Weights,
    seed: u64,
    root: &Path,
) -> Result<Checkpoint, StateError> {
    let Some(file) = weights.file() else {
        let rng_key = RngKey::new(seed).purpose(KIND);
        let checkpoint = Checkpoint::random(version, Dimensions::small(version), rng_key);
        return checkpoint.map_err(|error| taken::unusable(Path::new(KIND), error));
    };
    let path = root.join(file);
    let checkpoint = read(&path, version, given).and_then(|checkpoint| {
        checkpoint.dimensions().check_bands()?;
        Ok(checkpoint)
    });
    checkpoint.map_err(|error| taken::unusable(&path, error))
}

/// The weights of a file. A graph says more than weights: what the recipe says too must be the same.
fn read(path: &Path, version: Version, given: Given) -> Result<Checkpoint, UnusableWeights> {
    if Archive::open(path)?.format != Format::Onnx {
        let epsilon = given.epsilon.unwrap_or_default();
        return Checkpoint::from_tensors(version, given.heads, &[epsilon], &flowmill_weights::read(path)?.tensors);
    }
    let exported = onnx::read(path, version)?;
    if let Some((given, found)) = given.heads.zip(exported.heads).filter(|(given, found)| given != found) {
        return Err(UnusableWeights(format!("its attention has {found} heads, the recipe says `heads: {given}`")));
    }
    if let Some((given, found)) =
        given.epsilon.zip(exported.epsilons.iter().find(|found| given.epsilon != Some(**found)))
    {
        return Err(UnusableWeights(format!(
            "the epsilons of its graph are {} (attn_ln) and {} (mlp_ln), the recipe says {} and {}; leave \
             `layer_norm_epsilon` out",
            found.attn_ln, found.mlp_ln, given.attn_ln, given.mlp_ln
        )));
    }
    Checkpoint::from_tensors(version, given.heads.or(exported.heads), &exported.epsilons, &exported.tensors)
}

/// The tokenizer in an `.onnx` export.
///
/// # Errors
/// When it cannot be read, or is not the graph of this version.
pub fn open_graph(path: &Path, version: Version) -> Result<Checkpoint, UnusableWeights> {
    let Exported { tensors, epsilons, heads } = onnx::read(path, version)?;
    Checkpoint::from_tensors(version, heads, &epsilons, &tensors)
}
