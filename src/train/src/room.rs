//! A disk that is full does not end a run that can go on without what could not be written.

use crate::{Observer, TrainError};

/// Tells that something was not written for want of room, and goes on; any other error stays one.
pub(crate) fn missed(error: TrainError, what: &str, observer: &mut dyn Observer) -> Result<(), TrainError> {
    if !error.is_disk_full() {
        return Err(error);
    }
    observer
        .message(&format!("WARNING: the disk is full: {what}; the run goes on, and tries again next time ({error})"));
    Ok(())
}
