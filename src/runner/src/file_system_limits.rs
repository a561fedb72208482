//! Features that the file system of an experiment lacks, and the workarounds. Each is reported once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::Reporter;

/// A feature that file systems of clusters and laptops may lack.
pub(crate) struct Limit {
    found: AtomicBool,
    told: AtomicBool,
    /// The message: what is missing, what follows, and what to do.
    words: &'static str,
}

impl Limit {
    const fn new(words: &'static str) -> Self {
        Self { found: AtomicBool::new(false), told: AtomicBool::new(false), words }
    }

    /// Records that the feature is missing.
    pub fn met(&self) {
        self.found.store(true, Ordering::Relaxed);
    }
}

/// Files cannot be forced to the disk.
pub(crate) static NO_SYNC: Limit = Limit::new(
    "warning: this file system cannot force files to the disk (fsync). Files damaged by a power failure or a crash of the server are \
     found by their checksums and made again; damaged checkpoints are lost",
);

/// Files cannot be locked.
pub(crate) static NO_LOCKS: Limit = Limit::new(
    "warning: this file system has no locks (flock) that all machines see. Files .lock-holder… in the experiment's folder are used instead, which \
     their processes renew. The file of a process that was killed on another machine counts for 90 s more",
);

/// Prints the missing features that were not reported yet.
pub(crate) fn tell(reporter: &Reporter) {
    for weakness in [&NO_SYNC, &NO_LOCKS] {
        if weakness.found.load(Ordering::Relaxed) && !weakness.told.swap(true, Ordering::Relaxed) {
            reporter.note(weakness.words);
        }
    }
}
