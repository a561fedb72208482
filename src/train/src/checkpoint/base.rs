//! Weights that checkpoints leave out, because they do not change during training: those that adapters are added to, which are written once
//! next to the checkpoints, and external ones, which have files of their own. They are identified by their checksum.

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
    let adapters = has_adapters(parameters);
    named(parameters, parameters.ids().filter(|id| !is_left_out(parameters, *id, adapters)))
}

/// The checksum of the weights that checkpoints leave out; `None` if they hold all.
pub(crate) fn checksum(parameters: &Parameters) -> Result<Option<String>, TrainError> {
    let adapters = has_adapters(parameters);
    let left_out: Vec<ParameterId> = parameters.ids().filter(|id| is_left_out(parameters, *id, adapters)).collect();
    if left_out.is_empty() && !adapters {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new();
    for id in left_out {
        let (name, tensor) = (parameters.name(id), parameters.tensor(id));
        hasher.update(format!("\n{name} {:?}\n", tensor.dims()).as_bytes());
        if let Some(weight) = parameters.mapped(id) {
            let mut buffer = vec![0.0; CHUNK];
            for first in (0..weight.count()).step_by(CHUNK) {
                let length = CHUNK.min(weight.count() - first);
                weight.copy_to(first, &mut buffer[..length]);
                hasher.update(&bytes_of(&buffer[..length]));
            }
            continue;
        }
        let failed = || TrainError::tensor(format!("reading {name}"));
        let weights = host::fetch(tensor).map_err(failed())?;
        let elements = host::slice("checksum", &weights).map_err(failed())?;
        elements.chunks(CHUNK).for_each(|chunk| {
            hasher.update(&bytes_of(chunk));
        });
    }
    Ok(Some(hasher.finalize().to_hex().to_string()))
}

fn bytes_of(elements: &[f32]) -> Vec<u8> {
    elements.iter().flat_map(|element| element.to_le_bytes()).collect()
}

/// Writes the weights that adapters are added to.
///
/// # Errors
/// When the file cannot be written.
pub fn write_base(parameters: &Parameters, path: &Path) -> Result<(), TrainError> {
    let base = parameters.ids().filter(|id| !parameters.trainable(*id) && !parameters.is_external(*id));
    flowmill_weights::write(path, &named(parameters, base), &BTreeMap::new())
        .map_err(TrainError::weights("writing the base weights of the adapters"))
}

/// Checks that a checkpoint was trained on the present weights that it leaves out.
pub(super) fn check(name: &str, state: &State, parameters: &Parameters) -> Result<(), TrainError> {
    if state.base == checksum(parameters)? { Ok(()) } else { Err(TrainError::OtherBase { name: name.to_owned() }) }
}

/// Returns whether everything that a checkpoint stores was loaded.
pub(super) fn is_whole(parameters: &Parameters, loaded: &LoadReport) -> bool {
    let adapters = has_adapters(parameters);
    let left_out = |name: &String| parameters.find(name).is_some_and(|id| is_left_out(parameters, id, adapters));
    loaded.missing.iter().all(left_out) && loaded.extra.is_empty() && loaded.mismatched.is_empty()
}

fn has_adapters(parameters: &Parameters) -> bool {
    parameters.ids().any(|id| parameters.low_rank(id).is_some())
}

/// Returns whether checkpoints leave a parameter out; `adapters` says whether the model has adapters.
fn is_left_out(parameters: &Parameters, id: ParameterId, adapters: bool) -> bool {
    parameters.is_external(id) || adapters && !parameters.trainable(id)
}

fn named(parameters: &Parameters, ids: impl Iterator<Item = ParameterId>) -> Vec<(String, Tensor)> {
    ids.map(|id| (parameters.name(id).to_owned(), parameters.tensor(id).clone())).collect()
}
