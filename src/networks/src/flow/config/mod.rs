//! The dimensions and settings of a flow, with those of the published CosyVoice 2 model as defaults.

mod cosyvoice3;
mod estimator;
mod step_audio;

pub use cosyvoice3::CosyVoice3Config;
pub(crate) use estimator::POSITION_GROUPS;
pub use estimator::{DitConfig, EstimatorConfig, RotaryDitConfig, UNetConfig};
pub use step_audio::StepAudioConfig;

use super::{FlowError, Result, TokenError};
use flowmill_extract::dual_codebook::DualCodebook;
use flowmill_nn::solvers::TimeSchedule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Dimensions and settings of the CosyVoice 2 flow; the defaults are the published model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FlowConfig {
    /// Number of speech tokens.
    pub vocab_size: usize,
    /// The two codebooks of each token, if it has two; set by the family.
    #[serde(skip)]
    pub dual_codebook: Option<DualCodebook>,
    /// Channels of the token embedding and of the encoder.
    pub input_size: usize,
    /// Mel bins.
    pub output_size: usize,
    /// Values of a speaker embedding.
    pub spk_embed_dim: usize,
    /// Mel frames per token.
    pub token_mel_ratio: usize,
    /// Tokens that the encoder looks ahead.
    pub pre_lookahead_len: usize,
    /// Channels between the look-ahead convolutions of a flow without conformer, whose token embeddings are mels
    /// already; set by the family.
    #[serde(skip)]
    pub pre_lookahead_channels: Option<usize>,
    /// Width, in tokens, of a linear path from the embeddings (of tokens and speaker) directly to the mel: odd, up to
    /// 63; 0 for none, as in the public model. It learns within a few hundred steps the sound of each unit and the
    /// deviation of each speaker. The encoder, whose projection then starts at zero, adds the effect of context.
    #[serde(skip_serializing_if = "is_zero")]
    pub direct_mel_kernel: usize,
    /// The encoder.
    pub encoder: EncoderConfig,
    /// The estimator of the velocity.
    #[schemars(with = "UNetConfig")]
    pub estimator: EstimatorConfig,
    /// Conditions of the estimator in addition to its state and the encoder's mel, in the order of its input's
    /// channels.
    #[serde(skip_serializing_if = "ConditionsConfig::is_default")]
    pub conditions: ConditionsConfig,
    /// The flow matching objective and its inference.
    pub matching: MatchingConfig,
    /// Mean and deviation of each mel bin, for a flow on normalized mels. Training sets it with
    /// `train.normalise_mel`; the public model has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mel_normalisation: Option<MelNormalization>,
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            vocab_size: 6561,
            dual_codebook: None,
            input_size: 512,
            output_size: 80,
            spk_embed_dim: 192,
            token_mel_ratio: 2,
            pre_lookahead_len: 3,
            pre_lookahead_channels: None,
            direct_mel_kernel: 0,
            encoder: EncoderConfig::default(),
            estimator: EstimatorConfig::default(),
            conditions: ConditionsConfig::default(),
            matching: MatchingConfig::default(),
            mel_normalisation: None,
        }
    }
}

/// Conditions of the estimator in addition to its state and the encoder's mel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConditionsConfig {
    /// The speaker, projected to as many values as there are bins (`spk_embed_affine_layer`), and the prompt's
    /// frames: CosyVoice 2 and Step-Audio.
    #[default]
    ProjectedSpeakerAndPrompt,
    /// The speaker embedding at unit length without projection, and no prompt: the shallow flow of RWKVTTS.
    Speaker,
}

impl ConditionsConfig {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The conformer encoder with upsampling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EncoderConfig {
    /// Number of heads of the self-attention.
    pub attention_heads: usize,
    /// Channels inside the feed-forward blocks.
    pub linear_units: usize,
    /// Number of blocks at the token rate.
    pub num_blocks: usize,
    /// Number of blocks at the frame rate.
    pub num_up_blocks: usize,
    /// Dropout after linear layers.
    pub dropout_rate: f32,
    /// Dropout on the positional encodings and on the values they are added to.
    pub positional_dropout_rate: f32,
    /// Dropout on attention weights.
    pub attention_dropout_rate: f32,
    /// Tokens per chunk of the chunk-causal masks for streaming; 0 for full attention in streaming too.
    pub static_chunk_size: usize,
}

impl Default for EncoderConfig {
    fn default() -> Self {
        Self {
            attention_heads: 8,
            linear_units: 2048,
            num_blocks: 6,
            num_up_blocks: 4,
            dropout_rate: 0.1,
            positional_dropout_rate: 0.1,
            attention_dropout_rate: 0.1,
            static_chunk_size: 25,
        }
    }
}

/// The flow matching objective, its random draws, and the defaults of inference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MatchingConfig {
    /// Deviation that remains at the end of the path.
    pub sigma_min: f32,
    /// Spacing of the steps of inference over time.
    pub t_scheduler: TimeSchedule,
    /// Share of the training items whose conditions (encoder, speaker, prompt) are dropped.
    pub training_cfg_rate: f32,
    /// Strength r of classifier-free guidance at inference: (1 + r) conditional - r unconditional.
    pub inference_cfg_rate: f32,
    /// Share of the training batches with chunk-causal masks.
    pub streaming_rate: f32,
    /// Share of the training items that get a prompt.
    pub prompt_rate: f32,
    /// Longest prompt as a share of the item's frames.
    pub prompt_fraction: f32,
    /// Weight of the prior loss, the mean squared error of the encoder's mel against the real one (Grad-TTS); 0 in
    /// the public model. It trains the encoder in few steps and helps small models learn in minutes.
    pub prior_weight: f32,
    /// Deviation s of the mel around the encoder's, in the units the flow runs on. The estimator then only corrects
    /// the exact velocity of a Gaussian with that mean and deviation (preconditioning, as in EDM). Items without
    /// conditions get a Gaussian with mean 0 and deviation 1, as normalized mels have. It helps small models learn in
    /// minutes; the public model has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gaussian_skip: Option<f32>,
}

