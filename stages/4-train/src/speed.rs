//! The logs of speed and memory: `speed.jsonl` and `tensorboard/` in the folder of the experiment.
//!
//! They are about runs and not about results, so they hold dates and lie next to the journal, outside of the stage's outputs. The events
//! of TensorBoard also have the losses, so that these can be shown by date.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowmill_train::metrics::tensorboard::{scalars_record, start_record, version_record};
use flowmill_train::{Progress, process_memory};
use serde::{Deserialize, Serialize};

use crate::totals::Totals;

/// The file, in the folder of the experiment.
pub const SPEED_FILE: &str = "speed.jsonl";

/// The folder of the events of TensorBoard, in the folder of the experiment. Every process has a file of its own.
pub const SPEED_EVENTS: &str = "tensorboard";

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
    events: EventLog,
    begun: Instant,
    written: Instant,
    since: Totals,
    step: u64,
    /// Learning rate and gradient norm of the last step.
    last: [(&'static str, f64); 2],
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
        Self {
            file: opened.ok(),
            events: EventLog::Unopened(experiment.join(SPEED_EVENTS)),
            begun: now,
            written: now,
            since: Totals::default(),
            step: 0,
            last: [("train/lr", f64::NAN), ("train/grad_norm", f64::NAN)],
            elements,
            unit,
        }
    }

    /// Adds a step, and a line when it is time for one.
    pub fn step(&mut self, progress: &Progress) {
        self.since.add(progress);
        self.step = progress.step;
        self.last = [("train/lr", progress.rate), ("train/grad_norm", progress.grad_norm)];
        let between = (self.begun.elapsed() / PART).clamp(SHORTEST, LONGEST);
        if self.written.elapsed() >= between {
            self.write();
        }
    }

    /// Adds the validation of a step.
    pub fn validated(&mut self, step: u64, loss: f64) {
        self.events.write(now(), step, vec![("validation/loss".to_owned(), loss)]);
    }

    fn write(&mut self) {
        let since = std::mem::take(&mut self.since);
        self.written = Instant::now();
        if since.steps == 0 {
            return;
        }
        let rate = |count: f64| count / since.seconds.max(1e-9);
        let speed = Speed {
            time: now(),
            step: self.step,
            seconds: since.seconds,
            steps_per_second: rate(since.steps as f64),
            samples_per_second: rate(since.items as f64),
            costs_per_second: rate(since.weight / self.elements.max(1) as f64),
            unit: self.unit.to_owned(),
            data_wait: rate(since.data_wait),
            memory: process_memory::resident(),
        };
        self.write_line(&speed);
        let mut scalars = vec![
            ("speed/steps_per_second".to_owned(), speed.steps_per_second),
            ("speed/samples_per_second".to_owned(), speed.samples_per_second),
            (format!("speed/{}_per_second", speed.unit), speed.costs_per_second),
            ("speed/data_wait".to_owned(), speed.data_wait),
            ("train/loss".to_owned(), since.loss / since.steps as f64),
        ];
        scalars.extend(speed.memory.map(|bytes| ("memory/megabytes".to_owned(), bytes as f64 / 1e6)));
        scalars.extend(since.part_means().iter().map(|(name, mean)| (format!("train/{name}"), *mean)));
        scalars.extend(self.last.map(|(tag, value)| (tag.to_owned(), value)));
        self.events.write(speed.time, speed.step, scalars);
    }

    fn write_line(&mut self, speed: &Speed) {
        let Some(file) = &mut self.file else { return };
        // One write, so that a kill leaves at most one torn line.
        let written = serde_json::to_string(speed).map(|line| file.write_all(format!("{line}\n").as_bytes()));
        if !matches!(written, Ok(Ok(()))) {
            self.file = None;
        }
    }
}

/// Returns the time in seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The event file of a process. It is created with the first event.
enum EventLog {
    /// There is no event yet; the folder.
    Unopened(PathBuf),
    /// The file, open for appending.
    Open(File),
    /// It could not be written, and is left alone.
    Failed,
}

impl EventLog {
    fn write(&mut self, time: f64, step: u64, scalars: Vec<(String, f64)>) {
        let mut bytes = Vec::new();
        if let Self::Unopened(folder) = self {
            let path = folder.join(format!("events.out.tfevents.{:010}.flowmill", time as u64));
            let opened = std::fs::create_dir_all(&*folder)
                .and_then(|()| OpenOptions::new().create(true).append(true).open(&path));
            *self = match opened {
                Ok(file) => Self::Open(file),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "there are no events of speed and memory");
                    Self::Failed
                }
            };
            bytes = [version_record(time), start_record(time, step.saturating_sub(1))].concat();
        }
        let Self::Open(file) = self else { return };
        bytes.extend(scalars_record(time, step, scalars));
        // One write, so that a kill leaves at most one torn record.
        if file.write_all(&bytes).is_err() {
            *self = Self::Failed;
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
    use flowmill_train::metrics::EventFile;

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
    fn the_events_have_dates() {
        let folder = tempfile::tempdir().unwrap();
        let begun = now();
        let mut log = SpeedLog::open(folder.path(), 80, "frames");
        for step in 1..=3 {
            let progress = Progress { step, loss: 0.5, items: 2, seconds: 0.5, rate: 0.25, ..Progress::default() };
            log.step(&progress);
        }
        log.validated(3, 0.75);
        drop(log);
        let files: Vec<_> = std::fs::read_dir(folder.path().join(SPEED_EVENTS)).unwrap().collect();
        assert_eq!(files.len(), 1);
        let events = EventFile::read(&files[0].as_ref().unwrap().path()).unwrap();
        assert!(events.first_time.unwrap() >= begun && events.last_time.unwrap() <= now());
        let last = |tag: &str| events.tags[tag].numbers.unwrap().last;
        let found = ["speed/steps_per_second", "speed/samples_per_second", "train/loss", "train/lr", "validation/loss"];
        assert_eq!(found.map(last), [2.0, 4.0, 0.5, 0.25, 0.75]);
        assert!(last("memory/megabytes") > 1.0);
        assert_eq!(events.tags["speed/frames_per_second"].last_step, 3);
        assert_eq!(events.damage, None);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(SPEED_FILE)).unwrap();
        SpeedLog::open(folder.path(), 1, "rows").step(&Progress::default());
    }
}
