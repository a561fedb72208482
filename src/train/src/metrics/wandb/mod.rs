//! Weights & Biases runs without its program: the file of an offline run, which `wandb sync` uploads.
//!
//! `wandb/offline-run-…-ID/run-ID.wandb` is a LevelDB log of `wandb_internal.Record` protocol buffers: a header, the run with its
//! configuration, the history, a summary and the exit. It holds no host, and without `wall_clock` no clock: times are steps in seconds
//! since 1970, and the run's id is a hash of project, name and configuration, so that two trainings of one recipe write the same bytes.
//! With it, the start of the run is in its name and part of its id, so that two trainings are two runs.

mod log;
mod read;
mod records;

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::append::AppendFile;
use super::clock::{Clock, compact};
use crate::TrainError;
pub use read::{WandbContent, WandbRunFacts, begins_wandb};

/// Subfolder of the training with the run, where `wandb sync` finds it.
pub const WANDB_FOLDER: &str = "wandb";

/// Settings of an offline run of Weights & Biases in `4-train/wandb/`, which `wandb sync` uploads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WandbConfig {
    /// The project that the run belongs to. Required.
    ///
    /// Counterparts: `wandb.init(project)`.
    pub project: String,
    /// Name of the run; by default that of the experiment.
    ///
    /// Counterparts: `wandb.init(name)`.
    #[serde(default)]
    pub name: Option<String>,
    /// The user or team; by default that of the user who uploads the run.
    #[serde(default)]
    pub entity: Option<String>,
    /// The group that the run is shown with.
    #[serde(default)]
    pub group: Option<String>,
    /// Tags that the run can be found by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// A description of the run.
    #[serde(default)]
    pub notes: Option<String>,
}

impl WandbConfig {
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        let fail = |key, reason: &str| Err(TrainError::Config { key, reason: reason.to_owned() });
        // Characters that W&B does not allow in a project's name.
        if self.project.is_empty() || self.project.len() > 128 || self.project.contains(['/', '\\', '#', '?', '%', ':'])
        {
            return fail("wandb.project", "must be a name of 1 to 128 characters without / \\ # ? % :");
        }
        if self.name.as_ref().is_some_and(|name| name.is_empty() || name.len() > 128) {
            return fail("wandb.name", "must have 1 to 128 characters, or be null for the experiment's name");
        }
        Ok(())
    }
}

/// A run with all the metadata that is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WandbRun {
    /// The settings.
    pub settings: WandbConfig,
    /// The configuration of the training.
    pub config: Value,
}

impl WandbRun {
    /// The run's id: eight characters as W&B makes them, of everything that describes it, with its start if it has one.
    fn id(&self, started: Option<f64>) -> String {
        const CHARACTERS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let started = started.map_or(String::new(), |seconds| format!("\n{seconds}"));
        let hash = blake3::hash(format!("{:?}\n{}{started}", self.settings, self.config).as_bytes());
        hash.as_bytes()[..8].iter().map(|byte| CHARACTERS[usize::from(*byte) % CHARACTERS.len()] as char).collect()
    }

    /// The run's file, relative to the folder of the training; `started` is its start in seconds since 1970.
    fn file(&self, started: Option<f64>) -> String {
        let (id, date) = (self.id(started), compact(started.unwrap_or(0.0)));
        format!("{WANDB_FOLDER}/offline-run-{date}-{id}/run-{id}.wandb")
    }
}

/// The file, open for appending.
#[derive(Debug)]
pub(crate) struct WandbFile {
    file: AppendFile,
    /// The name, in the folder of the training.
    name: String,
    /// Records written.
    records: u64,
    /// The latest value of each name, for the summary.
    latest: Map<String, Value>,
    /// The measurements of the latest step so far: one record per step.
    row: Option<(Moment, Vec<(String, Value)>)>,
    clock: Clock,
    /// Start of the run in seconds since 1970, if it has a clock.
    started: Option<f64>,
}

/// A step and the time at which it was done.
#[derive(Debug, Clone, Copy)]
struct Moment {
    step: u64,
    /// Seconds since 1970.
    time: f64,
    /// Seconds since the start of the run.
    runtime: f64,
}

impl WandbFile {
    /// Opens the file of a run, cut to where a checkpoint knows of it; a new one begins with the run's description. A run that is
    /// continued stays in its file, whatever describes it now.
    pub(crate) fn open(
        folder: &Path,
        run: &WandbRun,
        before: &WandbPosition,
        clock: Clock,
    ) -> Result<Self, TrainError> {
        // A run that was begun without a clock has one from here on.
        let started = before.started.or_else(|| (clock == Clock::Wall).then(|| clock.seconds(0)));
        let name = before.file.clone().unwrap_or_else(|| run.file(started));
        let mut records = 0;
        let file = AppendFile::open(&folder.join(&name), before.length, &mut |file, length| {
            let (end, count) = log::whole_records(file, length)?;
            records = count;
            Ok(end)
        })?;
        let mut opened = Self { file, name, records, latest: before.latest.clone(), row: None, clock, started };
        if opened.file.length() == 0 {
            opened.file.append(&log::HEADER);
            opened.write(records::header());
            opened.write(records::run(run, &run.id(started), started));
        }
        Ok(opened)
    }

    /// Takes the problem with the file; it is returned once.
    pub(crate) fn trouble(&mut self) -> Option<String> {
        self.file.trouble()
    }

    /// Adds measurements of a step; they are written at the next step or at the end.
    pub(crate) fn history(&mut self, step: u64, values: &[(String, f32)]) {
        let values: Vec<(String, Value)> =
            values.iter().map(|(name, value)| (name.clone(), super::number(f64::from(*value)))).collect();
        self.latest.extend(values.iter().cloned());
        match &mut self.row {
            Some((at, row)) if at.step == step => row.extend(values),
            _ => {
                self.flush();
                self.row = Some((self.moment(step), values));
            }
        }
    }

    fn moment(&self, step: u64) -> Moment {
        let time = self.clock.seconds(step);
        let started = self.started.filter(|_| self.clock == Clock::Wall).unwrap_or(0.0);
        Moment { step, time, runtime: time - started }
    }

    fn flush(&mut self) {
        if let Some((moment, values)) = self.row.take() {
            self.write(records::history(moment, &values));
        }
    }

    /// Writes summary and exit, because the run is complete.
    pub(crate) fn finish(&mut self, step: u64) -> Result<(), TrainError> {
        self.flush();
        self.write(records::summary(self.moment(step), &self.latest));
        self.write(records::exit(step));
        self.file.sync()
    }

    /// Makes everything written durable and returns the position of its end.
    pub(crate) fn sync(&mut self) -> Result<WandbPosition, TrainError> {
        self.flush();
        self.file.sync()?;
        Ok(WandbPosition {
            length: self.file.length(),
            records: self.records,
            latest: self.latest.clone(),
            file: Some(self.name.clone()),
            started: self.started,
        })
    }

    fn write(&mut self, record: flowmill_weights::protobuf::Message) {
        self.records += 1;
        // Records are numbered from 1.
        let record = record.varint(1, self.records);
        self.file.append(&log::framed(self.file.length(), &record.0));
    }
}

/// Position in the file at some step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WandbPosition {
    /// Position in bytes.
    pub length: u64,
    /// Number of records.
    pub records: u64,
    /// The latest value of each name.
    pub latest: Map<String, Value>,
    /// The file's name, in the folder of the training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Start of the run in seconds since 1970, of a run with a clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<f64>,
}