impl Default for MatchingConfig {
    fn default() -> Self {
        Self {
            sigma_min: 1e-6,
            t_scheduler: TimeSchedule::Cosine,
            training_cfg_rate: 0.2,
            inference_cfg_rate: 0.7,
            streaming_rate: 0.5,
            prompt_rate: 0.5,
            prompt_fraction: 0.3,
            prior_weight: 0.0,
            gaussian_skip: None,
        }
    }
}

/// Mean and deviation of each mel bin over a training corpus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MelNormalization {
    /// Mean of each bin.
    pub mean: Vec<f32>,
    /// Standard deviation of each bin.
    pub deviation: Vec<f32>,
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

impl FlowConfig {
    /// Returns the number of ids per token: two with two codebooks.
    pub fn ids_per_token(&self) -> usize {
        if self.dual_codebook.is_some() { 2 } else { 1 }
    }

    /// Returns the model's ids ([`ids_per_token`](Self::ids_per_token) for each token) for a column `speech_token`:
    /// the column itself, or the paired frames of a mixed sequence.
    ///
    /// # Errors
    /// The first id that is not in the vocabulary.
    pub fn token_ids(&self, column: &[i64]) -> std::result::Result<Vec<u32>, TokenError> {
        if let Some(codebook) = &self.dual_codebook {
            let frames = codebook.frames(column)?;
            return Ok(frames.into_flattened());
        }
        let vocabulary = self.vocab_size;
        let check = |&token: &i64| {
            let id = u32::try_from(token).ok().filter(|&id| (id as usize) < vocabulary);
            id.ok_or(TokenError::Vocabulary { token, vocabulary })
        };
        column.iter().map(check).collect()
    }

