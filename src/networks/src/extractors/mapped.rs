//! Weights of published networks in folders, as an extractor's state holds them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flowmill_extract::{Fit, Fitted, Pretrained, State, StateError, Weights};
use flowmill_nn::{Parameters, host};
use serde_json::json;

/// The endings of files of a network that are read: settings and weights.
const READ: [&str; 2] = ["json", "safetensors"];

/// Returns the fit of an extractor whose state `load` makes from these weights.
pub(super) fn fit(
    kind: &'static str,
    weights: Option<&Weights>,
    load: impl Fn() -> Result<State, StateError> + Send + Sync + 'static,
) -> Box<dyn Fit> {
    let facts = vec![("weights".to_owned(), json!(weights))];
    Box::new(Pretrained::new(kind, move || Ok(Fitted { state: load()?, facts: facts.clone() })))
}

/// Returns the place of weights below `root`, the recipe's folder. Drawn ones have their name there, for messages.
pub(super) fn place(weights: Option<&Weights>, root: &Path) -> PathBuf {
    root.join(weights.and_then(Weights::file).unwrap_or(Path::new("random")))
}

/// Returns the settings and weights in a folder, sorted; nothing if it cannot be listed.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_read = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        READ.contains(&ending) && path.is_file()
    };
    let mut files: Vec<PathBuf> = entries.filter(is_read).collect();
    files.sort_unstable();
    files
}

/// Returns the error of a folder that cannot be used.
pub(super) fn unusable(folder: &Path, problem: impl std::fmt::Display) -> StateError {
    StateError::Format { path: folder.to_owned(), reason: problem.to_string() }
}

/// Adds the parameters whose names `keep` accepts to a state, as f32.
pub(super) fn store(
    state: &mut State,
    parameters: &Parameters,
    keep: impl Fn(&str) -> bool,
) -> Result<(), flowmill_nn::NnError> {
    for id in parameters.ids().filter(|id| keep(parameters.name(*id))) {
        let tensor = parameters.read(id)?;
        let values = host::slice("weights", &tensor)?.to_vec();
        state.set_f32(parameters.name(id), tensor.dims(), values);
    }
    Ok(())
}

/// Gives the parameters whose names `keep` accepts the arrays of a state.
///
/// # Errors
/// [`StateError::Missing`] names a parameter that the state does not have in its shape.
pub(super) fn restore(
    state: &State,
    parameters: &mut Parameters,
    keep: impl Fn(&str) -> bool,
) -> Result<(), StateError> {
    let arrays: BTreeMap<&str, (&[usize], &[f32])> =
        state.f32_arrays().map(|(name, shape, values)| (name, (shape, values))).collect();
    for id in parameters.ids() {
        let name = parameters.name(id).to_owned();
        if !keep(&name) {
            continue;
        }
        let tensor = arrays.get(name.as_str()).and_then(|(shape, values)| host::tensor(values.to_vec(), shape).ok());
        let missing = || StateError::Missing {
            kind: state.kind().to_owned(),
            array: name.clone(),
            wanted: "f32, in the shape of its layer".to_owned(),
        };
        parameters.set(id, tensor.ok_or_else(missing)?).map_err(|_| missing())?;
    }
    Ok(())
}
