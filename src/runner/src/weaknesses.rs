//! What the file system of an experiment cannot do, and what is done instead; each is told once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::Reporter;

/// Something that a file system of clusters and laptops may lack.
pub(crate) struct Weakness {
    found: AtomicBool,
    told: AtomicBool,
    /// What is missing, what follows, and what to do about it.
    words: &'static str,
}

impl Weakness {
    const fn new(words: &'static str) -> Self {
        Self { found: AtomicBool::new(false), told: AtomicBool::new(false), words }
    }

    /// Notes that it was met.
    pub fn met(&self) {
        self.found.store(true, Ordering::Relaxed);
    }
}

/// Files cannot be forced to the disk.
pub(crate) static NO_SYNC: Weakness = Weakness::new(
    "warning: this file system cannot force files to the disk (fsync). Files that a power failure or a crash of the server damages are \
     found by their checksums and made again; checkpoints that it damages are lost",
);

/// Files cannot be locked.
pub(crate) static NO_LOCKS: Weakness = Weakness::new(
    "warning: this file system has no locks (flock). The file .lock-holder in the experiment's folder stands for one. It stays when a run \
     is killed; on another machine than that run's it then has to be removed by hand",
);

/// Says what was met and has not been told yet.
pub(crate) fn tell(reporter: &Reporter) {
    for weakness in [&NO_SYNC, &NO_LOCKS] {
        if weakness.found.load(Ordering::Relaxed) && !weakness.told.swap(true, Ordering::Relaxed) {
            reporter.note(weakness.words);
        }
    }
}
