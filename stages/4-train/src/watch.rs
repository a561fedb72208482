//! The loop's progress on the runner's bar, and the commands of those who watch it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flowmill_runner::PartWork;
use flowmill_train::steering::{Answer, Control, Request, Source, Terminal};
use flowmill_train::{Observer, Progress};

/// What is made by command goes into this folder of the experiment: it is no result of a stage.
pub const ASIDE: &str = "on-command";

/// Time between two lines of figures.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Passes steps and messages on to the person watching, and commands to the loop.
pub struct Watch<'a> {
    work: &'a PartWork,
    shown: Instant,
    /// Steps the bar has been told of.
    advanced: u64,
    since: Totals,
    aside: PathBuf,
    control: Option<Control>,
    terminal: Option<Terminal>,
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
    /// Watches for the person behind `work`, and listens for commands in the experiment's folder and at the terminal.
    pub fn new(work: &'a PartWork, experiment: &Path) -> Self {
        let control = Control::open(experiment);
        if let Err(error) = &control {
            work.message(format!("`flowmill ctl` cannot reach this run: {}: {error}", experiment.display()));
        }
        let terminal = Terminal::open();
        if terminal.is_some() {
            work.message(
                "type `status`, `save`, `quit`, `lr 1e-4`, `eval`, `sample` or `export` and Enter at any time",
            );
        }
        Self {
            work,
            shown: Instant::now(),
            advanced: 0,
            since: Totals::default(),
            aside: experiment.join(ASIDE),
            control: control.ok(),
            terminal,
        }
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

    fn requests(&mut self) -> Vec<Request> {
        let typed = self.terminal.iter_mut().flat_map(Terminal::lines);
        let sent = self.control.iter_mut().flat_map(Control::lines);
        let typed = typed.map(|text| Request { text, source: Source::Terminal });
        typed.chain(sent.map(|(number, text)| Request { text, source: Source::Control(number) })).collect()
    }

    fn answer(&mut self, request: &Request, answer: &Answer) {
        let text = request.text.escape_debug();
        match answer {
            Ok(done) => self.work.message(format!("{text}: {done}")),
            Err(reason) => self.work.message(format!("{text}: not done: {reason}")),
        }
        if let (Source::Control(number), Some(control)) = (request.source, &mut self.control) {
            control.answer(number, answer);
        }
    }

    fn aside(&self) -> Option<PathBuf> {
        Some(self.aside.clone())
    }
}
