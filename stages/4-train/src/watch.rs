//! The loop's progress on the runner's bar.

use std::time::{Duration, Instant};

use flowmill_runner::PartWork;
use flowmill_train::{Observer, Progress};

/// Time between two lines of figures.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Passes steps and messages on to the person watching.
pub struct Watch<'a> {
    work: &'a PartWork,
    shown: Instant,
    /// Steps the bar has been told of.
    advanced: u64,
    since: Totals,
}

/// Sums since the last line.
#[derive(Default)]
struct Totals {
    steps: u64,
    loss: f64,
    seconds: f64,
    data_wait: f64,
}

impl<'a> Watch<'a> {
    /// Watches for the person behind `work`.
    pub fn new(work: &'a PartWork) -> Self {
        Self { work, shown: Instant::now(), advanced: 0, since: Totals::default() }
    }

    fn line(&self, progress: &Progress) -> String {
        let Totals { steps, loss, seconds, data_wait } = self.since;
        format!(
            "step {} of {} · epoch {} · loss {:.4} · lr {:.2e} · gradient {:.2} · {:.2} steps/s · data wait {:.0} %",
            progress.step,
            progress.steps,
            progress.epoch,
            loss / steps as f64,
            progress.rate,
            progress.grad_norm,
            steps as f64 / seconds.max(1e-9),
            100.0 * data_wait / seconds.max(1e-9),
        )
    }
}

impl Observer for Watch<'_> {
    fn step(&mut self, progress: &Progress) {
        // The first step after a resume also stands for those done before.
        self.work.advance(progress.step.saturating_sub(self.advanced));
        self.advanced = progress.step;
        self.since.steps += 1;
        self.since.loss += progress.loss;
        self.since.seconds += progress.seconds;
        self.since.data_wait += progress.data_wait;
        if self.shown.elapsed() >= BETWEEN_LINES {
            self.work.message(self.line(progress));
            self.since = Totals::default();
            self.shown = Instant::now();
        }
    }

    fn validated(&mut self, step: u64, loss: f64) {
        self.work.message(format!("step {step}: validation loss {loss:.4}"));
    }

    fn message(&mut self, text: &str) {
        self.work.message(text);
    }

    fn interrupted(&self) -> bool {
        self.work.interrupted()
    }
}
