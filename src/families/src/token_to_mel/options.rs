//! The options of the token-to-mel flows in the sections `train` and `export`, and of `flowmill synth`.

use std::path::PathBuf;

use flowmill_corpus::ColumnSpec;
use flowmill_corpus::shard::speech;
use flowmill_family::KeyError;
use flowmill_networks::vocoders::VocoderKind;
use flowmill_nn::solvers::{Method, Solver, Tolerances};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Options in the section `train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// The speaker embedding.
    ///
    /// Counterparts: `use_spk_embedding`: `False` (CosyVoice and Step-Audio in training) is `utterance`, `True`
    /// (their fine-tuning on one speaker) is `speaker`.
    pub speaker_embedding: SpeakerEmbedding,
    /// Initial values of the embedding of the speech tokens.
    pub token_embedding: TokenEmbedding,
    /// Normalizes mels to mean 0 and deviation 1 per bin, by the statistics of the training split. The exported
    /// `flow.pt` then outputs normalized mels. `synth` denormalizes them, but public inference code does not: set
    /// `false` for weights that public code will use. It has no effect if `model.mel_normalisation` is set.
    pub normalise_mel: bool,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            speaker_embedding: SpeakerEmbedding::default(),
            token_embedding: TokenEmbedding::default(),
            normalise_mel: true,
        }
    }
}

/// The speaker embedding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SpeakerEmbedding {
    /// The embedding of the utterance, as in the training of the public models.
    #[default]
    Utterance,
    /// The mean over the speaker's utterances.
    Speaker,
}

impl SpeakerEmbedding {
    /// Returns the column that contains it.
    pub fn spec(self) -> ColumnSpec {
        match self {
            Self::Utterance => speech::utt_embedding(),
            Self::Speaker => speech::spk_embedding(),
        }
    }

    /// Returns the name of that column.
    pub fn column(self) -> &'static str {
        match self {
            Self::Utterance => speech::UTT_EMBEDDING,
            Self::Speaker => speech::SPK_EMBEDDING,
        }
    }
}

/// Initial values of the embedding of the speech tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenEmbedding {
    /// Random vectors, as in the public models.
    #[default]
    Random,
    /// The centers of stage 2's k-means codebook, standardized and projected at random, so that similar units start
    /// with similar vectors.
    Codebook,
}

/// Options in the section `export`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExportOptions {
    /// Number of samples of each utterance, at least 2; their mean estimates the conditional mean mel.
    pub samples: usize,
    /// Solver of the flow's differential equation. Its evaluations of the velocity are counted. It is also the
    /// default of `synth`.
    pub solver: Method,
    /// Number of steps of `euler`.
    pub n_timesteps: usize,
    /// Accuracy of `dopri5`, and the limit at which it gives up.
    pub tolerances: Tolerances,
    /// Strength alpha of a shallow flow; by default that of the model. Other families have none.
    pub sfm_strength: Option<f32>,
    /// Strength r of classifier-free guidance: (1 + r) conditional - r unconditional.
    pub inference_cfg_rate: f64,
    /// Number of iterations of the vocoder (fast Griffin-Lim).
    pub vocoder_iterations: usize,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            samples: 8,
            solver: Method::Euler,
            n_timesteps: 10,
            tolerances: Tolerances::default(),
            sfm_strength: None,
            inference_cfg_rate: 0.7,
            vocoder_iterations: VOCODER_ITERATIONS,
        }
    }
}

/// The default number of iterations of the vocoder.
pub const VOCODER_ITERATIONS: usize = 60;

impl ExportOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// Returns the first invalid key.
    pub fn check(&self) -> Result<(), KeyError> {
        let wrong = |key: &str, reason: String| Err(KeyError::new(format!("export.{key}"), format!("{key} {reason}")));
        for (key, value, least) in [
            ("samples", self.samples, 2),
            ("n_timesteps", self.n_timesteps, 1),
            ("vocoder_iterations", self.vocoder_iterations, 1),
        ] {
            if value < least {
                return wrong(key, format!("is {value}; it must be at least {least}"));
            }
        }
        if let Err(error) = self.tolerances.check() {
            return wrong("tolerances", error.to_string());
        }
        if self.sfm_strength.is_some_and(|strength| !(strength > 0.0 && strength <= 100.0)) {
            return wrong("sfm_strength", "must be above 0 and at most 100".to_owned());
        }
        if !self.inference_cfg_rate.is_finite() || self.inference_cfg_rate < 0.0 {
            return wrong("inference_cfg_rate", format!("is {}; it must be 0 or more", self.inference_cfg_rate));
        }
        Ok(())
    }

    /// Returns the solver with these options.
    pub fn solver(&self) -> Solver {
        Solver { method: self.solver, steps: self.n_timesteps, tolerances: self.tolerances }
    }
}

/// Default settings of sampling, which are those of the model's scores.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Sampling {
    /// Solver of the flow's ODE.
    pub solver: Method,
    /// Number of Euler steps.
    pub n_timesteps: usize,
    /// Error tolerance of `dopri5`.
    pub tolerances: Tolerances,
}

impl Sampling {
    /// Returns the settings of a solver.
    pub fn of(solver: Solver) -> Self {
        Self { solver: solver.method, n_timesteps: solver.steps, tolerances: solver.tolerances }
    }

    /// Returns the solver with these settings.
    ///
    /// # Errors
    /// Returns an error for invalid steps or tolerances.
    pub fn solver(&self) -> Result<Solver, String> {
        if self.n_timesteps == 0 {
            return Err("sampling.n_timesteps: is 0; it must be at least 1".to_owned());
        }
        self.tolerances.check().map_err(|error| format!("sampling.tolerances: {error}"))?;
        Ok(Solver { method: self.solver, steps: self.n_timesteps, tolerances: self.tolerances })
    }
}

/// Options of `flowmill synth`; null means the model's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SynthOptions {
    /// Solver of the flow's ODE; Euler's method if steps are given.
    pub solver: Option<Method>,
    /// Number of Euler steps.
    pub steps: Option<usize>,
    /// Strength of a shallow flow.
    pub strength: Option<f32>,
    /// Strength of classifier-free guidance.
    pub guidance: Option<f32>,
    /// True to generate chunk by chunk, as if the units were still arriving.
    pub streaming: bool,
    /// Number of iterations of the vocoder.
    pub vocoder_iterations: Option<usize>,
    /// A neural vocoder instead of Griffin-Lim.
    pub vocoder: Option<VocoderOptions>,
    /// Longest part that is generated at once, in seconds.
    pub window: Option<f64>,
}

/// A neural vocoder and its files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VocoderOptions {
    /// The network.
    pub kind: VocoderKind,
    /// Its public weights.
    pub weights: PathBuf,
    /// Its public configuration; null for that of the published models.
    #[serde(default)]
    pub config: Value,
}
