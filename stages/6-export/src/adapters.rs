//! Adapters that stage 4 trained: merged into the weights they adapt, and written beside them as PEFT reads them.

use std::path::Path;

use flowmill_nn::{low_rank, weights};
use flowmill_runner::{PartWork, StageError};
use flowmill_stage_train::Adapted;
use flowmill_train::lora::{ADAPTER_CONFIG, ADAPTER_MODEL, write_adapter};
use serde::Deserialize;

/// What `config.json` says of adapters.
#[derive(Deserialize)]
struct Description {
    lora: Option<Adapted>,
}

/// The adapters that the weights hold, by the description of stage 4.
pub fn described(description: &Path) -> Result<Option<Adapted>, StageError> {
    let text = std::fs::read_to_string(description).map_err(|error| StageError::file(description, error))?;
    let read: Result<Description, _> = serde_json::from_str(&text);
    read.map(|read| read.lora).map_err(|error| StageError::new(format!("{}: {error}", description.display())))
}

/// Writes the weights of `source` with their adapters merged to `target`, and the adapters as outputs of their own.
pub fn merge(source: &Path, target: &Path, adapted: &Adapted, work: &PartWork) -> Result<(), StageError> {
    let mut tensors = weights::read(source).map_err(StageError::other)?.tensors;
    let adapters = low_rank::merge(&mut tensors, adapted.settings.scale())
        .map_err(|error| StageError::new(format!("{}: {error}", source.display())))?;
    if adapters.is_empty() {
        return Err(StageError::new(format!(
            "{} holds no adapters, though its description has some",
            source.display()
        )));
    }
    let merged: Vec<_> = tensors.into_iter().collect();
    weights::write(target, &merged, &Default::default()).map_err(StageError::other)?;
    let (model, description) = (work.output(ADAPTER_MODEL)?, work.output(ADAPTER_CONFIG)?);
    write_adapter(&adapters, &adapted.settings, adapted.base.as_deref(), &model, &description)
        .map_err(StageError::other)
}
