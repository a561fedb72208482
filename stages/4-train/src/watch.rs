//! The loop's progress on the runner's bar, and the commands of users.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flowmill_family::Configured;
use flowmill_runner::PartWork;
use flowmill_train::steering::{Answer, Control, Request, Source, Terminal};
use flowmill_train::{Freeable, Observer, Progress, process_memory};

use crate::speed::SpeedLog;
use crate::totals::Totals;

/// The folder of the experiment for files made by command: they are not results of a stage.
pub const ASIDE: &str = "on-command";

/// Number of parts of the loss in a line; metrics and report have all of them.
const SHOWN_PARTS: usize = 6;
/// The time between two lines of figures, if they are printed below each other.
const BETWEEN_LINES: Duration = Duration::from_secs(10);
/// The time between two updates of figures that are shown in one place.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// The connection of the loop to the user: steps, messages and commands.
pub struct Watch<'a> {
    work: &'a PartWork,
    shown: Instant,
    /// The number of steps reported to the bar.
    advanced: u64,
    /// Sums since the last line.
    since: Totals,
    speed: SpeedLog,
    /// Number of elements of the loss for each unit of cost: a loss's weight divided by it is in units of cost.
    elements: usize,
    /// Unit of costs, such as `frames`.
    unit: &'static str,
    aside: PathBuf,
    results: &'a Path,
    control: Option<Control>,
    terminal: Option<Terminal>,
}

impl<'a> Watch<'a> {
    /// Creates the connection for `work`, which listens for commands in the experiment's folder and at the terminal.
    /// `results` is the place of the results.
    pub fn new(work: &'a PartWork, experiment: &Path, results: &'a Path, model: &dyn Configured) -> Self {
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
            speed: SpeedLog::open(experiment, model.elements_per_cost(), model.cost_unit()),
            elements: model.elements_per_cost(),
            unit: model.cost_unit(),
            aside: experiment.join(ASIDE),
            results,
            control: control.ok(),
            terminal,
        }
    }

    /// Formats the means since the last line.
    fn means(&self, progress: &Progress) -> String {
        let Totals { steps, loss, .. } = &self.since;
        let parts = self.since.part_means();
        let count = (*steps).max(1) as f64;
        let mut text = format!("loss {:.4}", loss / count);
        // A single part is the loss itself.
        if parts.len() > 1 {
            let parts = parts.iter().take(SHOWN_PARTS);
            let parts: Vec<String> = parts.map(|(name, mean)| format!("{name} {mean:.4}")).collect();
            text += &format!(" ({})", parts.join(", "));
        }
        text + &format!(" · lr {:.2e} · gradient {:.2}", progress.rate, progress.grad_norm)
    }

    /// Formats the rates since the last line, and the memory.
    fn rates(&self) -> String {
        let Totals { items, weight, seconds, data_wait, .. } = &self.since;
        let seconds = seconds.max(1e-9);
        let (samples, costs) = (*items as f64 / seconds, weight / self.elements.max(1) as f64 / seconds);
        let wait = 100.0 * data_wait / seconds;
        let mut text = format!("{samples:.1} samples/s · {costs:.0} {}/s · data wait {wait:.0} %", self.unit);
        if let Some(bytes) = process_memory::resident() {
            text += &format!(" · {} MB", bytes / 1_000_000);
        }
        text
    }

    /// Formats the state of the run, for lines that are printed below each other.
    fn line(&self, progress: &Progress) -> String {
        let Progress { step, steps, epoch, .. } = progress;
        let rate = self.since.steps as f64 / self.since.seconds.max(1e-9);
        let (means, rates) = (self.means(progress), self.rates());
        format!("step {step} of {steps} · epoch {epoch} · {means} · {rate:.2} steps/s · {rates}")
    }
}

impl Observer for Watch<'_> {
    fn step(&mut self, progress: &Progress) {
        if self.advanced == 0 {
            // The steps of an earlier process.
            self.advanced = progress.step.saturating_sub(1);
            self.work.resume(self.advanced);
        }
        self.work.advance(progress.step.saturating_sub(self.advanced));
        self.advanced = progress.step;
        self.since.add(progress);
        self.speed.step(progress);
        let elapsed = self.shown.elapsed();
        let shown = elapsed >= BETWEEN_LOOKS && self.work.show(format!("{}\n{}", self.means(progress), self.rates()));
        if !shown && elapsed >= BETWEEN_LINES {
            self.work.message(self.line(progress));
        }
        if shown || elapsed >= BETWEEN_LINES {
            self.since = Totals::default();
            self.shown = Instant::now();
        }
    }

    fn validated(&mut self, step: u64, loss: f64) {
        self.speed.validated(step, loss);
        self.work.message(format!("step {step}: validation loss {loss:.4}"));
    }

    fn message(&mut self, text: &str) {
        self.work.message(text);
    }

    fn alert(&mut self, text: &str) {
        self.work.alert(text);
    }

    fn interrupted(&self) -> bool {
        self.work.interrupted()
    }

    fn rearm_interrupt(&mut self) -> bool {
        self.work.rearm_interrupt()
    }

    fn ask_to_stop(&mut self) {
        self.work.ask_to_stop();
    }

    fn free_space(&self) -> Option<u64> {
        self.work.free_space()
    }

    fn freeable(&self) -> Vec<Freeable> {
        Freeable::at(self.aside.clone(), "made by `flowmill ctl`, not results").into_iter().collect()
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

    fn final_place(&self, file: &Path) -> Option<PathBuf> {
        let relative = file.strip_prefix(self.work.staging_dir()).ok()?;
        Some(self.results.join(relative))
    }

    fn aside(&self) -> Option<PathBuf> {
        Some(self.aside.clone())
    }
}
