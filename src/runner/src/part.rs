//! What a stage plans: phases of parts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{PartReport, PartWork, StageError};

/// Parts of a stage that may run at the same time; the next phase is planned when all of them are done.
pub struct Phase {
    /// What this phase does, shown beside the progress bar.
    pub title: String,
    /// Its parts, in an order that a person expects; they must not read each other's outputs.
    pub parts: Vec<Part>,
    /// What its progress counts, in the plural.
    pub(crate) unit: &'static str,
}

impl Phase {
    /// A phase with its title and parts.
    pub fn new(title: impl Into<String>, parts: Vec<Part>) -> Self {
        Self { title: title.into(), parts, unit: "rows" }
    }

    /// Progress that counts something else than rows, such as `steps`.
    #[must_use]
    pub fn counting(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }
}

/// The work of a part: runs once, on one of the runner's threads.
pub(crate) type Work = Box<dyn FnOnce(&PartWork) -> Result<PartReport, StageError> + Send>;

/// How far resumable work got, in the stage's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Where it stands: `step 44 of 400`.
    pub at: String,
    /// What is lost with it: `2 checkpoints (steps 40 and 44)`.
    pub holds: String,
    /// How other settings can make use of it, in the imperative: `to start from its weights, …`; `None` when they cannot.
    pub reuse: Option<String>,
}

/// What another end that the configuration asks for means to work that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Nothing: the end is the same, or the work is at its end by the new rule too.
    Same,
    /// The end is another, and the work is at its end all the same: why, and what to do.
    Stays(String),
    /// The work goes on from where it is, to an end that is described here.
    Further(String),
    /// The work is beyond that end; what to do.
    Passed(String),
}

/// Where a file of the results belongs in the folder that the work goes on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// There, as another name of the same file: nothing changes it.
    Linked(String),
    /// There, as a copy that is written to. The work goes on without it when it cannot be copied.
    Copied(String),
}

/// What work was begun with, as the work itself keeps it ([`crate::PartWork::record`]): the record of it is made again from this when it is
/// lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkRecord {
    /// The stage's version; `None`: unknown.
    pub version: Option<u32>,
    /// The configuration.
    pub config: Value,
    /// The content of every input, by its role or name; `None`: unknown.
    pub inputs: Option<BTreeMap<String, Option<String>>>,
}

/// A recorded configuration in the terms of the present one; see [`Resumable::recorded`].
pub type Recorded = Arc<dyn Fn(&Value, &Value) -> Value + Send + Sync>;

/// How work that saves where it is goes on: after an interruption, and from its results to another end. See [`Part::resumable`].
///
/// A folder is that of the work ([`PartWork::staging_dir`]) or, when it is finished, that of the stage's results. The functions are called by
/// `status` and `--dry-run` too: they must be quick, write nothing, and take any content.
#[derive(Clone)]
pub struct Resumable {
    /// How far the work got that left a folder; `None` when nothing would be lost with it.
    pub reached: fn(&Path) -> Result<Option<Reached>, StageError>,
    /// What the work does when the person asks to stop, and what they lose who insist.
    pub on_stop: &'static str,
    /// A configuration that was recorded (first), in the terms of the present one (second): without fields that do not count, and
    /// with the defaults of those that were added since.
    pub recorded: Recorded,
    /// What the work in a folder was begun with, as far as the work tells, `now` being the present configuration; `None` when it does
    /// not tell.
    pub record: fn(folder: &Path, now: &Value) -> Result<Option<WorkRecord>, StageError>,
    /// The keys of the configuration that only say where the work ends.
    pub ends: &'static [&'static str],
    /// What the end that a configuration asks for means to the work in a folder that was begun with another.
    pub end: fn(folder: &Path, then: &Value, now: &Value) -> Result<End, StageError>,
    /// Where an output belongs in the folder of the work, when it goes on from its results; `None` when it is not needed there.
    pub restored: fn(output: &str) -> Option<Restored>,
}

/// A file that a part reads.
pub(crate) struct Input {
    /// What it is compared by instead of its path.
    pub role: Option<String>,
    pub path: PathBuf,
    /// Whether the part does without it when it is taken away.
    pub optional: bool,
    /// Whether it may be gone once the part is done.
    pub starting: bool,
    /// The key of the configuration that holds a digest of what the part reads of it, dotted: it is not compared itself.
    pub digest: Option<String>,
}

