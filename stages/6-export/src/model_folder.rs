//! The exported model: a folder that holds everything it takes to generate, and nothing else.

use std::path::Path;

use candle_core::Device;
use flowmill_audio::features::{Features, MelConfig};
use flowmill_models::TokenToMel;
use flowmill_models::dual_codebook::{LINGUISTIC_PER_GROUP, SEMANTIC_PER_GROUP};
use flowmill_models::extractors::{self, Extractor, State};
use flowmill_models::flow::{GenerationOptions, GenerationRequest};
use flowmill_nn::random::Draw;
use flowmill_nn::solvers::Solver;
use flowmill_nn::{Context, Parameters, host, low_rank};
use flowmill_stage_train::{Adapted, ModelConfig, SpeakerEmbedding};
use flowmill_train::lora::{ADAPTER_MODEL, read_adapter};
use serde::{Deserialize, Serialize};

use crate::ExportError;
use crate::description::Sampling;

/// The weights.
pub const WEIGHTS: &str = "model.safetensors";
/// The same as a PyTorch state dict.
pub const TORCH_WEIGHTS: &str = "flow.pt";
/// The setting by which a model runs on mels of mean 0 and deviation 1.
pub const NORMALISED: &str = "train.normalise_mel";
/// What the weights belong to; as stage 4 describes it.
pub const CONFIG: &str = "config.json";
pub use flowmill_stage_train::{SPEAKER_EXTRACTOR, TOKEN_EXTRACTOR};

/// `config.json`: the model's family and dimensions, the mel it makes, the embedding it takes.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct ModelDescription {
    /// The family's name in recipes.
    pub family: String,
    /// Its dimensions, the mel's normalisation included.
    pub model: serde_json::Value,
    /// The mel that it makes.
    pub mel: MelDescription,
    /// Whose embedding it was trained with.
    pub speaker_embedding: SpeakerEmbedding,
    /// How it is sampled; older folders do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// The adapters it was trained with, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Adapted>,
}

/// The mel that a model makes.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct MelDescription {
    /// Its settings.
    pub config: MelConfig,
}

/// What a model generated for one utterance.
#[derive(Debug, Clone)]
pub struct Samples {
    /// A log-mel for each sample.
    pub mels: Vec<Features>,
    /// How often the velocity was evaluated for each.
    pub evaluations: Vec<usize>,
}

/// A model ready to generate.
pub struct ExportedModel {
    network: Box<dyn TokenToMel>,
    parameters: Parameters,
    description: ModelDescription,
    /// How it is sampled, where the description says.
    solver: Option<Solver>,
}

impl ExportedModel {
    /// Loads the weights at `weights` for the model that `config` describes, onto a device; every weight must be there, in its shape.
    /// Adapters that are not merged into them are read from the file in the same folder.
    ///
    /// # Errors
    /// [`ExportError::Description`] and [`ExportError::Weights`] name the file; [`ExportError::Device`] when the weights cannot be copied
    /// there.
    pub fn load(config: &Path, weights: &Path, device: &Device) -> Result<Self, ExportError> {
        let describe = |reason: String| ExportError::Description { path: config.to_owned(), reason };
        let text = std::fs::read_to_string(config).map_err(|source| ExportError::file(config, source))?;
        let description: ModelDescription = serde_json::from_str(&text).map_err(|e| describe(e.to_string()))?;
        let model = ModelConfig::described(&description.family, description.model.clone())
            .map_err(|e| describe(format!("model: {e}")))?;
        let (network, mut parameters) = model.build(0).map_err(|e| describe(e.to_string()))?;
        let solver = description.sampling.as_ref().map(Sampling::solver).transpose().map_err(describe)?;
        load_weights(&mut parameters, weights, description.lora.as_ref().filter(|adapted| !adapted.merged))?;
        parameters.to_device(device)?;
        Ok(Self { network, parameters, description, solver })
    }

    /// What the model is.
    pub fn description(&self) -> &ModelDescription {
        &self.description
    }

    /// The mel it makes.
    pub fn mel(&self) -> &MelConfig {
        &self.description.mel.config
    }

    /// How many weights it has.
    pub fn parameter_count(&self) -> usize {
        self.parameters.element_count(true)
    }

    /// Mel frames that the model makes of one unit.
    pub fn frames_per_unit(&self) -> usize {
        self.network.config().token_mel_ratio.max(1)
    }

    /// Frames of the mel per second.
    pub fn mel_rate(&self) -> f64 {
        f64::from(self.mel().sample_rate) / self.mel().hop_length as f64
    }

    /// The speech units that it takes, in words, at the rate that follows from the mel's.
    pub fn units(&self) -> String {
        let rate = self.mel_rate() / self.frames_per_unit() as f64;
        match self.network.config().dual_codebook {
            Some(_) => {
                let linguistic = rate * LINGUISTIC_PER_GROUP as f64 / SEMANTIC_PER_GROUP as f64;
                let (linguistic, semantic) = (hertz(linguistic), hertz(rate));
                format!("speech units of two codebooks ({linguistic} and {semantic}, in one sequence)")
            }
            None => format!("speech units at {}", hertz(rate)),
        }
    }

