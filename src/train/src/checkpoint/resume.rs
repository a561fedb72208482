//! Finding the checkpoint to go on from.

use crate::identity::Identity;
use crate::{CheckpointStore, KeepConfig, Observer, TrainError};

use super::{Contents, State, load, names, prune};

/// Loads the newest sound checkpoint. A damaged one is named and moved aside, and the one before it is tried; `None` when there is none,
/// with the contents' start values left as they were.
///
/// # Errors
/// When the newest checkpoint that is not damaged cannot be read, was made by another run (`identity`), or does not fit: going on from an
/// older one would throw work away, and starting over all of it.
pub(crate) fn resume(
    store: &dyn CheckpointStore,
    identity: &Identity,
    keep: &KeepConfig,
    mut contents: Contents<'_>,
    observer: &mut dyn Observer,
) -> Result<Option<State>, TrainError> {
    let mut damaged = false;
    for name in names(store)?.into_iter().rev() {
        match load(store, &name, identity, contents.reborrow()) {
            Ok(state) => {
                observer.message(&format!("resuming from {name}: step {} of {}", state.step, state.steps));
                prune(store, keep, observer)?;
                return Ok(Some(state));
            }
            Err(error @ TrainError::Damaged { .. }) => {
                let aside = store.set_aside(&name)?;
                observer
                    .message(&format!("WARNING: {error}; it is moved to {}, trying the one before", aside.display()));
                damaged = true;
            }
            Err(error) => return Err(error),
        }
    }
    if damaged {
        observer.message("WARNING: no sound checkpoint is left; training starts from the beginning");
    }
    Ok(None)
}
