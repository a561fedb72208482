//! The log of speed and memory: `speed.jsonl` in the folder of the experiment.
//!
//! It is about runs and not about results, so it holds dates and lies next to the journal, outside of the stage's outputs.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowmill_train::{Progress, process_memory};
use serde::{Deserialize, Serialize};

use crate::totals::Totals;

/// The file, in the folder of the experiment.
pub const SPEED_FILE: &str = "speed.jsonl";

/// Shortest time between two lines.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest time between two lines.
const LONGEST: Duration = Duration::from_secs(60);
/// Between these, the time between two lines is this part of the time since the run began.
const PART: u32 = 100;

/// A line of the log: means over the steps since the line before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Seconds since 1970.
    pub time: f64,
    /// The step that was done last.
    pub step: u64,
    /// Seconds that the steps took.
    pub seconds: f64,
    /// Steps a second.
    pub steps_per_second: f64,
    /// Samples a second.
    pub samples_per_second: f64,
    /// Cost a second, in `unit`.
    pub costs_per_second: f64,
    /// Unit of costs, in the plural: `frames`.
    pub unit: String,
    /// Share of the time spent waiting for batches.
    pub data_wait: f64,
    /// Memory of the process in bytes, where it is known.
    pub memory: Option<u64>,
}

/// The log, open for appending. One that cannot be written is left alone: it costs no training.
pub struct SpeedLog {
    file: Option<File>,
    begun: Instant,
    written: Instant,
    since: Totals,
    step: u64,
    /// Number of elements of the loss for each unit of cost.
    elements: usize,
    unit: &'static str,
}

impl SpeedLog {
    /// Opens the log in the folder of an experiment.
    pub fn open(experiment: &Path, elements: usize, unit: &'static str) -> Self {
        let path = experiment.join(SPEED_FILE);
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        if let Err(error) = &opened {
            tracing::warn!(path = %path.display(), %error, "speed and memory are not logged");
        }
        let now = Instant::now();
        Self { file: opened.ok(), begun: now, written: now, since: Totals::default(), step: 0, elements, unit }
    }

    /// Adds a step, and a line when it is time for one.
    pub fn step(&mut self, progress: &Progress) {
        self.since.add(progress);
        self.step = progress.step;
        let between = (self.begun.elapsed() / PART).clamp(SHORTEST, LONGEST);
        if self.written.elapsed() >= between {
            self.write();
        }
    }

    fn write(&mut self) {
        let Totals { steps, items, weight, seconds, data_wait, .. } = std::mem::take(&mut self.since);
        self.written = Instant::now();
        let Some(file) = self.file.as_mut().filter(|_| steps > 0) else { return };
        let rate = |count: f64| count / seconds.max(1e-9);
        let speed = Speed {
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
            step: self.step,
            seconds,
            steps_per_second: rate(steps as f64),
            samples_per_second: rate(items as f64),
            costs_per_second: rate(weight / self.elements.max(1) as f64),
            unit: self.unit.to_owned(),
            data_wait: rate(data_wait),
            memory: process_memory::resident(),
        };
        // One write, so that a kill leaves at most one torn line.
        let written = serde_json::to_string(&speed).map(|line| file.write_all(format!("{line}\n").as_bytes()));
        if !matches!(written, Ok(Ok(()))) {
            self.file = None;
        }
    }
}

impl Drop for SpeedLog {
    /// Writes the steps since the last line.
    fn drop(&mut self) {
        self.write();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_of_a_run_are_all_in_the_log() {
        let folder = tempfile::tempdir().unwrap();
        for from in [0, 3] {
            let mut log = SpeedLog::open(folder.path(), 80, "frames");
            for step in from + 1..=from + 3 {
                let progress =
                    Progress { step, items: 2, weight: 1600.0, seconds: 0.5, data_wait: 0.1, ..Progress::default() };
                log.step(&progress);
            }
        }
        let text = std::fs::read_to_string(folder.path().join(SPEED_FILE)).unwrap();
        let lines: Vec<Speed> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.iter().map(|line| line.step).collect::<Vec<_>>(), [3, 6]);
        for Speed { seconds, steps_per_second, samples_per_second, costs_per_second, data_wait, .. } in &lines {
            let figures = [seconds, steps_per_second, samples_per_second, costs_per_second, data_wait];
            assert_eq!(figures.map(|figure| (figure * 1e6).round() / 1e6), [1.5, 2.0, 4.0, 40.0, 0.2]);
        }
    }

    #[test]
    fn a_log_that_cannot_be_written_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(SPEED_FILE)).unwrap();
        SpeedLog::open(folder.path(), 1, "rows").step(&Progress::default());
    }
}
