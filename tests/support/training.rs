//! A training that runs while the test does something to it.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::flowmill::{Outcome, flowmill, outcome};
use super::mini::Mini;

/// Longer than anything here should take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

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
        let process = run.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Self { mini, process: Some(process), started: Instant::now() }
    }

    /// The process.
    pub fn process(&mut self) -> &mut Child {
        self.process.as_mut().expect("it has not ended")
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
