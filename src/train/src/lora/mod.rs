//! LoRA: trains low-rank adapters and freezes everything else.

mod peft;
mod public;
mod saved;

use flowmill_nn::low_rank::LowRankSettings;
use flowmill_nn::random::RngKey;
use flowmill_nn::{ParameterId, Parameters};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::coverage::shorten;
use crate::optimizer::matches;

pub use peft::{ADAPTER_CONFIG, ADAPTER_MODEL, read_adapter, write_adapter};
pub use public::{PUBLIC_ADAPTER, write_public_adapter};
pub use saved::{AdapterFiles, SavedAdapter};

/// Settings of low-rank adapters. Needs `train.init_from`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of the adapters.
    ///
    /// Counterparts: `r`, `rank`.
    #[serde(default = "default_rank")]
    pub rank: usize,
    /// Factor on the adapters' product, divided by the rank.
    ///
    /// Counterparts: `lora_alpha`, `alpha`.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// Rate of the dropout on the adapters' inputs.
    ///
    /// Counterparts: `lora_dropout`.
    #[serde(default)]
    pub dropout: f64,
    /// The linear layers that get an adapter, by name; `*` matches any characters, such as `encoder.*.linear_q`. Required,
    /// except for families that have a default: `vall-e` adapts attention without the keys, and the feed-forward layers.
    ///
    /// Counterparts: `target_modules`.
    #[serde(default)]
    pub targets: Vec<String>,
    /// An adapter to continue from, with the same layers and rank: the folder of an exported one or of a checkpoint, its
    /// tensors next to their `adapter_config.json`, or an adapter or a checkpoint of the public VALL-E trainer.
    ///
    /// Counterparts: PEFT's `PeftModel.from_pretrained(is_trainable=True)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<String>,
}

fn default_rank() -> usize {
    8
}

fn default_alpha() -> f64 {
    16.0
}

impl LoraConfig {
    /// Returns the factor on the product of an adapter.
    pub fn scale(&self) -> f32 {
        (self.alpha / self.rank.max(1) as f64) as f32
    }

    /// Checks that the settings can be used.
    ///
    /// # Errors
    /// [`TrainError::Config`].
    pub fn check(&self) -> Result<(), TrainError> {
        let fail = |key, reason: String| Err(TrainError::Config { key, reason });
        if self.rank == 0 {
            return fail("lora.rank", "must be at least 1".to_owned());
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return fail("lora.alpha", format!("{} is not a positive number", self.alpha));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fail("lora.dropout", format!("{} must be at least 0 and less than 1", self.dropout));
        }
        if self.targets.is_empty() {
            return fail("lora.targets", "names no layer; `*` matches any characters, `\"*\"` all layers".to_owned());
        }
        Ok(())
    }

    /// Freezes every parameter and adds adapters to the linear layers that the targets name. Returns the layers' weights.
    ///
    /// # Errors
    /// [`TrainError::Config`] when a target names no linear layer, or an adapter does not fit one.
    pub fn attach(&self, parameters: &mut Parameters, seed: u64) -> Result<Vec<ParameterId>, TrainError> {
        let fail = |key, reason: String| Err(TrainError::Config { key, reason });
        let layers: Vec<ParameterId> = parameters.ids().filter(|id| parameters.is_linear(*id)).collect();
        let named = |target: &str, id: ParameterId| matches(target, module(parameters.name(id)));
        if let Some(target) = self.targets.iter().find(|target| !layers.iter().any(|id| named(target, *id))) {
            let names: Vec<String> = layers.iter().map(|id| module(parameters.name(*id)).to_owned()).collect();
            return fail(
                "lora.targets",
                format!("no linear layer is called `{target}`; the layers are {}", shorten(&names)),
            );
        }
        let chosen: Vec<ParameterId> =
            layers.into_iter().filter(|id| self.targets.iter().any(|target| named(target, *id))).collect();
        parameters.ids().for_each(|id| parameters.set_trainable(id, false));
        let settings = LowRankSettings { rank: self.rank, scale: self.scale(), dropout: self.dropout as f32 };
        let rng_key = RngKey::new(seed).purpose("lora");
        for id in &chosen {
            if let Err(error) = parameters.add_low_rank(*id, settings, rng_key) {
                return fail("lora.rank", error.to_string());
            }
        }
        Ok(chosen)
    }
}

/// Returns the module that a weight belongs to.
fn module(weight: &str) -> &str {
    weight.strip_suffix(".weight").unwrap_or(weight)
}

#[cfg(test)]
mod tests {
    use flowmill_nn::init::Builder;
    use flowmill_nn::layers::{Embedding, Linear};

    use super::*;

    fn parameters() -> Parameters {
        let mut parameters = Parameters::new();
        let mut builder = Builder::new(&mut parameters, RngKey::new(1));
        Embedding::new(builder.scope("table"), 9, 4).unwrap();
        for name in ["block.linear_q", "block.linear_k", "out"] {
            Linear::new(builder.scope(name), 4, 6).unwrap();
        }
        parameters
    }

    fn config(targets: &[&str]) -> LoraConfig {
        let targets = targets.iter().map(|target| (*target).to_owned()).collect();
        LoraConfig { rank: 2, alpha: 4.0, dropout: 0.0, targets, init_from: None }
    }

    #[test]
    fn the_adapters_alone_are_trained() {
        let mut parameters = parameters();
        let chosen = config(&["*.linear_*"]).attach(&mut parameters, 1).unwrap();
        assert_eq!(chosen.len(), 2);
        let trained: Vec<&str> = parameters.trainable_ids().map(|id| parameters.name(id)).collect();
        let module = |name: &str| ["A", "B"].map(|half| format!("block.{name}.lora_{half}.weight"));
        assert_eq!(trained, [module("linear_q"), module("linear_k")].concat());
    }

    #[test]
    fn what_cannot_be_adapted_is_refused_by_name() {
        let refused = |error: TrainError| match error {
            TrainError::Config { key, reason } => (key, reason),
            other => panic!("{other}"),
        };
        let (key, reason) = refused(config(&["*", "table"]).attach(&mut parameters(), 1).unwrap_err());
        assert_eq!(key, "lora.targets");
        assert!(reason.contains("`table`") && reason.contains("block.linear_q"), "{reason}");
        let wide = LoraConfig { rank: 5, ..config(&["out"]) };
        let (key, reason) = refused(wide.attach(&mut parameters(), 1).unwrap_err());
        assert_eq!(key, "lora.rank");
        assert!(reason.contains("out.weight") && reason.contains("6 x 4"), "{reason}");
        for (key, bad) in [
            ("lora.rank", LoraConfig { rank: 0, ..config(&["*"]) }),
            ("lora.alpha", LoraConfig { alpha: 0.0, ..config(&["*"]) }),
            ("lora.dropout", LoraConfig { dropout: 1.0, ..config(&["*"]) }),
            ("lora.targets", config(&[])),
        ] {
            assert_eq!(refused(bad.check().unwrap_err()).0, key);
        }
        config(&["*"]).check().unwrap();
    }
}