/// The unit that runs, is committed, and is up to date or not: say 1,000 utterances, or a whole training.
pub struct Part {
    pub(crate) key: String,
    pub(crate) config: Value,
    pub(crate) inputs: Vec<Input>,
    pub(crate) rows: u64,
    pub(crate) resumable: Option<Resumable>,
    pub(crate) work: Option<Work>,
}

impl Part {
    /// A part with its name, unique in the stage: letters, digits, `.`, `_`, `-`, and `/` between folders, such as
    /// `train/part-00000`.
    pub fn new(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            config: Value::Object(Map::new()),
            inputs: Vec::new(),
            rows: 0,
            resumable: None,
            work: None,
        }
    }

    /// The resolved configuration this part reads, an object; when a field of it changes, the part runs again.
    ///
    /// Keys that are not top-level keys of a recipe are shown with the stage's name before them: `lr` of the stage
    /// `train` as `train.lr`.
    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// A file whose content the part reads. A file that does not exist is allowed, and its absence is remembered; of
    /// a folder everything below it counts. A file that was there and is gone stops the run unless it is forced.
    pub fn input(mut self, path: impl Into<PathBuf>) -> Self {
        self.inputs.push(Input { role: None, path: path.into(), optional: false, starting: false, digest: None });
        self
    }

    /// Several files whose content the part reads; see [`Part::input`].
    pub fn inputs<P: Into<PathBuf>>(self, paths: impl IntoIterator<Item = P>) -> Self {
        paths.into_iter().fold(self, |part, path| part.input(path))
    }

    /// A file that may be taken away: the part does without it then.
    pub fn optional_input(mut self, path: impl Into<PathBuf>) -> Self {
        self.inputs.push(Input { role: None, path: path.into(), optional: true, starting: false, digest: None });
        self
    }

    /// A file whose content the part reads and whose path does not matter to it: it is known by its role, such as
    /// `recording 3`. The same content at another path changes nothing.
    pub fn input_as(mut self, role: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.inputs.push(Input {
            role: Some(role.into()),
            path: path.into(),
            optional: false,
            starting: false,
            digest: None,
        });
        self
    }

    /// Several files that are known by what they are and their place among these: `recording 0`, `recording 1`.
    pub fn inputs_as<P: Into<PathBuf>>(self, role: &str, paths: impl IntoIterator<Item = P>) -> Self {
        let numbered = paths.into_iter().enumerate();
        numbered.fold(self, |part, (number, path)| part.input_as(format!("{role} {number}"), path))
    }

    /// Marks the inputs that `add` adds as files of which the configuration holds a digest at `key` (dotted, below the stage's name): what
    /// the part reads of them. They are not recorded; a change of the digest is reported as a change of these files, and records of earlier
    /// versions that name them are compared by their content.
    pub fn digested(self, key: &str, add: impl FnOnce(Self) -> Self) -> Self {
        let before = self.inputs.len();
        let mut part = add(self);
        part.inputs.iter_mut().skip(before).for_each(|input| input.digest = Some(key.to_owned()));
        part
    }

    /// Marks the inputs that `add` adds as what the part begins with, such as pretrained weights: a change of their content runs the
    /// part again, but once it is done they may be gone.
    pub fn starting(self, add: impl FnOnce(Self) -> Self) -> Self {
        let before = self.inputs.len();
        let mut part = add(self);
        part.inputs.iter_mut().skip(before).for_each(|input| input.starting = true);
        part
    }

    /// How many rows (or steps) the part will go through, for the progress bar; see [`PartWork::advance`].
    pub fn rows(mut self, rows: u64) -> Self {
        self.rows = rows;
        self
    }

    /// Keeps [`PartWork::staging_dir`] after a crash or an interruption: for work that saves where it is, such as training. It goes
    /// on while what decides it stays the same, from its results too when it is to end later. When something else has changed, and
    /// work would be lost, finished or not, the part is refused unless it is forced.
    pub fn resumable(mut self, resumable: Resumable) -> Self {
        self.resumable = Some(resumable);
        self
    }

    /// What to do; called at most once.
    pub fn work<F>(mut self, work: F) -> Self
    where
        F: FnOnce(&PartWork) -> Result<PartReport, StageError> + Send + 'static,
    {
        self.work = Some(Box::new(work));
        self
    }

    /// The part's name.
    pub fn key(&self) -> &str {
        &self.key
    }
}
