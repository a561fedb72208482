//! The exported model: a folder with everything that is needed to generate, and nothing else.

use std::path::Path;

use candle_core::Device;
use flowmill_family::{AnyExported, Registry};
use flowmill_nn::{Parameters, low_rank};
use flowmill_stage_train::{Adapted, saved_adapter};
use flowmill_train::TrainError;
use flowmill_train::lora::{ADAPTER_MODEL, AdapterFiles, read_adapter};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ExportError;

/// The weights.
pub const WEIGHTS: &str = "model.safetensors";
/// The description of the model, as written by stage 4.
pub const CONFIG: &str = "config.json";

/// The part of `config.json` that is the same for all families.
#[derive(Debug, Clone, Deserialize)]
struct ModelDescription {
    /// The family's name in recipes.
    family: String,
    /// The settings of the model.
    model: Value,
    /// The adapters it was trained with, if any.
    #[serde(default)]
    lora: Option<Adapted>,
}

/// Loads the weights at `weights` for the model that `config` describes onto a device. Every weight must exist with
/// the right shape. Adapters that are not merged into them are read from the file in the same folder.
///
/// # Errors
/// [`ExportError::Description`] and [`ExportError::Weights`] name the file; [`ExportError::Device`] if the weights
/// cannot be copied to the device.
pub fn load(
    registry: &Registry,
    config: &Path,
    weights: &Path,
    device: &Device,
) -> Result<Box<dyn AnyExported>, ExportError> {
    load_adapted(registry, config, weights, None, device)
}

/// Loads a model like [`load`], with the adapters at the path `more` added to its weights.
///
/// # Errors
/// See [`load`]; [`ExportError::Weights`] also if the adapters cannot be read or are not for this model.
pub fn load_adapted(
    registry: &Registry,
    config: &Path,
    weights: &Path,
    more: Option<&Path>,
    device: &Device,
) -> Result<Box<dyn AnyExported>, ExportError> {
    let describe = |reason: String| ExportError::Description { path: config.to_owned(), reason };
    let text = std::fs::read_to_string(config).map_err(|source| ExportError::file(config, source))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| describe(e.to_string()))?;
    let description = ModelDescription::deserialize(&json).map_err(|e| describe(e.to_string()))?;
    let family = registry.find(Some(&description.family)).map_err(|e| describe(e.to_string()))?;
    let model = family.described(description.model, Map::new()).map_err(|e| describe(e.to_string()))?;
    model.check().map_err(|e| describe(e.to_string()))?;
    let folder = config.parent().unwrap_or(Path::new(""));
    let loaded = model.load(&json, folder, device, &mut |parameters| {
        let adapters = description.lora.as_ref().filter(|adapted| !adapted.merged);
        load_weights(parameters, weights, adapters, more)?;
        Ok(parameters.to_device(device).map_err(ExportError::Device)?)
    });
    // Errors of the weights are this crate's own; all others come from the description.
    loaded.map_err(|error| error.downcast().map_or_else(|error| describe(error.to_string()), |own| *own))
}

/// Sets every parameter from the weights at `path`, merged with the adapters in the same folder if there are any
/// according to `adapters`, and with those at the path `more`.
fn load_weights(
    parameters: &mut Parameters,
    path: &Path,
    adapters: Option<&Adapted>,
    more: Option<&Path>,
) -> Result<(), ExportError> {
    let refuse = |reason: String| ExportError::Weights { path: path.to_owned(), reason };
    tracing::info!(path = %path.display(), adapters = adapters.is_some(), "loading an exported model");
    let file = flowmill_weights::read(path).map_err(|error| refuse(error.about(path)))?;
    let mut tensors = file.tensors;
    if let Some(adapted) = adapters {
        let apart = read_adapter(&path.with_file_name(ADAPTER_MODEL)).map_err(|error| refuse(error.to_string()))?;
        tensors.extend(apart);
        low_rank::merge(&mut tensors, adapted.settings.scale()).map_err(|error| refuse(error.to_string()))?;
    }
    if let Some(more) = more {
        let refuse = |error: TrainError| ExportError::Weights { path: more.to_owned(), reason: error.to_string() };
        saved_adapter(&AdapterFiles::at(more)).and_then(|saved| saved.merge_into(&mut tensors)).map_err(refuse)?;
    }
    let report = parameters.load(&tensors).map_err(|error| refuse(error.to_string()))?.with_integers(&file.integers);
    if report.is_exact() { Ok(()) } else { Err(refuse(format!("these weights are not for this model: {report}"))) }
}
