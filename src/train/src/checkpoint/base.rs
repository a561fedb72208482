//! Base weights of adapters. A checkpoint of a model with adapters holds only the trained weights. The base weights do not change during
//! training, so they are written once and identified by their checksum.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use flowmill_nn::{LoadReport, ParameterId, Parameters, host};

use super::State;
use crate::TrainError;

/// Elements hashed at a time.
const CHUNK: usize = 1 << 14;

/// Returns the parameters that a checkpoint stores.
pub(crate) fn kept(parameters: &Parameters) -> Vec<(String, Tensor)> {
    if has_adapters(parameters) { named(parameters, parameters.trainable_ids()) } else { parameters.named_tensors() }
}

/// The checksum of the weights that checkpoints leave out; `None` if they hold all.
pub(crate) fn checksum(parameters: &Parameters) -> Result<Option<String>, TrainError> {
    if !has_adapters(parameters) {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new();
    for id in left_out(parameters) {
        let (name, tensor) = (parameters.name(id), parameters.tensor(id));
        let failed = || TrainError::tensor(format!("reading {name}"));
        let weights = host::fetch(tensor).map_err(failed())?;
        let elements = host::slice("checksum", &weights).map_err(failed())?;
        hasher.update(format!("\n{name} {:?}\n", tensor.dims()).as_bytes());
        for chunk in elements.chunks(CHUNK) {
            hasher.update(&chunk.iter().flat_map(|element| element.to_le_bytes()).collect::<Vec<u8>>());
        }
    }
    Ok(Some(hasher.finalize().to_hex().to_string()))
}

/// Writes the weights that checkpoints leave out.
///
/// # Errors
/// When the file cannot be written.
pub fn write_base(parameters: &Parameters, path: &Path) -> Result<(), TrainError> {
    let tensors = named(parameters, left_out(parameters));
    flowmill_weights::write(path, &tensors, &BTreeMap::new())
        .map_err(TrainError::weights("writing the base weights of the adapters"))
}

/// Checks that a checkpoint's adapters were trained on the present base weights.
pub(super) fn check(name: &str, state: &State, parameters: &Parameters) -> Result<(), TrainError> {
    if state.base == checksum(parameters)? { Ok(()) } else { Err(TrainError::OtherBase { name: name.to_owned() }) }
}

/// Returns whether everything that a checkpoint stores was loaded.
pub(super) fn is_whole(parameters: &Parameters, loaded: &LoadReport) -> bool {
    let left_out = |name: &String| parameters.find(name).is_some_and(|id| !parameters.trainable(id));
    let missing =
        if has_adapters(parameters) { loaded.missing.iter().all(left_out) } else { loaded.missing.is_empty() };
    missing && loaded.extra.is_empty() && loaded.mismatched.is_empty()
}

fn has_adapters(parameters: &Parameters) -> bool {
    parameters.ids().any(|id| parameters.low_rank(id).is_some())
}

fn left_out(parameters: &Parameters) -> impl Iterator<Item = ParameterId> {
    parameters.ids().filter(|id| !parameters.trainable(*id))
}

fn named(parameters: &Parameters, ids: impl Iterator<Item = ParameterId>) -> Vec<(String, Tensor)> {
    ids.map(|id| (parameters.name(id).to_owned(), parameters.tensor(id).clone())).collect()
}
