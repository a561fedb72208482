//! The settings of a CosyVoice 3 flow, with the names of recipes and files.

use super::{EncoderConfig, EstimatorConfig, FlowConfig, MatchingConfig, MelNormalization, RotaryDitConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Dimensions and settings of the CosyVoice 3 flow; the defaults are the published model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CosyVoice3Config {
    /// Number of speech tokens.
    pub vocab_size: usize,
    /// Channels of the token embedding, which are those of the mel: `output_size`.
    pub input_size: usize,
    /// Mel bins.
    pub output_size: usize,
    /// Values of a speaker embedding.
    pub spk_embed_dim: usize,
    /// Mel frames per token.
    pub token_mel_ratio: usize,
    /// Tokens that the look-ahead convolutions see ahead.
    pub pre_lookahead_len: usize,
    /// Channels between the two look-ahead convolutions.
    pub pre_lookahead_channels: usize,
    /// The estimator of the velocity.
    pub estimator: RotaryDitConfig,
    /// The flow matching objective and its inference.
    pub matching: MatchingConfig,
    /// Mean and deviation of each mel bin, for a flow on normalized mels. Training sets it with
    /// `train.normalise_mel`; the public model has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mel_normalisation: Option<MelNormalization>,
}

impl Default for CosyVoice3Config {
    fn default() -> Self {
        let flow = FlowConfig::default();
        Self {
            vocab_size: flow.vocab_size,
            input_size: flow.output_size,
            output_size: flow.output_size,
            spk_embed_dim: flow.spk_embed_dim,
            token_mel_ratio: flow.token_mel_ratio,
            pre_lookahead_len: flow.pre_lookahead_len,
            pre_lookahead_channels: 1024,
            estimator: RotaryDitConfig::default(),
            matching: flow.matching,
            mel_normalisation: None,
        }
    }
}

impl From<&CosyVoice3Config> for FlowConfig {
    fn from(config: &CosyVoice3Config) -> Self {
        Self {
            vocab_size: config.vocab_size,
            input_size: config.input_size,
            output_size: config.output_size,
            spk_embed_dim: config.spk_embed_dim,
            token_mel_ratio: config.token_mel_ratio,
            pre_lookahead_len: config.pre_lookahead_len,
            pre_lookahead_channels: Some(config.pre_lookahead_channels),
            // There is no conformer.
            encoder: EncoderConfig::default(),
            estimator: EstimatorConfig::RotaryDit(config.estimator.clone()),
            matching: config.matching.clone(),
            mel_normalisation: config.mel_normalisation.clone(),
            ..Self::default()
        }
    }
}
