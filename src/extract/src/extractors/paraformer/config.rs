//! Settings of the `paraformer-units` extractor, and how its weights are taken over.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor};
use flowmill_nn::{host, random::RngKey};
use flowmill_weights::{Archive, Format};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Checkpoint, Chunking, Cmvn, Dimensions, ENTRIES, Encoder, KIND, LinguisticTokenizer, ParaformerUnits, Stacking,
    TOKEN_RATE,
};
use crate::{
    Column, ConfigError, Extractor, Fit, Fitted, Kind, Matrix, State, StateError, UnusableWeights, Weights,
    weights::{self as taken, Pretrained},
};

/// The value in a recipe for an encoder whose input is not normalized.
const NO_CMVN: &str = "none";

/// A tensor of the encoder by which its prefix is found.
const FIRST: &str = "encoders0.0.norm1.weight";

/// Settings of the `paraformer-units` extractor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ParaformerConfig {
    /// Weights of the online Paraformer, `model.pt` or `.safetensors` (other parts of the file are ignored), or
    /// `random`. Required.
    pub weights: Option<Weights>,
    /// The centers, `linguistic_tokenizer.npy` (or the only tensor of another weight file); not needed with random
    /// weights.
    pub centres: Option<PathBuf>,
    /// The normalization of the input, `am.mvn`, or `none`; not needed with random weights.
    pub cmvn: Option<String>,
    /// Heads of the attention.
    pub heads: usize,
}

impl Default for ParaformerConfig {
    fn default() -> Self {
        Self { weights: None, centres: None, cmvn: None, heads: Dimensions::published().heads }
    }
}

/// The settings' names in errors: inside another extractor's settings they stand deeper.
pub(crate) struct Keys {
    pub(crate) weights: &'static str,
    pub(crate) centres: &'static str,
    pub(crate) cmvn: &'static str,
    pub(crate) heads: &'static str,
}

const KEYS: Keys = Keys { weights: "weights", centres: "centres", cmvn: "cmvn", heads: "heads" };

impl ParaformerConfig {
    pub(crate) fn check_as(&self, keys: &Keys) -> Result<(), ConfigError> {
        let weights =
            taken::required(keys.weights, self.weights.as_ref(), "the path of the online Paraformer's model.pt")?;
        if self.heads == 0 {
            return Err(ConfigError::new(keys.heads, "0: at least 1"));
        }
        if *weights == Weights::Random {
            return Ok(());
        }
        if self.centres.as_ref().is_none_or(|path| path.as_os_str().is_empty()) {
            return Err(ConfigError::new(keys.centres, "missing: the path of linguistic_tokenizer.npy"));
        }
        if self.cmvn.as_ref().is_none_or(String::is_empty) {
            let reason = format!("missing: the path of the model's am.mvn, or `{NO_CMVN}` for one trained without");
            return Err(ConfigError::new(keys.cmvn, reason));
        }
        Ok(())
    }

    fn cmvn_file(&self) -> Option<&Path> {
        self.cmvn.as_deref().filter(|name| *name != NO_CMVN).map(Path::new)
    }

    /// The parts of the tokenizer, read or drawn.
    pub(crate) fn load(&self, seed: u64, root: &Path) -> Result<Parts, StateError> {
        let Some(file) = self.weights.as_ref().and_then(Weights::file) else {
            return random(RngKey::new(seed).purpose(KIND)).map_err(|error| taken::unusable(Path::new(KIND), error));
        };
        let path = root.join(file);
        let encoder = refuse_graph(&path).and_then(|()| Ok(flowmill_weights::read(&path)?));
        let encoder = encoder.and_then(|file| encoder_of(self.heads, file.tensors));
        let encoder = encoder.map_err(|error| taken::unusable(&path, error))?;
        let path = root.join(self.centres.as_deref().unwrap_or(Path::new("")));
        let centres = centres(&path).map_err(|error| taken::unusable(&path, error))?;
        let cmvn = self.cmvn_file().map(|file| {
            let path = root.join(file);
            Cmvn::read(&path).map_err(|error| taken::unusable(&path, error))
        });
        let parts = Parts { encoder, cmvn: cmvn.transpose()?, centres };
        parts.check().map_err(|error| taken::unusable(&path, error))?;
        Ok(parts)
    }
}

impl Kind for ParaformerConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str =
        "The linguistic tokens of Step-Audio at 16.7 Hz: nearest centers of the online Paraformer's encoder.";
    const PATHS: &'static [&'static str] = &["weights", "centres", "cmvn"];
    const WORDS: &'static [&'static str] = &["random", NO_CMVN];
    const NETWORK: bool = true;

    fn columns(&self) -> Vec<Column> {
        vec![Column::tokens("speech_token", ENTRIES, TOKEN_RATE)]
    }

    fn open(state: &State, device: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(ParaformerUnits::from_state(state, device)?))
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.check_as(&KEYS)
    }

    fn fit(&self, seed: u64, root: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        self.check()?;
        let (config, root) = (self.clone(), root.to_owned());
        Ok(Box::new(Pretrained::new(KIND, move || {
            let parts = config.load(seed, &root)?;
            let mut state = State::new(KIND, serde_json::json!({"heads": parts.heads()}));
            let kept = parts.keep(&mut state, "");
            kept.map_err(|error| taken::unusable(Path::new(KIND), error))?;
            Ok(Fitted { state, facts: config.weights.iter().flat_map(Weights::facts).collect() })
        })))
    }

    fn weights(&self) -> Vec<&Weights> {
        self.weights.iter().collect()
    }

    fn other_files(&self) -> Vec<&Path> {
        if self.weights.as_ref().is_none_or(|weights| *weights == Weights::Random) {
            return Vec::new();
        }
        self.centres.as_deref().into_iter().chain(self.cmvn_file()).collect()
    }
}

