//! Adapters in the format of the package PEFT: `adapter_model.safetensors` next to `adapter_config.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::Tensor;
use flowmill_nn::NnError;
use flowmill_nn::low_rank::adapted_module;
use serde_json::json;

use super::{LoraConfig, public};
use crate::TrainError;

/// The adapters' tensors.
pub const ADAPTER_MODEL: &str = "adapter_model.safetensors";
/// Their description.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// Prefix that PEFT adds to the names of the model's own modules.
const PREFIX: &str = "base_model.model.";

/// The adapters in a file.
pub(super) struct Read {
    /// The tensors by the names of the model's parameters.
    pub tensors: BTreeMap<String, Tensor>,
    /// The settings in the file, in the format of the public VALL-E trainer.
    pub settings: Option<public::Settings>,
}

/// Reads adapters by the names of the model's parameters, with or without the prefix `base_model.model.`, or in the format of the public
/// VALL-E trainer.
///
/// # Errors
/// When the file cannot be read, holds none, or holds something else.
pub fn read_adapter(model: &Path) -> Result<BTreeMap<String, Tensor>, TrainError> {
    Ok(read(model)?.tensors)
}

/// Reads adapters with their settings, if the file has them.
///
/// # Errors
/// Those of [`read_adapter`].
pub(super) fn read(model: &Path) -> Result<Read, TrainError> {
    let what = "reading the adapters";
    let refuse = |reason: String| {
        TrainError::tensor(what)(NnError::invalid("adapter", format!("{}: {reason}", model.display())))
    };
    let file = flowmill_weights::read(model).map_err(TrainError::weights(what))?;
    // A checkpoint of the public trainer has the base weights too.
    let is_public = file.tensors.keys().any(|name| public::is_public(name));
    let mut tensors = BTreeMap::new();
    for (name, tensor) in file.tensors {
        if name.contains(public::PARAMETRIZED) {
            return Err(refuse(format!(
                "`{name}` belongs to an adapter that was trained with `parametrize: True`, which is another function of the weights"
            )));
        }
        let own = public::renamed(name.strip_prefix(PREFIX).unwrap_or(&name)).into_owned();
        if adapted_module(&own).is_some() {
            tensors.insert(own, tensor);
        } else if !is_public {
            return Err(refuse(format!("`{name}` is not the A or B of an adapter")));
        }
    }
    if tensors.is_empty() {
        return Err(refuse("it holds no adapter".to_owned()));
    }
    Ok(Read { tensors, settings: public::settings(&file.metadata) })
}

/// Writes adapters by the names of the model's parameters to the two files. `base` is the original name of the adapted
/// weights.
///
/// # Errors
/// When a tensor is not finite or a file cannot be written.
pub fn write_adapter(
    adapters: &BTreeMap<String, Tensor>,
    config: &LoraConfig,
    base: Option<&str>,
    model: &Path,
    description: &Path,
) -> Result<(), TrainError> {
    let named: Vec<(String, Tensor)> =
        adapters.iter().map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor.clone())).collect();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    flowmill_weights::write(model, &named, &metadata).map_err(TrainError::weights("writing the adapters"))?;
    let modules: BTreeSet<&str> = adapters.keys().filter_map(|name| adapted_module(name)).collect();
    let described = json!({
        "peft_type": "LORA",
        "task_type": null,
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "inference_mode": true,
    });
    std::fs::write(description, format!("{described:#}\n")).map_err(TrainError::io("write", description))
}
