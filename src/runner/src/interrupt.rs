//! Stop requests from the user or the scheduler.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::flag;

/// A flag that is set when the user asks to stop. Cheap to clone; all clones share it.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
    /// True if the next SIGINT or SIGTERM ends the process immediately.
    insisted: Arc<AtomicBool>,
}

impl Interrupt {
    /// Creates a flag that is set by Ctrl-C (SIGINT), SIGTERM or SIGUSR1, which Slurm sends before its time limit
    /// (`--signal=USR1@120`). A second SIGINT or SIGTERM ends the process immediately with exit code 130, which is as
    /// safe as any other crash. The first SIGINT or SIGTERM after a SIGUSR1 does not, so that a save in progress has
    /// the scheduler's grace period.
    ///
    /// # Errors
    /// Returns an error if the system refuses the handlers.
    pub fn on_signals() -> std::io::Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupt.insisted))?;
            flag::register(signal, Arc::clone(&interrupt.insisted))?;
            flag::register(signal, Arc::clone(&interrupt.flag))?;
        }
        flag::register(SIGUSR1, Arc::clone(&interrupt.flag))?;
        // Turns a write beyond the limit on file sizes into an error instead of the end of the process.
        flag::register(SIGXFSZ, Arc::default())?;
        Ok(interrupt)
    }

    /// Asks to stop.
    pub fn set(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Clears the request to stop, so that one more signal is handled before the next one ends the process. For work
    /// that first has to report what would be lost. Returns whether there was a request.
    pub fn rearm(&self) -> bool {
        self.insisted.store(false, Ordering::Relaxed);
        self.flag.swap(false, Ordering::Relaxed)
    }

    /// Returns whether a stop was requested.
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
}
