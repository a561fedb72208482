//! Search for the checkpoint to resume from.

use std::path::PathBuf;

use crate::identity::Identity;
use crate::{CheckpointStore, KeepConfig, Observer, TrainError};

use super::{Contents, MODEL_FILE, State, has_whole_weights, load, names, prune};

/// Loads the newest intact checkpoint. Newer ones that are damaged are reported and moved aside. Returns `None` if there is no
/// checkpoint; the contents then keep their initial values.
///
/// # Errors
/// [`TrainError::AllDamaged`] when there are checkpoints and all are damaged; nothing is moved then, so the next run reports the same.
/// Also when the newest undamaged checkpoint cannot be read, was made by another run (`identity`), or does not fit: resuming from an
/// older one, or starting over, would throw work away.
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
                    observer.message(&format!("WARNING: {error}; it is moved to {aside}; trying the previous one"));
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
