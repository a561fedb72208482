//! The jobs of an experiment in a file, so that a run that dies finds them again.
//!
//! A submission is recorded before `sbatch` is called, under a name that no other job has, and gets its number afterwards. A run that dies in
//! between finds the job by that name.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::script::exit_file;
use crate::{Experiment, StageError, checksummed_json, files};

/// The folder of scripts, logs and the record in an experiment.
const FOLDER: &str = "slurm";
const FILE: &str = "jobs.json";

/// All submissions that have not ended.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// The words of the command that every task runs, without its part.
    pub command: Vec<String>,
    pub submissions: Vec<Submission>,
    /// Failed attempts, by stage and part.
    pub tries: BTreeMap<String, Tries>,
    /// The number of submissions so far.
    pub submitted: u64,
    #[serde(skip)]
    folder: PathBuf,
}

/// An array of tasks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Submission {
    /// The name of the job.
    pub name: String,
    /// The number of the job; none until `sbatch` has returned it.
    pub job: Option<u64>,
    /// The folder of the stage: `0-prep`.
    pub stage: String,
    /// The tasks in the order of their numbers.
    pub tasks: Vec<Task>,
    /// The time limit in seconds.
    pub time: Option<u64>,
    /// The memory in megabytes.
    pub memory: Option<u64>,
}

/// A task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Task {
    /// The part; none for the whole stage.
    pub key: Option<String>,
    /// Why the part had to run, and from where it continued.
    pub reasons: Vec<String>,
    pub has_ended: bool,
}

/// The numbers of failed attempts at a part, by cause.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Tries {
    pub failures: u32,
    pub time_limits: u32,
    pub out_of_memory: u32,
}

impl Tries {
    pub fn total(self) -> u32 {
        self.failures.saturating_add(self.time_limits).saturating_add(self.out_of_memory)
    }
}

impl Submission {
    /// The tasks that have not ended, with their numbers.
    pub fn active(&self) -> impl Iterator<Item = (usize, &Task)> {
        self.tasks.iter().enumerate().filter(|(_, task)| !task.has_ended)
    }
}

impl Record {
    /// Reads the record of an experiment; an empty one if there is none, or with an error that describes the damage.
    pub fn read(experiment: &Experiment) -> (Self, Option<String>) {
        let folder = experiment.dir().join(FOLDER);
        let read = match std::fs::read(folder.join(FILE)) {
            Ok(bytes) => checksummed_json::open::<Self>(&bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(record) => (Self { folder, ..record }, None),
            Err(damage) => (Self { folder, ..Self::default() }, Some(damage)),
        }
    }

    /// Writes the record atomically.
    pub fn write(&self) -> Result<(), StageError> {
        files::make_dir(&self.folder)?;
        let bytes = checksummed_json::seal(self).map_err(StageError::other)?;
        files::write_atomically(&self.folder.join(FILE), &bytes)
    }

    /// Removes the file when no job is left.
    pub fn remove(&self) -> Result<(), StageError> {
        files::remove_any(&self.folder.join(FILE))
    }

    /// The script of a submission.
    pub fn script(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.sh"))
    }

    /// The beginning of the paths of the files with exit codes.
    pub fn exits(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The files with exit codes that are there.
    pub fn exit_files(&self) -> HashSet<PathBuf> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "exit")).collect()
    }

    /// The folder of the logs of a stage.
    pub fn logs(&self, stage: &str) -> PathBuf {
        self.folder.join("logs").join(stage)
    }

    /// The log of a task.
    pub fn log(&self, stage: &str, job: u64, task: usize) -> PathBuf {
        self.logs(stage).join(format!("{job}_{task}.log"))
    }

    /// The numbers of the jobs with tasks that have not ended.
    pub fn active_jobs(&self) -> Vec<u64> {
        self.submissions.iter().filter(|one| one.active().next().is_some()).filter_map(|one| one.job).collect()
    }

    /// The number of tasks that have not ended.
    pub fn active(&self) -> usize {
        self.submissions.iter().map(|one| one.active().count()).sum()
    }

    /// The parts of a stage that are in Slurm.
    pub fn active_keys(&self, stage: &str) -> Vec<Option<String>> {
        let of_stage = self.submissions.iter().filter(|one| one.stage == stage);
        of_stage.flat_map(|one| one.active().map(|(_, task)| task.key.clone())).collect()
    }

    /// Removes submissions whose tasks have all ended, with their scripts and exit codes. Logs stay.
    pub fn drop_ended(&mut self) -> Result<(), StageError> {
        let (ended, active): (Vec<_>, Vec<_>) =
            self.submissions.drain(..).partition(|one| one.active().next().is_none());
        self.submissions = active;
        if ended.is_empty() {
            return Ok(());
        }
        self.write()?;
        for one in ended {
            self.remove_files(&one)?;
        }
        Ok(())
    }

    /// Removes the script and the exit codes of a submission.
    pub fn remove_files(&self, one: &Submission) -> Result<(), StageError> {
        files::remove_any(&self.script(&one.name))?;
        for task in 0..one.tasks.len() {
            files::remove_any(&exit_file(&self.exits(&one.name), task))?;
        }
        Ok(())
    }
}

/// Returns the numbers of the jobs that a run of this experiment has in Slurm, as far as its last record says.
pub fn slurm_jobs(experiment: &Experiment) -> Vec<u64> {
    Record::read(experiment).0.active_jobs()
}

/// Returns the key of a part in [`Record::tries`].
pub(super) fn tries_key(stage: &str, key: Option<&str>) -> String {
    format!("{stage}/{}", key.unwrap_or("*"))
}

/// Returns the lines at the end of a log that are not empty.
pub(super) fn last_lines(log: &Path) -> Vec<String> {
    use std::io::{Read, Seek, SeekFrom};
    const TAIL: u64 = 1 << 16;
    let read = || {
        let mut file = std::fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

/// Returns the error at the end of a log, or its last lines; at most `count` lines.
pub(super) fn errors_of_log(log: &Path, count: usize) -> Vec<String> {
    let mut lines = last_lines(log);
    let first = lines.iter().rposition(|line| line.starts_with("error")).unwrap_or(lines.len().saturating_sub(count));
    lines.drain(..first);
    lines.truncate(count);
    lines
}
