//! An exported token-to-mel model, ready to generate.

use flowmill_audio::features::{Features, MelConfig};
use flowmill_corpus::Row;
use flowmill_corpus::extracted::{LINGUISTIC_TOKEN, SEMANTIC_TOKEN};
use flowmill_corpus::shard::speech::SPEECH_TOKEN;
use flowmill_extract::extractors::import::{mixed_sequence, mixed_streams};
use flowmill_family::{BoxError, Loaded};
use flowmill_networks::flow::{FlowConfig, GenerationOptions, GenerationRequest};
use flowmill_networks::{TokenToMel, Windows, generate_in_windows};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, host};

use super::error::UseError;
use super::{Kind, SpeakerEmbedding, TokenToMelFamily};

/// Samples that a model generated for one utterance.
#[derive(Debug, Clone)]
pub struct Samples {
    /// A log-mel for each sample.
    pub mels: Vec<Features>,
    /// Number of velocity evaluations for each.
    pub evaluations: Vec<usize>,
}

/// A model ready to generate.
pub struct ExportedModel {
    network: Box<dyn TokenToMel>,
    parameters: Parameters,
    /// The definition of its mel.
    pub mel: MelConfig,
    /// The speaker embedding that it was trained with.
    pub speaker_embedding: SpeakerEmbedding,
    /// The published options of inference, with the solver that the model was exported with.
    pub options: GenerationOptions,
}

impl ExportedModel {
    /// Creates a model from a loaded one.
    ///
    /// # Errors
    /// Returns an error if its description has an invalid solver.
    pub fn new<K: Kind>(loaded: Loaded<TokenToMelFamily<K>>) -> Result<Self, BoxError> {
        let Loaded { description, model, parameters, .. } = loaded;
        let mut options = model.0.default_options();
        if let Some(sampling) = &description.sampling {
            options.solver = sampling.solver()?;
        }
        let (mel, speaker_embedding) = (description.mel.config, description.speaker_embedding);
        Ok(Self { network: model.0, parameters, mel, speaker_embedding, options })
    }

    fn config(&self) -> &FlowConfig {
        TokenToMel::config(self.network.as_ref())
    }

    /// Returns the number of mel frames that the model makes for one unit.
    pub fn frames_per_unit(&self) -> usize {
        self.config().token_mel_ratio.max(1)
    }

    /// Returns whether it is a shallow flow, whose inference has a strength.
    pub fn has_strength(&self) -> bool {
        self.network.strength().is_some()
    }

    /// Returns the model's ids for a column `speech_token`, one or two for each token.
    ///
    /// # Errors
    /// [`UseError::Request`] if they are not tokens of this model.
    pub fn token_ids(&self, column: &[i64]) -> Result<Vec<u32>, UseError> {
        self.config().token_ids(column).map_err(|error| UseError::Request { reason: error.to_string() })
    }

