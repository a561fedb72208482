//! A run that cannot write something goes on without it, as long as that is not its last save.

use crate::{Observer, TrainError};

/// Tells that something was not written, and goes on, where the system is at fault: a full disk, a quota, an error of the device. Any
/// other error stays one.
pub(crate) fn missed(error: TrainError, what: &str, observer: &mut dyn Observer) -> Result<(), TrainError> {
    if !error.is_of_system() {
        return Err(error);
    }
    let cause = if error.is_disk_full() { "the disk is full" } else { "the system refuses to write" };
    observer.message(&format!("WARNING: {cause}: {what}; the run goes on, and tries again next time ({error})"));
    Ok(())
}
