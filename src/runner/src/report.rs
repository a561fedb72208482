//! Output for people: lines on the standard output, and a progress bar or plain progress lines on the standard error.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::work::{Progress, lock};

/// The shortest interval between progress lines without a terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);
const REDRAW: Duration = Duration::from_millis(200);

type Sink = Arc<Mutex<dyn Write + Send>>;

/// The destination of results, notes and progress. Cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    results: Sink,
    notes: Sink,
    bars: Option<MultiProgress>,
    quiet: bool,
}

impl Reporter {
    /// Results to the standard output, the rest to the standard error, with a bar when that is a terminal and no log is written to it.
    pub fn new() -> Self {
        let logs = tracing::enabled!(tracing::Level::INFO);
        let bars = (std::io::stderr().is_terminal() && !logs).then(MultiProgress::new);
        let results: Sink = Arc::new(Mutex::new(std::io::stdout()));
        let notes: Sink = Arc::new(Mutex::new(std::io::stderr()));
        Self { results, notes, bars, quiet: false }
    }

    /// Creates a reporter without output. The caller prints errors.
    pub fn quiet() -> Self {
        let nowhere: Sink = Arc::new(Mutex::new(std::io::sink()));
        Self { results: Arc::clone(&nowhere), notes: nowhere, bars: None, quiet: true }
    }

    /// Creates a reporter that writes plain lines to the given writers.
    pub fn to_writers(results: impl Write + Send + 'static, notes: impl Write + Send + 'static) -> Self {
        Self { results: Arc::new(Mutex::new(results)), notes: Arc::new(Mutex::new(notes)), bars: None, quiet: false }
    }

    /// Prints a line that is part of the result.
    pub fn line(&self, text: impl std::fmt::Display) {
        self.write(&self.results, &text.to_string());
    }

    /// Prints a line for the person watching.
    pub fn note(&self, text: impl std::fmt::Display) {
        self.write(&self.notes, &text.to_string());
    }