    /// Returns the first of `ids`, as many whole tokens as `frames` mel frames have, and their units: the last id of
    /// each token.
    pub fn within<'a>(&self, ids: &'a [u32], frames: usize) -> (&'a [u32], Vec<u32>) {
        let per_token = self.config().ids_per_token();
        let count = (ids.len() / per_token).min(frames / self.frames_per_unit());
        let ids = &ids[..count * per_token];
        (ids, ids.chunks_exact(per_token).filter_map(|token| token.last()).copied().collect())
    }

    /// Checks that the model can generate chunk by chunk.
    ///
    /// # Errors
    /// Returns the reason why it cannot.
    pub fn check_streaming(&self) -> Result<(), String> {
        if self.has_strength() {
            return Err("a shallow flow chooses its start by the whole utterance".to_owned());
        }
        if self.config().estimator.static_chunk_size() == 0 {
            return Err("the model has no chunks (train.model.estimator.static_chunk_size is 0)".to_owned());
        }
        Ok(())
    }

    /// Generates a log-mel for the ids `tokens` and a speaker chunk by chunk, as if the tokens were still arriving.
    /// Every chunk is generated from the tokens before its end and those that the encoder looks ahead at, with
    /// chunk-causal masks and the same noise, and its own frames are kept.
    ///
    /// # Errors
    /// See [`generate`](Self::generate).
    pub fn stream(
        &self,
        tokens: &[u32],
        speaker_embedding: &[f32],
        options: &GenerationOptions,
        rng_key: &RngKey,
    ) -> Result<Samples, UseError> {
        let (per_token, ratio) = (self.config().ids_per_token(), self.frames_per_unit());
        let chunk = (self.config().estimator.static_chunk_size() / ratio).max(1);
        let total = tokens.len() / per_token;
        let (mut data, mut evaluations) = (Vec::new(), 0);
        for start in (0..total).step_by(chunk) {
            let arrived = start + chunk + self.config().pre_lookahead_len;
            let unfinished = arrived < total;
            let given = &tokens[..arrived.min(total) * per_token];
            let options = GenerationOptions { streaming: true, unfinished, ..*options };
            let made = self.generate(given, speaker_embedding, &options, rng_key, 1)?;
            evaluations += made.evaluations.iter().sum::<usize>();
            let made = made.mels.iter().flat_map(|mel| mel.data.get(start * ratio * mel.bins..).unwrap_or_default());
            data.extend(made);
            if !unfinished {
                break;
            }
        }
        let bins = self.config().output_size;
        let mel = Features::new(data, total * ratio, bins).map_err(|e| UseError::Generate { reason: e.to_string() })?;
        Ok(Samples { mels: vec![mel], evaluations: vec![evaluations] })
    }

    /// Generates `samples` log-mels `[frame][bin]` for the ids `tokens` and a speaker. Sample `i` uses noise keyed by
    /// `(draw, i)`.
    ///
    /// # Errors
    /// [`UseError::Generate`] if tokens or embedding do not match the model, or the result is not finite.
    pub fn generate(
        &self,
        tokens: &[u32],
        speaker_embedding: &[f32],
        options: &GenerationOptions,
        rng_key: &RngKey,
        samples: usize,
    ) -> Result<Samples, UseError> {
        let failed = |reason: String| UseError::Generate { reason };
        let request =
            GenerationRequest { tokens: tokens.to_vec(), speaker_embedding: speaker_embedding.to_vec(), prompt: None };
        let context = Context::inference(&self.parameters);
        let ids: Vec<u64> = (0..samples as u64).collect();
        let requests = vec![request; samples];
        let generated = self.network.generate(&context, &requests, options, rng_key, &ids);
        let generated = generated.map_err(|e| failed(e.to_string()))?;
        let mels = generated.mels.iter().map(|mel| features(mel).map_err(failed)).collect::<Result<_, _>>()?;
        Ok(Samples { mels, evaluations: generated.evaluations })
    }
}

/// A part of a long mel.
pub struct Part {
    /// The log-mel `[frame][bin]`.
    pub mel: Features,
    /// Number of velocity evaluations.
    pub evaluations: usize,
    /// True for the last part.
    pub is_last: bool,
}

/// The end of a window that the next one continues, in seconds.
const CONTEXT: f64 = 3.0;
/// The part of the next window that a window sees, in seconds.
const LOOKAHEAD: f64 = 1.0;

impl ExportedModel {
    /// Returns the number of tokens per second.
    pub fn token_rate(&self) -> f64 {
        f64::from(self.mel.sample_rate) / self.mel.hop_length as f64 / self.frames_per_unit() as f64
    }

