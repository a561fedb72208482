//! The exported model: a folder that holds everything it takes to generate, and nothing else.

use std::path::Path;

use candle_core::Device;
use flowmill_family::{AnyExported, BoxError, Registry};
use flowmill_nn::{NnError, Parameters, low_rank, weights};
use flowmill_stage_train::Adapted;
use flowmill_train::lora::{ADAPTER_MODEL, read_adapter};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ExportError;

/// The weights.
pub const WEIGHTS: &str = "model.safetensors";
/// What the weights belong to; as stage 4 describes it.
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

/// Loads the weights at `weights` for the model that `config` describes, onto a device; every weight must be there, in its shape.
/// Adapters that are not merged into them are read from the file in the same folder.
///
/// # Errors
/// [`ExportError::Description`] and [`ExportError::Weights`] name the file; [`ExportError::Device`] when the weights cannot be copied
/// there.
pub fn load(
    registry: &Registry,
    config: &Path,
    weights: &Path,
    device: &Device,
) -> Result<Box<dyn AnyExported>, ExportError> {
    let describe = |reason: String| ExportError::Description { path: config.to_owned(), reason };
    let text = std::fs::read_to_string(config).map_err(|source| ExportError::file(config, source))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| describe(e.to_string()))?;
    let description = ModelDescription::deserialize(&json).map_err(|e| describe(e.to_string()))?;
    let family = registry.find(Some(&description.family)).map_err(|e| describe(e.to_string()))?;
    let model = family.described(description.model, Map::new()).map_err(|e| describe(e.to_string()))?;
    model.check().map_err(|e| describe(e.to_string()))?;
    let mut failed = None;
    let folder = config.parent().unwrap_or(Path::new(""));
    let loaded = model.load(&json, folder, device, &mut |parameters| {
        let read = match description.lora.as_ref().filter(|adapted| !adapted.merged) {
            Some(adapted) => load_apart(parameters, weights, adapted),
            None => parameters.load_exact(weights).map(drop),
        };
        let bad = |e: NnError| ExportError::Weights { path: weights.to_owned(), reason: e.about(weights) };
        let result = read.map_err(bad).and_then(|()| Ok(parameters.to_device(device)?));
        result.map_err(|error| {
            failed = Some(error);
            BoxError::from("the weights cannot be loaded")
        })
    });
    loaded.map_err(|error| failed.unwrap_or_else(|| describe(error.to_string())))
}

/// Takes over weights merged with the adapters beside them.
fn load_apart(parameters: &mut Parameters, path: &Path, adapted: &Adapted) -> Result<(), NnError> {
    let file = weights::read(path)?;
    let mut tensors = file.tensors;
    tensors.extend(read_adapter(&path.with_file_name(ADAPTER_MODEL))?);
    low_rank::merge(&mut tensors, adapted.settings.scale())?;
    let report = parameters.load(&tensors)?.with_integers(&file.integers);
    if report.is_exact() {
        Ok(())
    } else {
        Err(NnError::invalid("weights", format!("these are not for this model: {report}")))
    }
}
