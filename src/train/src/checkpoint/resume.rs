//! Finding the checkpoint to go on from.

use std::path::Path;

use crate::metrics::Metrics;
use crate::{CheckpointStore, KeepConfig, Observer, TrainError};

use super::{Contents, State, load, names, prune};

/// Loads the newest sound checkpoint and opens the metrics where it left them. A damaged one is named, removed, and the one
/// before it is tried; `None` when there is none, with the contents' start values left as they were.
///
/// # Errors
/// When a sound checkpoint was made by another run (`identity`), or its adapters on other weights: going on would mix two runs, starting
/// over would lose one.
pub(crate) fn resume(
    store: &dyn CheckpointStore,
    folder: &Path,
    identity: &str,
    keep: &KeepConfig,
    mut contents: Contents<'_>,
    observer: &mut dyn Observer,
) -> Result<Option<(State, Metrics)>, TrainError> {
    let initial = contents.parameters.clone();
    let mut damaged = false;
    for name in names(store)?.into_iter().rev() {
        match attempt(store, folder, &name, identity, contents.reborrow()) {
            Ok((state, metrics)) => {
                observer.message(&format!("resuming from {name}: step {} of {}", state.step, state.steps));
                prune(store, keep, observer)?;
                return Ok(Some((state, metrics)));
            }
            Err(error @ (TrainError::OtherRun { .. } | TrainError::OtherBase { .. })) => return Err(error),
            Err(error) => {
                observer.message(&format!("WARNING: {error}; it is removed, trying the one before"));
                store.remove(&name)?;
                damaged = true;
            }
        }
    }
    if damaged {
        observer.message("WARNING: no sound checkpoint is left; training starts from the beginning");
    }
    *contents.parameters = initial;
    Ok(None)
}

fn attempt(
    store: &dyn CheckpointStore,
    folder: &Path,
    name: &str,
    identity: &str,
    contents: Contents<'_>,
) -> Result<(State, Metrics), TrainError> {
    let state = load(store, name, identity, contents)?;
    let metrics = Metrics::open(folder, &state.metrics)?;
    Ok((state, metrics))
}
