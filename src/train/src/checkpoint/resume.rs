//! Finding the checkpoint to go on from.

use std::path::PathBuf;

use crate::identity::Identity;
use crate::{CheckpointStore, KeepConfig, Observer, TrainError};

use super::{Contents, MODEL_FILE, State, has_whole_weights, load, names, prune};

/// Loads the newest sound checkpoint. Damaged ones that are newer are named and moved aside. `None` when there is no checkpoint, with the
/// contents' start values left as they were.
///
/// # Errors
/// [`TrainError::AllDamaged`] when there are checkpoints and none is sound: nothing is moved then, so the same is found the next time. When
/// the newest checkpoint that is not damaged cannot be read, was made by another run (`identity`), or does not fit: going on from an
/// older one would throw work away, and starting over all of it.
pub(crate) fn resume(
    store: &dyn CheckpointStore,
    identity: &Identity,
    keep: &KeepConfig,
    mut contents: Contents<'_>,
    observer: &mut dyn Observer,
) -> Result<Option<State>, TrainError> {
    let mut damaged: Vec<(String, TrainError)> = Vec::new();
    for name in names(store)?.into_iter().rev() {
        match load(store, &name, identity, contents.reborrow()) {
            Ok(state) => {
                for (damaged, error) in damaged {
                    let aside = store.set_aside(&damaged)?;
                    let aside = aside.display();
                    observer.message(&format!("WARNING: {error}; it is moved to {aside}, trying the one before"));
                }
                observer.message(&format!("resuming from {name}: step {} of {}", state.step, state.steps));
                prune(store, keep, observer)?;
                return Ok(Some(state));
            }
            Err(error @ TrainError::Damaged { .. }) => {
                tracing::warn!(name, %error, "damaged checkpoint");
                damaged.push((name, error));
            }
            Err(error) => return Err(error),
        }
    }
    if damaged.is_empty() {
        return Ok(None);
    }
    let damaged: Vec<(PathBuf, String)> =
        damaged.into_iter().map(|(name, error)| (store.path(&name), error.to_string())).collect();
    let weights = damaged.iter().map(|(folder, _)| folder).find(|folder| has_whole_weights(folder));
    let weights = weights.map(|folder| folder.join(MODEL_FILE));
    Err(TrainError::AllDamaged { damaged, weights })
}
