//! Stopping when the person asks, or the scheduler.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::flag;

/// Whether the person asked to stop. Cheap to clone; all clones see the same.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
    /// Whether the next SIGINT or SIGTERM ends the process at once.
    insisted: Arc<AtomicBool>,
}

impl Interrupt {
    /// One that is set by Ctrl-C (SIGINT), SIGTERM, or SIGUSR1, which Slurm sends before its time limit
    /// (`--signal=USR1@120`). A second SIGINT or SIGTERM ends the process at once with exit code 130, which is as safe as
    /// any other crash; after a SIGUSR1 the first one does not, so that what is being saved has the scheduler's grace period.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn on_signals() -> std::io::Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupt.insisted))?;
            flag::register(signal, Arc::clone(&interrupt.insisted))?;
            flag::register(signal, Arc::clone(&interrupt.flag))?;
        }
        flag::register(SIGUSR1, Arc::clone(&interrupt.flag))?;
        // A file that would exceed the limit on file sizes is an error of the write, not the end of the process.
        flag::register(SIGXFSZ, Arc::default())?;
        Ok(interrupt)
    }

    /// Asks to stop.
    pub fn set(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Forgets the wish to stop, so that the next signal is heard once more before one ends the process: for work that has to say
    /// first what would be lost. Returns whether there was a wish.
    pub fn rearm(&self) -> bool {
        self.insisted.store(false, Ordering::Relaxed);
        self.flag.swap(false, Ordering::Relaxed)
    }

    /// Returns whether to stop.
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
}
