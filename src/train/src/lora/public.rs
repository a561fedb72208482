//! Adapters in the format of the public VALL-E trainer: a file `lora.sft` or `lora.pth` with tensors `MODULE.lora_A` and `MODULE.lora_B`,
//! and in its notes the settings as JSON. Its checkpoints have the same names among those of the base weights.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use serde::Deserialize;
use serde_json::json;

use super::LoraConfig;
use crate::TrainError;

/// The file of an exported adapter.
pub const PUBLIC_ADAPTER: &str = "lora.sft";
/// Names of the file in other formats, most usual first.
pub(super) const FILES: [&str; 4] = [PUBLIC_ADAPTER, "lora.safetensors", "lora.pth", "lora.pt"];
/// Endings of the names of A and B.
const HALVES: [&str; 2] = [".lora_A", ".lora_B"];
/// Part of the names of adapters that change the weight before it is used.
pub(super) const PARAMETRIZED: &str = ".parametrizations.weight.";
/// The key of the settings in the notes.
const SETTINGS: &str = "config";

/// The part of the settings that determines the meaning of the tensors.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(super) struct Settings {
    pub rank: usize,
    pub alpha: f64,
}

/// Returns whether a tensor has a name of this format.
pub(super) fn is_public(name: &str) -> bool {
    HALVES.iter().any(|half| name.ends_with(half))
}

/// Returns the name of a tensor in the format of PEFT.
pub(super) fn renamed(name: &str) -> Cow<'_, str> {
    if is_public(name) { format!("{name}.weight").into() } else { name.into() }
}

/// Returns the settings in the notes of a file.
pub(super) fn settings(metadata: &BTreeMap<String, String>) -> Option<Settings> {
    serde_json::from_str(metadata.get(SETTINGS)?).ok()
}

/// Writes adapters by the names of the model's parameters.
///
/// # Errors
/// When a tensor is not finite or the file cannot be written.
pub fn write_public_adapter(
    adapters: &BTreeMap<String, Tensor>,
    config: &LoraConfig,
    path: &Path,
) -> Result<(), TrainError> {
    let short = |name: &String| name.strip_suffix(".weight").unwrap_or(name).to_owned();
    let named: Vec<(String, Tensor)> = adapters.iter().map(|(name, tensor)| (short(name), tensor.clone())).collect();
    let settings = json!({ "name": "lora", "rank": config.rank, "alpha": config.alpha, "training": true });
    let metadata = BTreeMap::from([(SETTINGS.to_owned(), settings.to_string())]);
    flowmill_weights::write(path, &named, &metadata).map_err(TrainError::weights("writing the adapters"))
}
