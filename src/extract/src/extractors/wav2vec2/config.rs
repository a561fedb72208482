//! Settings of the `wav2vec2` extractor, and the reading of its weights.

use std::path::Path;

use candle_core::Device;
use flowmill_corpus::{ColumnSpec, DType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Checkpoint, Dimensions, EMOTIONS, KIND, Wav2Vec2Extractor};
use crate::error::within;
use crate::weights::{self as taken, Pretrained};
use crate::{Column, ConfigError, Extractor, Fit, Fitted, Kind, State, StateError, UnusableWeights, Weights};

/// The column of the hidden states.
pub const FEATURES: &str = "speech_features";

/// The column of the emotion.
pub const EMOTION: &str = "emotion";

/// Settings of the `wav2vec2` extractor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Wav2Vec2Config {
    /// Weights, `pytorch_model.bin` or `model.safetensors` of `facebook/wav2vec2-base-960h`, or FLOAT's `float.pth`, relative to the
    /// folder of the recipe; or `random`, to try a run without any. Required.
    pub weights: Option<Weights>,
    /// Frames per second of the features, that is, of the video.
    pub fps: f64,
    /// True for the output of the last layer only; by default the outputs of all layers, one after the other.
    ///
    /// Counterparts: `only_last_features` of FLOAT.
    pub only_last_features: bool,
    /// Channels of a hidden state: those of the weights.
    pub hidden_size: usize,
    /// Layers of the transformer: those of the weights.
    pub layers: usize,
    /// Heads of the attention; without it one for every 64 channels, as published.
    pub heads: Option<usize>,
    /// Weights of the speech emotion classifier, a file of it alone or FLOAT's `float.pth`, relative to the folder of the recipe; or
    /// `random`. With them the column `emotion` holds the probabilities of angry, disgust, fear, happy, neutral, sad, surprise.
    pub emotion_weights: Option<Weights>,
}

impl Default for Wav2Vec2Config {
    fn default() -> Self {
        let Dimensions { hidden, layers, .. } = Dimensions::default();
        Self {
            weights: None,
            fps: 25.0,
            only_last_features: false,
            hidden_size: hidden,
            layers,
            heads: None,
            emotion_weights: None,
        }
    }
}

/// The columns of features of this width, with or without the emotion.
pub(super) fn columns(features: usize, emotion: bool) -> Vec<Column> {
    let mut columns = vec![ColumnSpec::new(FEATURES, DType::F32).axis("frame").fixed_axis("feature", features).into()];
    if emotion {
        columns.push(ColumnSpec::new(EMOTION, DType::F32).fixed_axis("class", EMOTIONS.len()).into());
    }
    columns
}

impl Wav2Vec2Config {
    fn required(&self) -> Result<&Weights, ConfigError> {
        let published =
            "the path of wav2vec2-base-960h's pytorch_model.bin or model.safetensors, or of FLOAT's float.pth";
        taken::required("weights", self.weights.as_ref(), published)
    }

    /// Returns the number of features per frame.
    pub fn features(&self) -> usize {
        if self.only_last_features { self.hidden_size } else { self.layers * self.hidden_size }
    }

    /// The weights of the encoder, read or drawn.
    fn load(&self, weights: &Weights, seed: u64, root: &Path) -> Result<Checkpoint, StateError> {
        let Some(file) = weights.file() else {
            let checkpoint = Checkpoint::random(Dimensions::small(self.hidden_size, self.layers), seed);
            return checkpoint.map_err(|error| taken::unusable(Path::new(KIND), error));
        };
        let path = root.join(file);
        let read = || -> Result<Checkpoint, UnusableWeights> {
            let checkpoint = Checkpoint::of_encoder(flowmill_weights::read(&path)?.tensors)?;
            let Dimensions { hidden, layers, .. } = *checkpoint.dimensions();
            if (hidden, layers) != (self.hidden_size, self.layers) {
                return Err(UnusableWeights(format!(
                    "it has {layers} layers of {hidden} channels; write `layers: {layers}` and `hidden_size: {hidden}`"
                )));
            }
            Ok(checkpoint)
        };
        read().map_err(|error| taken::unusable(&path, error))
    }
}

/// The weights of the classifier, read or drawn.
fn load_classifier(weights: &Weights, seed: u64, root: &Path) -> Result<Checkpoint, StateError> {
    let Some(file) = weights.file() else {
        let checkpoint = Checkpoint::random(Dimensions::small_classifier(EMOTIONS.len()), seed);
        return checkpoint.map_err(|error| taken::unusable(Path::new(KIND), error));
    };
    let path = root.join(file);
    let read = || -> Result<Checkpoint, UnusableWeights> {
        let checkpoint = Checkpoint::of_classifier(flowmill_weights::read(&path)?.tensors)?;
        match checkpoint.dimensions().classes {
            classes if classes == EMOTIONS.len() => Ok(checkpoint),
            classes => Err(UnusableWeights(format!("it has {classes} classes, expected {}", EMOTIONS.len()))),
        }
    };
    read().map_err(|error| taken::unusable(&path, error))
}

impl Kind for Wav2Vec2Config {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "Hidden states of wav2vec 2.0 for every video frame, and optionally the emotion of the voice, as FLOAT reads \
                                 speech.";
    const PATHS: &'static [&'static str] = &["weights", "emotion_weights"];
    const WORDS: &'static [&'static str] = &["random"];
    const NETWORK: bool = true;

    fn columns(&self) -> Vec<Column> {
        columns(self.features(), self.emotion_weights.is_some())
    }

    fn open(state: &State, device: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(Wav2Vec2Extractor::from_state(state, device)?))
    }

    fn check(&self) -> Result<(), ConfigError> {
        within("hidden_size", self.hidden_size, 1, 8192)?;
        within("layers", self.layers, 1, 128)?;
        if !(1.0..=240.0).contains(&self.fps) {
            return Err(ConfigError::new("fps", format!("{} is not within 1 to 240 frames per second", self.fps)));
        }
        if self.heads.is_some_and(|heads| heads == 0 || !self.hidden_size.is_multiple_of(heads)) {
            return Err(ConfigError::new("heads", format!("they do not divide {} channels", self.hidden_size)));
        }
        self.required().map(drop)
    }

    fn fit(&self, seed: u64, root: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        let (weights, config, root) = (self.required()?.clone(), self.clone(), root.to_owned());
        Ok(Box::new(Pretrained::new(KIND, move || {
            let settings = serde_json::json!({
                "fps": config.fps, "only_last_features": config.only_last_features, "heads": config.heads,
                "emotion": config.emotion_weights.is_some(),
            });
            let mut state = State::new(KIND, settings);
            let mut keep = |name: &str, checkpoint: Checkpoint| -> Result<(), StateError> {
                let mut part = State::new(KIND, serde_json::json!({}));
                checkpoint.keep(&mut part).map_err(|error| taken::unusable(Path::new(KIND), error))?;
                state.set_part(name, part);
                Ok(())
            };
            keep("speech", config.load(&weights, seed, &root)?)?;
            let mut facts = weights.facts();
            if let Some(weights) = &config.emotion_weights {
                keep("emotion", load_classifier(weights, seed, &root)?)?;
                facts.extend(weights.facts().into_iter().map(|(fact, value)| (format!("emotion {fact}"), value)));
            }
            Ok(Fitted { state, facts })
        })))
    }

    fn weights(&self) -> Vec<&Weights> {
        self.weights.iter().chain(&self.emotion_weights).collect()
    }
}