/// The parts of a tokenizer, as a state keeps them.
pub(crate) struct Parts {
    encoder: Checkpoint,
    cmvn: Option<Cmvn>,
    centres: Matrix,
}

impl Parts {
    pub(crate) fn heads(&self) -> usize {
        self.encoder.dimensions().heads
    }

    fn check(&self) -> Result<(), UnusableWeights> {
        LinguisticTokenizer::check(self.encoder.dimensions(), Stacking::default(), self.cmvn.as_ref(), &self.centres)
    }

    /// Adds them to a state.
    pub(crate) fn keep(&self, state: &mut State, prefix: &str) -> Result<(), UnusableWeights> {
        taken::keep(state, &format!("{prefix}encoder."), self.encoder.parameters())?;
        let centres = &self.centres;
        state.set_f32(&format!("{prefix}centres"), &[centres.rows(), centres.columns()], centres.as_slice().to_vec());
        if let Some(cmvn) = &self.cmvn {
            state.set_f32(&format!("{prefix}cmvn.shift"), &[cmvn.shift.len()], cmvn.shift.clone());
            state.set_f32(&format!("{prefix}cmvn.scale"), &[cmvn.scale.len()], cmvn.scale.clone());
        }
        Ok(())
    }
}

/// Fails for a graph, whose operations say more than its weights and are not read.
fn refuse_graph(path: &Path) -> Result<(), UnusableWeights> {
    if Archive::open(path)?.format == Format::Onnx {
        let message = "an ONNX graph of a Paraformer is not read; give its model.pt or a .safetensors";
        return Err(UnusableWeights(message.to_owned()));
    }
    Ok(())
}

/// The encoder among the tensors of a whole Paraformer.
fn encoder_of(heads: usize, tensors: BTreeMap<String, Tensor>) -> Result<Checkpoint, UnusableWeights> {
    let prefix = tensors.keys().find_map(|name| name.strip_suffix(FIRST)).unwrap_or("").to_owned();
    let own = |name: &str| ["encoders0.", "encoders.", "after_norm."].iter().any(|part| name.starts_with(part));
    let encoder = tensors.into_iter().filter_map(|(name, tensor)| {
        let name = name.strip_prefix(&prefix)?;
        own(name).then(|| (name.to_owned(), tensor))
    });
    Checkpoint::from_tensors(heads, &encoder.collect())
}

/// The only tensor of a file, as rows.
fn centres(path: &Path) -> Result<Matrix, UnusableWeights> {
    let file = flowmill_weights::read(path)?;
    let tensors: Vec<&Tensor> = file.tensors.values().collect();
    let &[tensor] = tensors.as_slice() else {
        return Err(UnusableWeights(format!("{} tensors; a list of centres is one", tensors.len())));
    };
    let &[rows, columns] = tensor.dims() else {
        return Err(UnusableWeights(format!("the shape {:?} is not [centre, channel]", tensor.dims())));
    };
    if rows > ENTRIES {
        return Err(UnusableWeights(format!("{rows} centres, {ENTRIES} at most")));
    }
    Ok(Matrix::new(host::slice("centres", tensor)?.to_vec(), columns))
}

/// A small tokenizer whose tokens mean nothing.
fn random(rng_key: RngKey) -> Result<Parts, UnusableWeights> {
    let dimensions = Dimensions::small();
    let centres = rng_key.purpose("centres").normals(ENTRIES * dimensions.outputs);
    let centres = Matrix::new(centres, dimensions.outputs);
    Ok(Parts { encoder: Checkpoint::random(dimensions, rng_key)?, cmvn: None, centres })
}

/// The tokenizer that a state keeps, to run on a device.
pub(crate) fn kept(
    state: &State,
    prefix: &str,
    heads: usize,
    device: &Device,
) -> Result<LinguisticTokenizer, UnusableWeights> {
    let missing = |error: StateError| UnusableWeights(error.to_string());
    let encoder = Checkpoint::from_tensors(heads, &taken::kept(state, &format!("{prefix}encoder."))?)?;
    let encoder = Encoder::new(encoder.to_device(device)?, Chunking::default())?;
    let channels = encoder.dimensions().outputs;
    let centres = state.f32(&format!("{prefix}centres"), &[None, Some(channels)]).map_err(missing)?;
    let numbers = |name: &str| state.f32(&format!("{prefix}cmvn.{name}"), &[None]).map(<[f32]>::to_vec).ok();
    let cmvn = numbers("shift").zip(numbers("scale")).map(|(shift, scale)| Cmvn { shift, scale });
    LinguisticTokenizer::new(encoder, Stacking::default(), cmvn, Matrix::new(centres.to_vec(), channels))
}