    /// Checks that the settings are consistent.
    ///
    /// # Errors
    /// [`FlowError::Config`] names the first wrong setting.
    pub fn check(&self) -> Result<()> {
        let refuse = |field, message: String| Err(FlowError::Config { field, message });
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("input_size", self.input_size),
            ("output_size", self.output_size),
            ("spk_embed_dim", self.spk_embed_dim),
            ("token_mel_ratio", self.token_mel_ratio),
        ];
        check_sizes(&sizes)?;
        self.check_conditions()?;
        self.estimator.check()?;
        self.check_codebooks()?;
        self.check_encoder()?;
        if self.direct_mel_kernel > 0 && (self.direct_mel_kernel.is_multiple_of(2) || self.direct_mel_kernel > 63) {
            return refuse("direct_mel_kernel", format!("{} is neither 0 nor odd up to 63", self.direct_mel_kernel));
        }
        self.check_rates()?;
        self.check_prior()?;
        self.check_normalization()
    }

    /// Returns the number of channels of the estimator's input: state, encoder's mel, conditions.
    pub fn estimator_channels(&self) -> usize {
        match self.conditions {
            ConditionsConfig::ProjectedSpeakerAndPrompt => 4 * self.output_size,
            ConditionsConfig::Speaker => (2 * self.output_size).saturating_add(self.spk_embed_dim),
        }
    }

    /// Checks the sizes of the network from embeddings to frames.
    fn check_encoder(&self) -> Result<()> {
        let refuse = |message: String| Err(FlowError::Config { field: "input_size", message });
        if let Some(channels) = self.pre_lookahead_channels {
            check_sizes(&[("pre_lookahead_channels", channels)])?;
            if self.input_size != self.output_size {
                let (found, bins) = (self.input_size, self.output_size);
                return refuse(format!("{found} must be output_size, {bins}: embeddings of tokens are mels"));
            }
            return Ok(());
        }
        let EncoderConfig { attention_heads: heads, linear_units, static_chunk_size, .. } = self.encoder;
        check_sizes(&[
            ("encoder.attention_heads", heads),
            ("encoder.linear_units", linear_units),
            ("encoder.static_chunk_size", static_chunk_size.max(1)),
        ])?;
        // Positions are encoded in pairs of a sine and a cosine.
        if !self.input_size.is_multiple_of(2) || !self.input_size.is_multiple_of(heads) {
            return refuse(format!("{} is not even and divisible by {heads} heads", self.input_size));
        }
        Ok(())
    }

    /// Checks the number of channels of the estimator's input, which the encoding of the time must be able to have.
    fn check_conditions(&self) -> Result<()> {
        if self.estimator_channels().is_multiple_of(2) {
            return Ok(());
        }
        let message = format!(
            "{} is odd: next to two mels the time encoding of the estimator needs an even number",
            self.spk_embed_dim
        );
        Err(FlowError::Config { field: "spk_embed_dim", message })
    }

    /// Checks that the vocabulary is exactly both codebooks and the padding.
    fn check_codebooks(&self) -> Result<()> {
        let Some(codebook) = self.dual_codebook else { return Ok(()) };
        let DualCodebook { linguistic, semantic } = codebook;
        check_sizes(&[("vq02_size", linguistic), ("vq06_size", semantic)])?;
        let refuse = |field, message: String| Err(FlowError::Config { field, message });
        if !self.input_size.is_multiple_of(2) {
            return refuse("input_size", format!("{} cannot be halved between two codebooks", self.input_size));
        }
        let (found, wanted) = (self.vocab_size, codebook.frame_vocabulary());
        if found == wanted {
            return Ok(());
        }
        let sum = format!("{linguistic} of codebook 02, the padding and {semantic} of codebook 06 make {wanted}");
        let clipped = semantic - found.saturating_sub(linguistic + 1).min(semantic);
        let clip = match clipped {
            0 => String::new(),
            entries => format!("; {entries} entries of codebook 06 would be clipped"),
        };
        refuse("vocab_size", format!("is {found}, but {sum}{clip}"))
    }

    fn check_prior(&self) -> Result<()> {
        let matching = &self.matching;
        let refuse = |field, message: String| Err(FlowError::Config { field, message });
        if !(0.0..=1e3).contains(&matching.prior_weight) {
            return refuse("matching.prior_weight", format!("{} is not in [0, 1000]", matching.prior_weight));
        }
        let Some(deviation) = matching.gaussian_skip else { return Ok(()) };
        if !(1e-2..=1e2).contains(&deviation) {
            return refuse("matching.gaussian_skip", format!("{deviation} is not in [0.01, 100]"));
        }
        Ok(())
    }

    fn check_rates(&self) -> Result<()> {
        let MatchingConfig { training_cfg_rate, streaming_rate, prompt_rate, prompt_fraction, sigma_min, .. } =
            self.matching;
        let shares = [
            ("matching.training_cfg_rate", training_cfg_rate),
            ("matching.streaming_rate", streaming_rate),
            ("matching.prompt_rate", prompt_rate),
            ("matching.prompt_fraction", prompt_fraction),
            ("matching.sigma_min", sigma_min),
        ];
        let drops = [
            ("encoder.dropout_rate", self.encoder.dropout_rate),
            ("encoder.positional_dropout_rate", self.encoder.positional_dropout_rate),
            ("encoder.attention_dropout_rate", self.encoder.attention_dropout_rate),
            ("estimator.dropout", self.estimator.dropout()),
        ];
        for (field, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return Err(FlowError::Config { field, message: format!("{share} is not in [0, 1]") });
            }
        }
        for (field, rate) in drops {
            if !(0.0..1.0).contains(&rate) {
                return Err(FlowError::Config { field, message: format!("{rate} is not in [0, 1)") });
            }
        }
        Ok(())
    }

    fn check_normalization(&self) -> Result<()> {
        let Some(MelNormalization { mean, deviation }) = &self.mel_normalisation else { return Ok(()) };
        let bins = self.output_size;
        let sound = mean.len() == bins
            && deviation.len() == bins
            && mean.iter().all(|mean| mean.is_finite())
            && deviation.iter().all(|deviation| deviation.is_finite() && *deviation > 0.0);
        if sound {
            return Ok(());
        }
        let message = format!("mean and deviation need {bins} finite values each, deviations above 0");
        Err(FlowError::Config { field: "mel_normalisation", message })
    }
}

/// Checks that sizes are within the limits of any network.
fn check_sizes(sizes: &[(&'static str, usize)]) -> Result<()> {
    match sizes.iter().find(|(_, size)| !(1..=1 << 24).contains(size)) {
        None => Ok(()),
        Some(&(field, size)) => Err(FlowError::Config { field, message: format!("{size} is not in 1..=16777216") }),
    }
}

impl MelNormalization {
    /// Normalizes mels to the scale of the flow: `(x - mean) / deviation` for rows of bins.
    pub fn apply(&self, mel: &mut [f32]) {
        for row in mel.chunks_exact_mut(self.mean.len().max(1)) {
            for ((x, mean), deviation) in row.iter_mut().zip(&self.mean).zip(&self.deviation) {
                *x = (*x - mean) / deviation;
            }
        }
    }

    /// Undoes [`apply`](Self::apply).
    pub fn invert(&self, mel: &mut [f32]) {
        for row in mel.chunks_exact_mut(self.mean.len().max(1)) {
            for ((x, mean), deviation) in row.iter_mut().zip(&self.mean).zip(&self.deviation) {
                *x = *x * deviation + mean;
            }
        }
    }
}
