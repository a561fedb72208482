//! The plan of a stage: phases of parts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{PartReport, PartWork, StageError};

/// Parts of a stage that may run at the same time. The next phase is planned when all of them are done.
pub struct Phase {
    /// The description of the phase, shown next to the progress bar.
    pub title: String,
    /// The parts, in an order that users expect. They must not read each other's outputs.
    pub parts: Vec<Part>,
    /// The unit that its progress counts, in the plural.
    pub(crate) unit: &'static str,
}

impl Phase {
    /// Creates a phase with a title and parts.
    pub fn new(title: impl Into<String>, parts: Vec<Part>) -> Self {
        Self { title: title.into(), parts, unit: "rows" }
    }

    /// Makes progress count something other than rows, such as `steps`.
    #[must_use]
    pub fn counting(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }
}

/// The work of a part. It runs once, on one of the runner's threads.
pub(crate) type Work = Box<dyn FnOnce(&PartWork) -> Result<PartReport, StageError> + Send>;

/// The progress of resumable work, in the stage's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The position: `step 44 of 400`.
    pub at: String,
    /// The work that would be lost with it: `2 checkpoints (steps 40 and 44)`.
    pub holds: String,
    /// The way in which other settings can use it, in the imperative: `to start from its weights, …`; `None` if they
    /// cannot.
    pub reuse: Option<String>,
}

/// The effect of a different end in the configuration on earlier work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// No effect: the end is the same, or the work is finished under the new one too.
    Same,
    /// The end is different but the work is finished anyway: why, and what to do.
    Stays(String),
    /// The work continues to an end that is described here.
    Further(String),
    /// The work is already beyond that end; what to do.
    Passed(String),
}

/// The place of a result file in the folder that the work continues from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// A link to the same file: nothing changes it.
    Linked(String),
    /// A copy that is written to. The work continues without it if it cannot be copied.
    Copied(String),
}

/// The conditions under which work started, as stored by the work itself ([`crate::PartWork::record`]). A lost record
/// is made again from this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkRecord {
    /// The stage's version; `None` if unknown.
    pub version: Option<u32>,
    /// The configuration.
    pub config: Value,
    /// The content hash of every input, by its role or name; `None` if unknown.
    pub inputs: Option<BTreeMap<String, Option<String>>>,
}

/// A function that expresses a recorded configuration in the terms of the present one; see [`Resumable::recorded`].
pub type Recorded = Arc<dyn Fn(&Value, &Value) -> Value + Send + Sync>;

/// The rules for continuing work that saves its state: after an interruption, or from its results to another end. See
/// [`Part::resumable`].
///
/// A folder is that of the work ([`PartWork::staging_dir`]) or, when it is finished, that of the stage's results.
/// `status` and `--dry-run` call these functions too: they must be quick, write nothing, and accept any content.
#[derive(Clone)]
pub struct Resumable {
    /// Returns the progress of the work in a folder; `None` if nothing would be lost with it.
    pub reached: fn(&Path) -> Result<Option<Reached>, StageError>,
    /// The message that says what the work does on a stop request, and what a second request loses.
    pub on_stop: &'static str,
    /// Expresses a recorded configuration (first) in the terms of the present one (second): without irrelevant
    /// fields, and with the defaults of fields that were added since.
    pub recorded: Recorded,
    /// Returns the conditions under which the work in a folder started, if the work stores them. `now` is the present
    /// configuration.
    pub record: fn(folder: &Path, now: &Value) -> Result<Option<WorkRecord>, StageError>,
    /// The keys of the configuration that only determine where the work ends.
    pub ends: &'static [&'static str],
    /// Returns the effect of the end in the configuration `now` on the work in a folder that started with `then`.
    pub end: fn(folder: &Path, then: &Value, now: &Value) -> Result<End, StageError>,
    /// Returns the place of an output in the folder of the work when it continues from its results; `None` if it is
    /// not needed there.
    pub restored: fn(output: &str) -> Option<Restored>,
}