    /// Generates a log-mel like [`generate`](Self::generate), in windows of at most this many seconds, and passes each to `take`. A mel of one
    /// window is that of [`generate`](Self::generate).
    ///
    /// # Errors
    /// [`UseError::Generate`] if tokens or embedding do not match the model, or the result is not finite; those of `take`.
    pub fn generate_in_windows(
        &self,
        tokens: &[u32],
        speaker_embedding: &[f32],
        options: &GenerationOptions,
        rng_key: &RngKey,
        seconds: f64,
        mut take: impl FnMut(Part) -> Result<(), UseError>,
    ) -> Result<(), UseError> {
        let count = |seconds: f64| (seconds * self.token_rate()).round() as usize;
        let windows = Windows { length: count(seconds).max(1), context: count(CONTEXT), lookahead: count(LOOKAHEAD) };
        let (tokens, speaker_embedding) = (tokens.to_vec(), speaker_embedding.to_vec());
        let request = GenerationRequest { tokens, speaker_embedding, prompt: None };
        let (context, bins) = (Context::inference(&self.parameters), self.config().output_size);
        let network = self.network.as_ref();
        generate_in_windows(network, &context, &request, options, rng_key, &windows, |window| {
            if window.mel.iter().any(|value| !value.is_finite()) {
                return Err(UseError::Generate { reason: NOT_FINITE.to_owned() });
            }
            let mel = Features::new(window.mel, window.frames.len(), bins)?;
            take(Part { mel, evaluations: window.evaluations, is_last: window.is_last })
        })
    }

    /// Returns the column `speech_token` of a row, in the form of this model: of two codebooks the mixed sequence, also where the row has their
    /// streams or ids of a language model's vocabulary.
    ///
    /// # Errors
    /// [`UseError::Request`] if the row has no tokens of this model; [`UseError::Column`].
    pub fn speech_tokens(&self, row: &Row) -> Result<Vec<i64>, UseError> {
        let failed = |reason: String| UseError::Request { reason };
        let has = |name: &str| row.columns.contains_key(name);
        let column = |name: &str| Ok::<_, UseError>(row.values::<i64>(name)?.to_vec());
        match self.config().dual_codebook {
            Some(codebook) if has(SPEECH_TOKEN) => mixed_sequence(column(SPEECH_TOKEN)?, codebook).map_err(failed),
            Some(codebook) => {
                let (linguistic, semantic) = (column(LINGUISTIC_TOKEN)?, column(SEMANTIC_TOKEN)?);
                let mixed = mixed_streams(linguistic, semantic, codebook).map_err(failed)?;
                match mixed.is_empty() {
                    true => Err(failed(
                        "the streams of two codebooks are shorter than a group of 2 and 3 tokens".to_owned(),
                    )),
                    false => Ok(mixed),
                }
            }
            None if has(LINGUISTIC_TOKEN) && !has(SPEECH_TOKEN) => {
                Err(failed("these are tokens of two codebooks, but the model reads those of one".to_owned()))
            }
            None => column(SPEECH_TOKEN),
        }
    }

    /// Returns the row's speaker embedding of the kind that the model was trained with, if the row has one.
    pub fn speaker_of<'a>(&self, row: &'a Row) -> Option<&'a [f32]> {
        row.values::<f32>(self.speaker_embedding.column()).ok()
    }

    /// Checks the length of a speaker embedding.
    ///
    /// # Errors
    /// [`UseError::Request`].
    pub fn check_speaker(&self, embedding: &[f32]) -> Result<(), UseError> {
        let (found, wanted) = (embedding.len(), self.config().spk_embed_dim);
        if found == wanted {
            return Ok(());
        }
        let reason = format!("the speaker embedding has {found} values, but the model reads {wanted}");
        Err(UseError::Request { reason })
    }
}

const NOT_FINITE: &str = "the model output a value that is not finite";

/// Converts a mel `[frame, bin]` to features; it must be finite.
pub(super) fn features(mel: &candle_core::Tensor) -> Result<Features, String> {
    let (frames, bins) = mel.dims2().map_err(|e| e.to_string())?;
    let data = host::read(mel).map_err(|e| e.to_string())?;
    if data.iter().any(|value| !value.is_finite()) {
        return Err(NOT_FINITE.to_owned());
    }
    Features::new(data, frames, bins).map_err(|e| e.to_string())
}
