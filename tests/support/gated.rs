//! A recipe whose work stops in the middle until the test lets it go on.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Mini;

/// The options that commands on a [`Gated`] recipe need.
pub const PIPES: [&str; 2] = ["--set", "prep.allow_pipes=true"];

/// A copy whose recordings are read by commands that wait for a file.
pub struct Gated {
    /// The copy.
    pub mini: Mini,
}

impl Gated {
    /// Makes the copy; its gate is closed.
    pub fn new() -> Self {
        let mini = Mini::new();
        fs::create_dir(mini.path("reached")).unwrap();
        let mut entries = String::new();
        for line in fs::read_to_string(mini.path("data/wav.scp")).unwrap().lines() {
            let (id, _) = line.split_once(' ').unwrap();
            let folder = mini.folder().display();
            // It ends also when nobody opens the gate.
            entries.push_str(&format!(
                "{id} echo > {folder}/reached/$$; i=0; while [ ! -e {folder}/open ] && [ $i -lt 6000 ]; do i=$((i+1)); sleep 0.01; done; \
                 cat {folder}/data/audio/{id}.flac |\n"
            ));
        }
        fs::write(mini.path("data/wav.scp"), entries).unwrap();
        Self { mini }
    }

    /// Lets all commands go on.
    pub fn open(&self) {
        fs::write(self.mini.path("open"), "").unwrap();
    }

    /// The number of commands started.
    pub fn reached(&self) -> usize {
        fs::read_dir(self.mini.path("reached")).unwrap().count()
    }
}

/// Waits until something holds, for at most a minute.
pub fn wait_until(what: &str, holds: impl Fn() -> bool) {
    wait_at_most(Duration::from_secs(60), what, holds);
}

/// Waits until something holds.
pub fn wait_at_most(limit: Duration, what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < limit, "waited in vain until {what}");
        sleep(Duration::from_millis(5));
    }
}
