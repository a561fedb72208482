//! Adapters that stage 4 trained. They are merged into their base weights or not, and written next to them in PEFT's
//! format, and in the public one of the family.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use flowmill_family::Configured;
use flowmill_nn::low_rank;
use flowmill_runner::{PartWork, StageError, copy_bytes};
use flowmill_stage_train::Adapted;
use flowmill_train::lora::{ADAPTER_CONFIG, ADAPTER_MODEL, read_adapter, write_adapter};
use serde::Deserialize;

use crate::model_folder::WEIGHTS;

/// The description of adapters in `config.json`.
#[derive(Deserialize)]
struct Description {
    lora: Option<Adapted>,
}

/// Returns the trained adapters, from the description of stage 4.
pub fn described(description: &Path) -> Result<Option<Adapted>, StageError> {
    let text = fs::read_to_string(description).map_err(|error| StageError::file(description, error))?;
    let read: Result<Description, _> = serde_json::from_str(&text);
    read.map(|read| read.lora).map_err(|error| StageError::new(format!("{}: {error}", description.display())))
}

/// Writes the weights, merged with their adapters if `merge` is true, and the adapters alone. `base` are the weights
/// with which the adapters were trained by `model`, `trained` the adapters.
pub fn write(
    model: &dyn Configured,
    base: &Path,
    trained: &Path,
    adapted: &Adapted,
    merge: bool,
    work: &PartWork,
) -> Result<(), StageError> {
    let adapters = read_adapter(trained).map_err(StageError::other)?;
    let weights = work.output(WEIGHTS)?;
    if merge {
        let mut tensors = flowmill_weights::read(base).map_err(StageError::other)?.tensors;
        tensors.extend(adapters.clone());
        low_rank::merge(&mut tensors, adapted.settings.scale()).map_err(StageError::other)?;
        let merged: Vec<_> = tensors.into_iter().collect();
        flowmill_weights::write(&weights, &merged, &BTreeMap::new()).map_err(StageError::other)?;
    } else {
        copy_bytes(base, &weights)?;
    }
    let (alone, settings) = (work.output(ADAPTER_MODEL)?, work.output(ADAPTER_CONFIG)?);
    write_adapter(&adapters, &adapted.settings, adapted.base.as_deref(), &alone, &settings)
        .map_err(StageError::other)?;
    let public = model.export_adapters(&adapters, &adapted.settings, &mut |name| Ok(work.output(name)?));
    public.map_err(StageError::other)
}