/// A file that a part reads.
pub(crate) struct Input {
    /// The role by which the file is compared instead of its path.
    pub role: Option<String>,
    pub path: PathBuf,
    /// True if the part can run without the file when it is removed.
    pub optional: bool,
    /// True if the file may be missing once the part is done.
    pub starting: bool,
    /// The key of the configuration, dotted, that holds a digest of the content that the part reads. Such a file is
    /// not compared itself.
    pub digest: Option<String>,
}

/// The unit that runs, is committed, and is either up to date or not: for example 1,000 utterances, or a whole
/// training.
pub struct Part {
    pub(crate) key: String,
    pub(crate) config: Value,
    pub(crate) inputs: Vec<Input>,
    pub(crate) rows: u64,
    pub(crate) resumable: Option<Resumable>,
    pub(crate) work: Option<Work>,
}

impl Part {
    /// Creates a part with a name that is unique in the stage: letters, digits, `.`, `_`, `-`, and `/` between
    /// folders, such as `train/part-00000`.
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

    /// Sets the resolved configuration that this part reads, an object. The part runs again when a field of it
    /// changes.
    ///
    /// Keys that are not top-level keys of a recipe are shown with the stage's name as a prefix: `lr` of the stage
    /// `train` as `train.lr`.
    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// Adds a file whose content the part reads. A missing file is allowed, and its absence is recorded. Of a folder,
    /// everything below it counts. A file that existed and is gone stops the run unless it is forced.
    pub fn input(mut self, path: impl Into<PathBuf>) -> Self {
        self.inputs.push(Input { role: None, path: path.into(), optional: false, starting: false, digest: None });
        self
    }

    /// Adds several files whose content the part reads; see [`Part::input`].
    pub fn inputs<P: Into<PathBuf>>(self, paths: impl IntoIterator<Item = P>) -> Self {
        paths.into_iter().fold(self, |part, path| part.input(path))
    }

    /// Adds a file that may be removed: the part then runs without it.
    pub fn optional_input(mut self, path: impl Into<PathBuf>) -> Self {
        self.inputs.push(Input { role: None, path: path.into(), optional: true, starting: false, digest: None });
        self
    }

    /// Adds a file whose content matters to the part but whose path does not. It is known by its role, such as
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

    /// Adds several files that are known by a role and their index: `recording 0`, `recording 1`.
    pub fn inputs_as<P: Into<PathBuf>>(self, role: &str, paths: impl IntoIterator<Item = P>) -> Self {
        let numbered = paths.into_iter().enumerate();
        numbered.fold(self, |part, (number, path)| part.input_as(format!("{role} {number}"), path))
    }

    /// Marks the inputs that `add` adds as files of which the configuration holds a digest at `key` (dotted, below
    /// the stage's name): a digest of the content that the part reads. They are not recorded. A change of the digest
    /// is reported as a change of these files, and records of earlier versions that name them are compared by their
    /// content.
    pub fn digested(self, key: &str, add: impl FnOnce(Self) -> Self) -> Self {
        let before = self.inputs.len();
        let mut part = add(self);
        part.inputs.iter_mut().skip(before).for_each(|input| input.digest = Some(key.to_owned()));
        part
    }

    /// Marks the inputs that `add` adds as files that the part starts from, such as pretrained weights. A change of
    /// their content runs the part again, but they may be missing once it is done.
    pub fn starting(self, add: impl FnOnce(Self) -> Self) -> Self {
        let before = self.inputs.len();
        let mut part = add(self);
        part.inputs.iter_mut().skip(before).for_each(|input| input.starting = true);
        part
    }

    /// Sets the number of rows (or steps) that the part will go through, for the progress bar; see
    /// [`PartWork::advance`].
    pub fn rows(mut self, rows: u64) -> Self {
        self.rows = rows;
        self
    }

    /// Keeps [`PartWork::staging_dir`] after a crash or an interruption, for work that saves its state, such as
    /// training. The work continues as long as its configuration and inputs are the same, even from its results when
    /// it is to end later. If something else has changed and work would be lost, finished or not, the part is refused
    /// unless it is forced.
    pub fn resumable(mut self, resumable: Resumable) -> Self {
        self.resumable = Some(resumable);
        self
    }

    /// Sets the function that does the work; it is called at most once.
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