    /// The published settings of inference, with the solver that the model was exported with.
    pub fn default_options(&self) -> GenerationOptions {
        let mut options = self.network.default_options();
        options.solver = self.solver.unwrap_or(options.solver);
        options
    }

    /// What public inference code does not know of this model, as the settings of a recipe that are to be changed.
    pub fn departures(&self) -> Vec<&'static str> {
        let config = self.network.config();
        let departures = [
            (config.mel_normalisation.is_some(), NORMALISED),
            (config.matching.gaussian_skip.is_some(), "matching.gaussian_skip"),
            (config.direct_mel_kernel > 0, "direct_mel_kernel"),
        ];
        departures.into_iter().filter(|(departs, _)| *departs).map(|(_, setting)| setting).collect()
    }

    /// Whether it is a shallow flow, whose inference has a strength.
    pub fn has_strength(&self) -> bool {
        self.network.strength().is_some()
    }

    /// The ids that the model takes of a column `speech_token`, one or two for each token.
    ///
    /// # Errors
    /// [`ExportError::Generate`] when they are not tokens of this model.
    pub fn token_ids(&self, column: &[i64]) -> Result<Vec<u32>, ExportError> {
        self.network.config().token_ids(column).map_err(|reason| ExportError::Generate { reason })
    }

    /// The first of `ids`, of as many whole tokens as `frames` mel frames have, and their units: the last id of each.
    pub fn within<'a>(&self, ids: &'a [u32], frames: usize) -> (&'a [u32], Vec<i64>) {
        let config = self.network.config();
        let per_token = config.ids_per_token();
        let count = (ids.len() / per_token).min(frames / self.frames_per_unit());
        let ids = &ids[..count * per_token];
        (ids, ids.chunks_exact(per_token).filter_map(|token| token.last()).map(|id| i64::from(*id)).collect())
    }

    /// `samples` log-mels `[frame][bin]` for the ids `tokens` and a speaker, sample `i` from noise keyed by `(draw, i)`.
    ///
    /// # Errors
    /// [`ExportError::Generate`] when tokens or embedding do not fit the model, or the result is not finite.
    pub fn generate(
        &self,
        tokens: &[u32],
        speaker_embedding: &[f32],
        options: &GenerationOptions,
        draw: &Draw,
        samples: usize,
    ) -> Result<Samples, ExportError> {
        let failed = |reason: String| ExportError::Generate { reason };
        let request =
            GenerationRequest { tokens: tokens.to_vec(), speaker_embedding: speaker_embedding.to_vec(), prompt: None };
        let context = Context::inference(&self.parameters);
        let ids: Vec<u64> = (0..samples as u64).collect();
        let requests = vec![request; samples];
        let generated = self.network.generate(&context, &requests, options, draw, &ids);
        let generated = generated.map_err(|e| failed(e.to_string()))?;
        let mels = generated.mels.iter().map(|mel| features(mel).map_err(failed)).collect::<Result<_, _>>()?;
        Ok(Samples { mels, evaluations: generated.evaluations })
    }
}

/// A rate for people, with at most one decimal: `25 Hz`, `16.7 Hz`.
pub fn hertz(rate: f64) -> String {
    format!("{} Hz", (rate * 10.0).round() / 10.0)
}

/// Sets every parameter from the weights at `path`, merged with the adapters in the same folder where `adapters` says that there are some.
fn load_weights(parameters: &mut Parameters, path: &Path, adapters: Option<&Adapted>) -> Result<(), ExportError> {
    let refuse = |reason: String| ExportError::Weights { path: path.to_owned(), reason };
    let file = flowmill_weights::read(path).map_err(|error| refuse(error.about(path)))?;
    let mut tensors = file.tensors;
    if let Some(adapted) = adapters {
        let apart = read_adapter(&path.with_file_name(ADAPTER_MODEL)).map_err(|error| refuse(error.to_string()))?;
        tensors.extend(apart);
        low_rank::merge(&mut tensors, adapted.settings.scale()).map_err(|error| refuse(error.to_string()))?;
    }
    let report = parameters.load(&tensors).map_err(|error| refuse(error.to_string()))?.with_integers(&file.integers);
    if report.is_exact() { Ok(()) } else { Err(refuse(format!("these weights are not for this model: {report}"))) }
}

/// A mel `[frame, bin]` as features; it must be finite.
fn features(mel: &candle_core::Tensor) -> Result<Features, String> {
    let (frames, bins) = mel.dims2().map_err(|e| e.to_string())?;
    let data = host::read(mel).map_err(|e| e.to_string())?;
    if data.iter().any(|value| !value.is_finite()) {
        return Err("the model gave a value that is not finite".to_owned());
    }
    Features::new(data, frames, bins).map_err(|e| e.to_string())
}

/// Loads the fitted extractor kept in `path`, to run on a device.
///
/// # Errors
/// [`ExportError::Extractor`].
pub fn load_extractor(path: &Path, device: &Device) -> Result<Box<dyn Extractor>, ExportError> {
    let state = State::load(path)?;
    Ok(extractors::from_state(&state, device)?)
}
