//! Settings of the `encodec` codec, and the reading of its weights.

use std::path::Path;

use candle_core::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::extractor::to_state;
use super::{Checkpoint, Dimensions, EncodecDecoder, EncodecExtractor, HOP_LENGTH, KIND, SAMPLE_RATE};
use crate::error::within;
use crate::weights::{self as taken, Pretrained};
use crate::{Codec, Column, ConfigError, Extractor, Fit, Fitted, Kind, State, StateError, UnusableWeights, Weights};

/// Settings of the `encodec` codec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EncodecConfig {
    /// Weights of the 24 kHz model, `model.safetensors` or `pytorch_model.bin` of `facebook/encodec_24khz`, or Meta's
    /// `encodec_24khz-d7cc33bc.th`, relative to the folder of the recipe; or `random`, to try a run without any. Required.
    pub weights: Option<Weights>,
    /// Number of levels: codes per frame. The published model has 32, and 8 of them take 6 kbit/s.
    pub levels: usize,
    /// Number of different codes of each level: that of the weights.
    pub codebook_size: usize,
}

impl Default for EncodecConfig {
    fn default() -> Self {
        Self { weights: None, levels: 8, codebook_size: 1024 }
    }
}

impl EncodecConfig {
    fn required(&self) -> Result<&Weights, ConfigError> {
        let published = "the path of EnCodec's model.safetensors, pytorch_model.bin or encodec_24khz-d7cc33bc.th";
        taken::required("weights", self.weights.as_ref(), published)
    }

    /// The weights, read or drawn.
    fn load(&self, weights: &Weights, seed: u64, root: &Path) -> Result<Checkpoint, StateError> {
        let Some(file) = weights.file() else {
            let checkpoint = Checkpoint::random(Dimensions::small(self.levels, self.codebook_size), seed);
            return checkpoint.map_err(|error| taken::unusable(Path::new(KIND), error));
        };
        let path = root.join(file);
        self.read(&path).map_err(|error| taken::unusable(&path, error))
    }

    fn read(&self, path: &Path) -> Result<Checkpoint, UnusableWeights> {
        let checkpoint = Checkpoint::of(flowmill_weights::read(path)?.tensors, self.levels)?;
        let Dimensions { codes, .. } = *checkpoint.dimensions();
        if codes != self.codebook_size {
            let wanted = self.codebook_size;
            return Err(UnusableWeights(format!(
                "it has {codes} codes per level, the recipe says `codebook_size: {wanted}`"
            )));
        }
        if checkpoint.dimensions().hop_length() != HOP_LENGTH {
            let found = checkpoint.dimensions().hop_length();
            let reason = format!("its frames have {found} samples, those of the 24 kHz model {HOP_LENGTH}");
            return Err(UnusableWeights(reason));
        }
        Ok(checkpoint)
    }
}

impl Kind for EncodecConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "The codes of EnCodec at 24 kHz: 75 frames a second, 8 of its 32 levels by default.";
    const PATHS: &'static [&'static str] = &["weights"];
    const WORDS: &'static [&'static str] = &["random"];
    const NETWORK: bool = true;

    fn columns(&self) -> Vec<Column> {
        vec![Column::codes(self.levels, self.codebook_size, f64::from(SAMPLE_RATE) / HOP_LENGTH as f64)]
    }

    fn open(state: &State, device: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(EncodecExtractor::from_state(state, device)?))
    }

    fn codec(state: &State, device: &Device) -> Result<Option<Box<dyn Codec>>, StateError> {
        Ok(Some(Box::new(EncodecDecoder::from_state(state, device)?)))
    }

    fn check(&self) -> Result<(), ConfigError> {
        within("levels", self.levels, 1, 32)?;
        within("codebook_size", self.codebook_size, 2, 65_536)?;
        self.required().map(drop)
    }

    fn fit(&self, seed: u64, root: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        let (weights, config, root) = (self.required()?.clone(), self.clone(), root.to_owned());
        Ok(Box::new(Pretrained::new(KIND, move || {
            let checkpoint = config.load(&weights, seed, &root)?;
            let state = to_state(&checkpoint).map_err(|error| taken::unusable(Path::new(KIND), error))?;
            Ok(Fitted { state, facts: weights.facts() })
        })))
    }

    fn weights(&self) -> Vec<&Weights> {
        self.weights.iter().collect()
    }
}