    fn write(&self, sink: &Sink, text: &str) {
        // A closed pipe has no reader; the work continues.
        let write = || {
            let mut sink = lock(sink);
            drop(writeln!(sink, "{text}").and_then(|()| sink.flush()));
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    /// Starts the progress of a phase that goes through `total` units called `unit`.
    pub(crate) fn phase(&self, title: &str, unit: &'static str, total: u64) -> Arc<PhaseProgress> {
        let bar = self.bars.as_ref().map(|bars| bars.add(new_bar(title, unit, total)));
        let started = Instant::now();
        Arc::new(PhaseProgress {
            reporter: self.clone(),
            title: title.to_owned(),
            unit,
            total,
            done: AtomicU64::new(0),
            earlier: AtomicU64::new(0),
            bar,
            started,
            last_said: Mutex::new(started),
        })
    }
}

impl Default for Reporter {
    fn default() -> Self {
        Self::new()
    }
}

fn new_bar(title: &str, unit: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total).with_prefix(title.to_owned());
    set_style(&bar, unit, "");
    bar.enable_steady_tick(REDRAW);
    bar
}

/// Sets the look of the bar; `below` is the template of the text under it.
fn set_style(bar: &ProgressBar, unit: &str, below: &str) {
    let template =
        format!("  {{prefix}} {{wide_bar}} {{human_pos}}/{{human_len}} {unit}, {{per_sec}}, {{eta}} left {below}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
}

/// The progress of one phase.
pub(crate) struct PhaseProgress {
    reporter: Reporter,
    title: String,
    unit: &'static str,
    total: u64,
    done: AtomicU64,
    /// The units of `done` that were done before this run began.
    earlier: AtomicU64,
    bar: Option<ProgressBar>,
    started: Instant,
    last_said: Mutex<Instant>,
}

impl PhaseProgress {
    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Prints a line above the bar.
    pub fn note(&self, line: &str) {
        self.reporter.note(format!("  {line}"));
    }

    /// Shows one or several lines under the bar. Returns whether there is a bar.
    pub fn show(&self, line: &str) -> bool {
        if let Some(bar) = &self.bar {
            set_style(bar, self.unit, "\n  {msg}");
            bar.set_message(line.replace('\n', "\n  "));
        }
        self.bar.is_some()
    }

    /// Adds `units` to the finished units.
    pub fn add(&self, units: u64) {
        let done = self.done.fetch_add(units, Ordering::Relaxed).saturating_add(units);
        match &self.bar {
            Some(bar) => bar.inc(units),
            None if !self.reporter.quiet => self.say_now_and_then(done),
            None => {}
        }
    }

    /// Adds `units` that were done before this run began.
    pub fn resume(&self, units: u64) {
        self.done.fetch_add(units, Ordering::Relaxed);
        self.earlier.fetch_add(units, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.inc(units);
            bar.reset_eta();
        }
    }

    fn say_now_and_then(&self, done: u64) {
        let Ok(mut last) = self.last_said.try_lock() else {
            return;
        };
        if last.elapsed() >= PLAIN_INTERVAL {
            *last = Instant::now();
            self.reporter.note(self.describe(done, self.started.elapsed()));
        }
    }

    fn describe(&self, done: u64, elapsed: Duration) -> String {
        let own = done.saturating_sub(self.earlier.load(Ordering::Relaxed));
        let rate = own as f64 / elapsed.as_secs_f64().max(1e-3);
        let left = (self.total.saturating_sub(done)) as f64 / rate.max(1e-9);
        let (title, unit, total) = (&self.title, self.unit, self.total);
        format!("  {title}: {done} of {total} {unit}, {rate:.1}/s, {} left", seconds(left))
    }
}

/// The share of one part in the progress of its phase.
pub(crate) struct PartProgress {
    phase: Arc<PhaseProgress>,
    key: String,
    planned: u64,
    advanced: AtomicU64,
    /// True if the phase counts rows; otherwise it counts parts.
    counts_rows: bool,
}

impl PartProgress {
    pub fn new(phase: &Arc<PhaseProgress>, key: &str, planned: u64, counts_rows: bool) -> Self {
        let (phase, key) = (Arc::clone(phase), key.to_owned());
        Self { phase, key, planned, advanced: AtomicU64::new(0), counts_rows }
    }

    /// Returns the part of `rows` that is within the plan. The total never exceeds it, so that the bar ends at its
    /// end.
    fn within_plan(&self, rows: u64) -> u64 {
        let before = self.advanced.fetch_add(rows, Ordering::Relaxed).min(self.planned);
        before.saturating_add(rows).min(self.planned) - before
    }

    /// Accounts for the rows that the part did not report itself.
    pub fn finish(&self) {
        let units = if self.counts_rows { self.planned } else { 1 };
        self.phase.add(units.saturating_sub(self.advanced.load(Ordering::Relaxed)));
    }
}

impl Progress for PartProgress {
    fn advance(&self, rows: u64) {
        if self.counts_rows {
            self.phase.add(self.within_plan(rows));
        }
    }

    fn resume(&self, rows: u64) {
        if self.counts_rows {
            self.phase.resume(self.within_plan(rows));
        }
    }

    fn message(&self, line: &str) {
        self.phase.note(&format!("{}: {line}", self.key));
    }

    fn alert(&self, line: &str) {
        if self.phase.reporter.quiet {
            eprintln!("{}: {line}", self.key);
        } else {
            self.message(line);
        }
    }

    fn show(&self, line: &str) -> bool {
        self.phase.show(line)
    }
}

/// Formats a time for people: `0.4 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn seconds(value: f64) -> String {
    if !value.is_finite() || value >= 1e8 {
        return "a long time".to_owned();
    }
    let whole = value.round() as u64;
    match whole {
        _ if value < 10.0 => format!("{value:.1} s"),
        0..120 => format!("{whole} s"),
        120..7200 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_ends_at_its_end_whatever_a_part_says() {
        let phase = Reporter::quiet().phase("x", "rows", 30);
        for said in [0, 7, 25] {
            let part = PartProgress::new(&phase, "k", 10, true);
            part.advance(said);
            part.finish();
        }
        assert_eq!(phase.done.load(Ordering::Relaxed), 30);
    }

    #[test]
    fn a_plain_line_has_rate_and_time_left() {
        let phase = Reporter::quiet().phase("Decode", "rows", 1000);
        let line = phase.describe(250, Duration::from_secs(10));
        assert_eq!(line, "  Decode: 250 of 1000 rows, 25.0/s, 30 s left");
    }

    #[test]
    fn what_an_earlier_run_did_does_not_count_for_the_rate() {
        let phase = Reporter::quiet().phase("Train", "steps", 1000);
        let part = PartProgress::new(&phase, "k", 1000, true);
        part.resume(900);
        part.advance(20);
        let line = phase.describe(phase.done.load(Ordering::Relaxed), Duration::from_secs(10));
        assert_eq!(line, "  Train: 920 of 1000 steps, 2.0/s, 40 s left");
        part.finish();
        assert_eq!(phase.done.load(Ordering::Relaxed), 1000);
    }
}
