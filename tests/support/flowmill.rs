//! Running the binary.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The result of a run of the binary.
pub struct Outcome {
    /// The exit code; none when it was killed.
    pub code: Option<i32>,
    /// The standard output.
    pub stdout: String,
    /// The standard error.
    pub stderr: String,
    /// The wall-clock duration.
    pub took: Duration,
}

/// The words of a run or a dry run for a stage that it does not run.
#[derive(Debug, Clone, Copy)]
pub enum Verdict {
    /// The stage was up to date.
    UpToDate,
    /// A run would run parts of it.
    WouldRun,
    /// A run would be refused there.
    Refused,
}

/// The words before the step of the checkpoint from which a training continues.
const RESUMED: &str = "resuming from step-";

impl Outcome {
    /// Returns everything it printed, for searching and for messages of failed tests.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Checks the exit code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code; it printed:\n{}", self.text());
        self.expect_no_panic()
    }

    /// Checks the kind of the error (`docs/ERRORS.md`) and its exit code.
    #[track_caller]
    pub fn expect_error(self, kind: &str, code: i32) -> Self {
        let outcome = self.expect_code(code);
        assert!(outcome.stderr.contains(&format!("error[{kind}]: ")), "not {kind}: {}", outcome.stderr);
        outcome
    }

    /// Checks that all stages were up to date.
    #[track_caller]
    pub fn expect_nothing_to_do(self) -> Self {
        self.expect_words(&["nothing to do: all "])
    }

    /// Checks that a stage was up to date.
    #[track_caller]
    pub fn expect_up_to_date(self) -> Self {
        self.expect_words(&[": up to date"])
    }

    /// Checks the rows that a stage counted.
    #[track_caller]
    pub fn expect_rows(self, rows_in: usize, rows_out: usize, rejected: usize) -> Self {
        self.expect_words(&[&format!("{rows_in} rows in, {rows_out} out, {rejected} rejected")])
    }

    /// Checks what is said of a stage.
    #[track_caller]
    pub fn expect_verdict(self, stage: &str, verdict: Verdict) -> Self {
        assert!(self.has_verdict(stage, verdict), "not {verdict:?} of {stage}: {}", self.text());
        self
    }

    /// Returns whether the output says this of a stage.
    pub fn has_verdict(&self, stage: &str, verdict: Verdict) -> bool {
        let words = match verdict {
            Verdict::UpToDate => "up to date",
            Verdict::WouldRun => "would run",
            Verdict::Refused => "would be refused",
        };
        self.text().contains(&format!("{stage}: {words}"))
    }

    /// Returns whether a training continued from a checkpoint.
    pub fn has_resumed(&self) -> bool {
        self.text().contains(RESUMED)
    }

    /// Checks that a training continued from a checkpoint.
    #[track_caller]
    pub fn expect_resumed(self) -> Self {
        self.expect_words(&[RESUMED])
    }

    /// Checks that a training continued from the checkpoint of this step.
    #[track_caller]
    pub fn expect_resumed_from(self, step: u64) -> Self {
        self.expect_words(&[&format!("{RESUMED}{step:06}")])
    }

    /// Checks that nothing panicked and no backtrace was shown.
    #[track_caller]
    pub fn expect_no_panic(self) -> Self {
        let text = self.text();
        assert!(!text.contains("panicked at") && !text.contains("stack backtrace"), "it panicked:\n{text}");
        self
    }

    /// Checks that all of `words` were printed.
    #[track_caller]
    pub fn expect_words(self, words: &[&str]) -> Self {
        let text = self.text();
        for word in words {
            assert!(text.contains(word), "`{word}` was not printed; it printed:\n{text}");
        }
        self
    }
}

/// The binary with `arguments`, in `folder`, with an environment that does not depend on who runs the test.
pub fn command<S: AsRef<OsStr>>(folder: &Path, arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowmill"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command.env("NO_COLOR", "1").env_remove("RUST_BACKTRACE").env_remove("RAYON_NUM_THREADS").env_remove("RUST_LOG");
    command
}

/// Runs the binary with `arguments` in `folder` and waits for its end.
pub fn flowmill<S: AsRef<OsStr>>(folder: &Path, arguments: &[S]) -> Outcome {
    let start = Instant::now();
    let output = command(folder, arguments).output().expect("the binary can be started");
    outcome(output, start.elapsed())
}

/// Waits for the end of a process.
pub fn finish(process: Child) -> Outcome {
    let start = Instant::now();
    outcome(process.wait_with_output().unwrap(), start.elapsed())
}

/// Returns the name of this machine.
pub fn host() -> String {
    let printed = Command::new("uname").arg("-n").output().unwrap().stdout;
    String::from_utf8(printed).unwrap().trim().to_owned()
}

/// Returns the outcome of a finished process.
pub fn outcome(output: Output, took: Duration) -> Outcome {
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took,
    }
}
