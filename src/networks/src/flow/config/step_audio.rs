//! The settings of a Step-Audio flow, with the names of recipes and files.

use super::{
    ConditionsConfig, DitConfig, EncoderConfig, EstimatorConfig, FlowConfig, MatchingConfig, MelNormalization, is_zero,
};
use flowmill_extract::dual_codebook::DualCodebook;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Dimensions and settings of the Step-Audio flow; the defaults are the published model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StepAudioConfig {
    /// Number of entries of the coarse (linguistic) codebook.
    pub vq02_size: usize,
    /// Number of entries of the fine (semantic) codebook.
    pub vq06_size: usize,
    /// Number of rows of the token embedding: both codebooks and the padding between them.
    pub vocab_size: usize,
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
    /// Width, in tokens, of a linear path from the embeddings directly to the mel, as in `cosyvoice2-flow`; 0 for
    /// none, as in the public model.
    #[serde(skip_serializing_if = "is_zero")]
    pub direct_mel_kernel: usize,
    /// The encoder.
    pub encoder: EncoderConfig,
    /// The estimator of the velocity.
    pub estimator: DitConfig,
    /// The flow matching objective and its inference.
    pub matching: MatchingConfig,
    /// Mean and deviation of each mel bin, for a flow on normalized mels. Training sets it with
    /// `train.normalise_mel`; the public model has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mel_normalisation: Option<MelNormalization>,
}

impl Default for StepAudioConfig {
    fn default() -> Self {
        let (codebook, flow) = (DualCodebook::default(), FlowConfig::default());
        Self {
            vq02_size: codebook.linguistic,
            vq06_size: codebook.semantic,
            vocab_size: codebook.frame_vocabulary(),
            input_size: flow.input_size,
            output_size: flow.output_size,
            spk_embed_dim: flow.spk_embed_dim,
            token_mel_ratio: flow.token_mel_ratio,
            pre_lookahead_len: flow.pre_lookahead_len,
            direct_mel_kernel: flow.direct_mel_kernel,
            encoder: flow.encoder,
            estimator: DitConfig::default(),
            matching: flow.matching,
            mel_normalisation: None,
        }
    }
}

impl From<&StepAudioConfig> for FlowConfig {
    fn from(config: &StepAudioConfig) -> Self {
        Self {
            vocab_size: config.vocab_size,
            dual_codebook: Some(DualCodebook { linguistic: config.vq02_size, semantic: config.vq06_size }),
            input_size: config.input_size,
            output_size: config.output_size,
            spk_embed_dim: config.spk_embed_dim,
            token_mel_ratio: config.token_mel_ratio,
            pre_lookahead_len: config.pre_lookahead_len,
            pre_lookahead_channels: None,
            direct_mel_kernel: config.direct_mel_kernel,
            encoder: config.encoder.clone(),
            estimator: EstimatorConfig::Dit(config.estimator.clone()),
            conditions: ConditionsConfig::default(),
            matching: config.matching.clone(),
            mel_normalisation: config.mel_normalisation.clone(),
        }
    }
}
