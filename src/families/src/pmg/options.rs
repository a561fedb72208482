//! The options of the family in the sections `train` and `export`, and the description of a model.

use flowmill_family::KeyError;
use flowmill_networks::llama::LlamaFileConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::stable_diffusion::Sampling;

/// The word for a small language model whose weights follow from a seed.
pub const TINY: &str = "tiny";

/// A language model without a folder: a transformer with random weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TinyLlama {
    /// Channels of the residual stream.
    pub hidden_size: usize,
    /// Channels inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Number of tokens.
    pub vocab_size: usize,
    /// The seed of the weights.
    pub seed: u64,
}

impl Default for TinyLlama {
    fn default() -> Self {
        Self {
            hidden_size: 128,
            intermediate_size: 256,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            vocab_size: 1024,
            seed: 0,
        }
    }
}

impl TinyLlama {
    /// Returns the settings in the form of a published model.
    pub fn file_config(&self) -> LlamaFileConfig {
        LlamaFileConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: None,
            head_dim: None,
            vocab_size: self.vocab_size,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: None,
            hidden_act: "silu".to_owned(),
            max_position_embeddings: 2048,
            tie_word_embeddings: false,
            attention_bias: false,
        }
    }
}

/// Options in the section `train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// The folder of the frozen language model, or `tiny` for one of random weights.
    ///
    /// Counterparts: PMG's `model.llama`.
    pub llama: String,
    /// The settings of the language model `tiny`.
    pub tiny: TinyLlama,
    /// The frozen diffusion model: a folder as the package diffusers writes it, or a single `.safetensors` file of Stable Diffusion 1.x.
    /// Settings and tokenizer are read from the folders next to a single file, where they exist.
    ///
    /// Counterparts: PMG's `model.stable_diffusion`.
    pub stable_diffusion: String,
    /// The folder of a CLIP, for scores.
    ///
    /// Counterparts: PMG's `model.clip`.
    pub clip: Option<String>,
    /// The weights of LPIPS (AlexNet), for scores.
    pub lpips: Option<String>,
    /// Number of noise levels per user and step.
    pub draws_per_user: usize,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            llama: "Llama-2-7b-chat-hf".to_owned(),
            tiny: TinyLlama::default(),
            stable_diffusion: "stable-diffusion-v1-5".to_owned(),
            clip: None,
            lpips: None,
            draws_per_user: 1,
        }
    }
}

impl TrainOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// Returns the first invalid key.
    pub fn check(&self) -> Result<(), KeyError> {
        if !(1..=256).contains(&self.draws_per_user) {
            return Err(KeyError::new("train.draws_per_user", "not between 1 and 256"));
        }
        if self.llama == TINY {
            self.tiny.file_config().network().map_err(|error| KeyError::new("train.tiny", error.to_string()))?;
        }
        Ok(())
    }
}

/// Options in the section `export`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExportOptions {
    /// Sampling of images. It is also the default of `imagine`.
    pub images: Sampling,
    /// A description of what images should not be; guidance moves away from it.
    ///
    /// Counterparts: PMG's `inference.negative_prompt`.
    pub negative_prompt: String,
    /// Number of noise levels per user of the error of the predicted noise.
    pub noise_draws: usize,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { images: Sampling::default(), negative_prompt: String::new(), noise_draws: 16 }
    }
}

impl ExportOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// Returns the first invalid key.
    pub fn check(&self) -> Result<(), KeyError> {
        if !(1..=4096).contains(&self.noise_draws) {
            return Err(KeyError::new("export.noise_draws", "not between 1 and 4096"));
        }
        self.images.check().map_err(|(key, reason)| KeyError::new(format!("export.images.{key}"), reason))
    }
}

/// The family's part of a model's description.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// The settings of use.
    #[serde(default)]
    pub sampling: Use,
}

/// The settings of the use of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Use {
    /// Those of sampling.
    pub images: Sampling,
    /// The description of what images should not be.
    pub negative_prompt: String,
}
