//! The settings of a published LLaMA, `config.json` of its Hugging Face folder.

use super::{LlamaConfig, LlamaError};
use flowmill_nn::Activation;
use serde::{Deserialize, Serialize};

/// Largest size of a dimension, which keeps products of sizes within range.
const LARGEST: usize = 1 << 20;

/// The settings in `config.json` of a LLaMA, under the names of the package transformers. Other keys are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlamaFileConfig {
    /// Channels of the residual stream.
    pub hidden_size: usize,
    /// Channels inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Heads of keys and values; as many as attention heads if absent.
    #[serde(default)]
    pub num_key_value_heads: Option<usize>,
    /// Channels per head; `hidden_size / num_attention_heads` if absent, and no other value is supported.
    #[serde(default)]
    pub head_dim: Option<usize>,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Number added to the mean squares of the normalizations.
    #[serde(default = "default_epsilon")]
    pub rms_norm_eps: f64,
    /// Base of the wavelengths of the rotary positions.
    #[serde(default = "default_base")]
    pub rope_theta: f64,
    /// Changes of the rotary positions for longer texts, which are not supported.
    #[serde(default)]
    pub rope_scaling: Option<serde_json::Value>,
    /// The activation of the gate.
    #[serde(default = "default_activation")]
    pub hidden_act: String,
    /// Largest number of positions.
    #[serde(default = "default_positions")]
    pub max_position_embeddings: usize,
    /// True if the classifier of tokens is the table of embeddings.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// True if the projections of the attention have biases, which is not supported.
    #[serde(default)]
    pub attention_bias: bool,
}

fn default_epsilon() -> f64 {
    1e-6
}

fn default_base() -> f64 {
    10_000.0
}

fn default_activation() -> String {
    "silu".to_owned()
}

fn default_positions() -> usize {
    2048
}

impl LlamaFileConfig {
    /// Returns the settings of the network.
    ///
    /// # Errors
    /// [`LlamaError::Config`] names the first setting that is out of range or not supported.
    pub fn network(&self) -> Result<LlamaConfig, LlamaError> {
        let refuse = |field, message: String| Err(LlamaError::Config { field, message });
        let heads = self.num_attention_heads;
        let key_value_heads = self.num_key_value_heads.unwrap_or(heads);
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", heads),
            ("num_key_value_heads", key_value_heads),
            ("vocab_size", self.vocab_size),
        ];
        if let Some((field, size)) = sizes.into_iter().find(|(_, size)| !(1..=LARGEST).contains(size)) {
            return refuse(field, format!("{size} is not between 1 and {LARGEST}"));
        }
        if !self.hidden_size.is_multiple_of(2 * heads) {
            return refuse("num_attention_heads", format!("{} channels in {heads} heads", self.hidden_size));
        }
        if !heads.is_multiple_of(key_value_heads) {
            return refuse("num_key_value_heads", format!("{heads} attention heads share {key_value_heads}"));
        }
        let width = self.hidden_size / heads;
        if let Some(other) = self.head_dim.filter(|other| *other != width) {
            return refuse("head_dim", format!("{other} is not supported; `hidden_size` and heads give {width}"));
        }
        let scaled = |scaling: &&serde_json::Value| {
            let kind = scaling.get("rope_type").or(scaling.get("type")).and_then(serde_json::Value::as_str);
            !scaling.is_null() && kind != Some("default")
        };
        if let Some(scaling) = self.rope_scaling.as_ref().filter(scaled) {
            return refuse("rope_scaling", format!("{scaling} is not supported"));
        }
        if self.attention_bias {
            return refuse("attention_bias", "biases are not supported".to_owned());
        }
        let activation = match self.hidden_act.as_str() {
            "silu" | "swish" => Activation::Silu,
            "gelu" => Activation::Gelu,
            "gelu_pytorch_tanh" | "gelu_new" => Activation::GeluTanh,
            other => return refuse("hidden_act", format!("`{other}` is not supported")),
        };
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            return refuse("rms_norm_eps", format!("{} is not between 0 and 1", self.rms_norm_eps));
        }
        if !(self.rope_theta >= 1.0 && self.rope_theta.is_finite()) {
            return refuse("rope_theta", format!("{} is less than 1", self.rope_theta));
        }
        Ok(LlamaConfig {
            dim: self.hidden_size,
            heads,
            key_value_heads,
            layers: self.num_hidden_layers,
            ffn: self.intermediate_size,
            activation,
            epsilon: self.rms_norm_eps as f32,
            rotary_base: self.rope_theta as f32,
            attention_dropout: 0.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published() -> serde_json::Value {
        serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 11008,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000,
            "rms_norm_eps": 1e-5, "rope_scaling": null, "torch_dtype": "float16",
        })
    }

    #[test]
    fn published_settings_are_read() {
        let config: LlamaFileConfig = serde_json::from_value(published()).unwrap();
        let network = config.network().unwrap();
        assert_eq!([network.dim, network.layers, network.key_value_width()], [4096, 32, 4096]);
        assert_eq!(network.rotary_base, 10_000.0);
    }

    #[test]
    fn settings_without_a_network_are_refused_by_their_names() {
        for (key, value, field) in [
            ("num_attention_heads", serde_json::json!(0), "num_attention_heads"),
            ("num_attention_heads", serde_json::json!(7), "num_attention_heads"),
            ("num_key_value_heads", serde_json::json!(5), "num_key_value_heads"),
            ("head_dim", serde_json::json!(64), "head_dim"),
            ("rope_scaling", serde_json::json!({ "rope_type": "llama3", "factor": 8.0 }), "rope_scaling"),
            ("hidden_act", serde_json::json!("relu2"), "hidden_act"),
            ("attention_bias", serde_json::json!(true), "attention_bias"),
            ("hidden_size", serde_json::json!(1usize << 40), "hidden_size"),
            ("rms_norm_eps", serde_json::json!(0.0), "rms_norm_eps"),
            ("rope_theta", serde_json::json!(0.0), "rope_theta"),
        ] {
            let mut settings = published();
            settings[key] = value;
            let config: LlamaFileConfig = serde_json::from_value(settings).unwrap();
            match config.network() {
                Err(LlamaError::Config { field: found, .. }) => assert_eq!(found, field),
                other => panic!("{key}: {other:?}"),
            }
        }
    }
}
