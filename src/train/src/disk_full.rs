//! Failed writes that do not stop a run: it continues without the file, except for its last save.

use crate::{Observer, TrainError};

/// Reports that something was not written and continues, if the system is the cause: a full disk, a quota, a device error. Any
/// other error is returned.
pub(crate) fn missed(error: TrainError, what: &str, observer: &mut dyn Observer) -> Result<(), TrainError> {
    if !error.is_of_system() {
        return Err(error);
    }
    let cause = if error.is_disk_full() { "the disk is full" } else { "the system refuses to write" };
    observer.message(&format!("WARNING: {cause}: {what}; the run continues and tries again next time ({error})"));
    Ok(())
}
