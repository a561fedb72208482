//! Settings of the `step-audio-dual` extractor.

use std::path::Path;

use candle_core::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{KIND, StepAudioDual, prepare::Preparation};
use crate::{
    Column, ConfigError, Extractor, Fit, Fitted, Kind, State, StateError, UnusableWeights, Weights,
    dual_codebook::{DualCodebook, MIXED_RATE},
    extractors::{
        paraformer::{Keys, ParaformerConfig},
        s3::{self, Version},
    },
    weights::{self as taken, Pretrained},
};

/// The keys of the linguistic settings.
const LINGUISTIC: Keys = Keys {
    weights: "linguistic.weights",
    centres: "linguistic.centres",
    cmvn: "linguistic.cmvn",
    heads: "linguistic.heads",
};

/// Settings of the `step-audio-dual` extractor.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StepAudioConfig {
    /// The linguistic tokenizer: the settings of `paraformer-units`.
    pub linguistic: ParaformerConfig,
    /// The semantic tokenizer: S3, version 1.
    pub semantic: SemanticConfig,
    /// What is done to recordings first.
    pub prepare: Preparation,
}

/// Settings of the semantic tokenizer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SemanticConfig {
    /// The weights, the published `speech_tokenizer_v1.onnx`, `.pt` or `.safetensors`, or `random`. Required.
    pub weights: Option<Weights>,
    /// Heads of the attention; without it one for every 64 channels, as published.
    pub heads: Option<usize>,
}

impl StepAudioConfig {
    fn semantic(&self) -> Result<&Weights, ConfigError> {
        let published = "the path of speech_tokenizer_v1.onnx (or .pt, .safetensors)";
        taken::required("semantic.weights", self.semantic.weights.as_ref(), published)
    }
}

/// The columns of mixed sequences of the published codebooks.
pub(super) fn columns() -> Vec<Column> {
    vec![Column::tokens("speech_token", DualCodebook::default().mixed_vocabulary(), MIXED_RATE)]
}

impl Kind for StepAudioConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "Both codebooks of Step-Audio as its mixed sequence: the groups of 120 ms that both streams fill, of which \
                                 the last needs more than 80 ms.";
    const PATHS: &'static [&'static str] =
        &["linguistic.weights", "linguistic.centres", "linguistic.cmvn", "semantic.weights"];
    const WORDS: &'static [&'static str] = ParaformerConfig::WORDS;
    const NETWORK: bool = true;

    fn columns(&self) -> Vec<Column> {
        columns()
    }

    fn open(state: &State, device: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(StepAudioDual::from_state(state, device)?))
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.linguistic.check_as(&LINGUISTIC)?;
        if self.semantic.heads == Some(0) {
            return Err(ConfigError::new("semantic.heads", "0: at least 1"));
        }
        self.semantic().map(drop)
    }

    fn fit(&self, seed: u64, root: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        self.check()?;
        let (semantic, config, root) = (self.semantic()?.clone(), self.clone(), root.to_owned());
        Ok(Box::new(Pretrained::new(KIND, move || {
            let linguistic = config.linguistic.load(seed, &root)?;
            let given = s3::Given { heads: config.semantic.heads, ..s3::Given::default() };
            let checkpoint = s3::load(Version::V1, given, &semantic, seed, &root)?;
            let settings = serde_json::json!({
                "linguistic_heads": linguistic.heads(),
                "semantic_heads": checkpoint.dimensions().heads,
                "semantic_layer_norm_epsilon": checkpoint.epsilons(),
                "prepare": config.prepare,
            });
            let mut state = State::new(KIND, settings);
            let kept = linguistic
                .keep(&mut state, "linguistic.")
                .and_then(|()| taken::keep(&mut state, "semantic.", checkpoint.parameters()));
            kept.map_err(|error: UnusableWeights| taken::unusable(Path::new(KIND), error))?;
            let named = |name: &str, weights: &Weights| {
                let facts = weights.facts().into_iter();
                facts.map(|(fact, value)| (format!("{name} {fact}"), value)).collect::<Vec<_>>()
            };
            let mut facts =
                config.linguistic.weights.as_ref().map_or_else(Vec::new, |weights| named("linguistic", weights));
            facts.extend(named("semantic", &semantic));
            Ok(Fitted { state, facts })
        })))
    }

    fn weights(&self) -> Vec<&Weights> {
        self.linguistic.weights().into_iter().chain(&self.semantic.weights).collect()
    }

    fn other_files(&self) -> Vec<&Path> {
        self.linguistic.other_files()
    }
}
