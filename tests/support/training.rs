//! A training that runs while the test does something to it.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::flowmill::{Outcome, flowmill, outcome};
use super::mini::Mini;

/// Longer than anything here should take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// More steps than any test waits for, and few checkpoints of the schedule.
pub const ENDLESS: [&str; 6] =
    ["--set", "train.max_steps=10000000", "--set", "train.save_every=1000000", "--set", "train.validate_every=0"];

/// The lines of a file of metrics.
pub fn metrics(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// A running `flowmill run`, killed when dropped.
pub struct Training<'a> {
    mini: &'a Mini,
    process: Option<Child>,
    started: Instant,
}

impl<'a> Training<'a> {
    /// Starts it; the data stages should be done.
    pub fn start(mini: &'a Mini, arguments: &[&str]) -> Self {
        Self::start_with(mini, arguments, Stdio::null())
    }

    /// Starts it on another standard input.
    pub fn start_with(mini: &'a Mini, arguments: &[&str], input: Stdio) -> Self {
        let mut run = mini.command("run", &[&["--stop-stage", "train"], arguments].concat());
        Self::of(mini, run.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// A process that was started with the pipes that are read in the end.
    pub fn of(mini: &'a Mini, process: Child) -> Self {
        Self { mini, process: Some(process), started: Instant::now() }
    }

    /// The process.
    pub fn process(&mut self) -> &mut Child {
        self.process.as_mut().expect("it has not ended")
    }

    /// The number.
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("it has not ended").id()
    }

    /// The socket that it listens on.
    pub fn socket(&self) -> PathBuf {
        self.mini.exp(".control/socket")
    }

    /// Waits until it listens for commands.
    pub fn listening(self) -> Self {
        let began = Instant::now();
        while !self.socket().exists() {
            assert!(began.elapsed() < PATIENCE, "it does not listen");
            sleep(Duration::from_millis(5));
        }
        self
    }

    /// Gives it a command.
    pub fn ctl(&self, words: &[&str]) -> Outcome {
        let arguments = [&["ctl", "exp/mini"], words].concat();
        flowmill(self.mini.folder(), &arguments).expect_no_panic()
    }

    /// Kills it at once.
    pub fn kill(mut self) {
        let process = self.process();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Outcome {
        let process = self.process.take().expect("it has not ended");
        outcome(process.wait_with_output().unwrap(), self.started.elapsed())
    }
}

impl Drop for Training<'_> {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // Gone already, perhaps.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
