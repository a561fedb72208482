//! Records of a finished part and of a finished stage.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::part::WorkRecord;
use crate::reason::Reason;
use crate::{PartReport, StageError, checksummed_json, rejects};

/// The version of the format. It is raised when the meaning of a receipt's fields changes.
const FORMAT: u32 = 1;

/// A rejected row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rejection {
    /// The row: an utterance id, or the line or file when there is no id yet.
    pub id: String,
    /// The reason, for people.
    pub reason: String,
    /// True if the cause is this machine at this time rather than the data. The part then runs again next time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_machine: bool,
    /// True if the row's whole source cannot be read. The stage then fails, whatever share of the rows may be
    /// rejected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_source: bool,
}

/// The reason for rejecting a row.
///
/// Anything that can be displayed is a reason of the data: the same data are rejected again, so the part need not run
/// again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectionReason {
    text: String,
    of_machine: bool,
    of_source: bool,
}

impl RejectionReason {
    /// Creates a reason whose cause is this machine at this time: a command that fails, a file without permission, a
    /// program that is not installed, too little memory. The next run tries the part again.
    pub fn machine(reason: impl std::fmt::Display) -> Self {
        Self::of(reason, true)
    }

    /// Creates a reason of the machine or of the data.
    pub fn of(reason: impl std::fmt::Display, of_machine: bool) -> Self {
        Self { text: reason.to_string(), of_machine, of_source: false }
    }

    /// Marks the reason as one that makes a whole source unreadable. The stage fails whatever share of its rows may
    /// be rejected, and the next run tries the part again.
    #[must_use]
    pub fn of_source(mut self) -> Self {
        self.of_source = true;
        self
    }

    /// Appends more text to the reason.
    #[must_use]
    pub fn with(mut self, more: &str) -> Self {
        self.text.push_str(more);
        self
    }

    /// Creates the rejection of a row.
    pub(crate) fn reject(self, id: String) -> Rejection {
        Rejection { id, reason: self.text, of_machine: self.of_machine, of_source: self.of_source }
    }
}

impl<T: std::fmt::Display> From<T> for RejectionReason {
    fn from(reason: T) -> Self {
        Self::of(reason, false)
    }
}

/// A file (or folder, or the absence of one) that a part read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRecord {
    /// `recipe:…` relative to the recipe's folder, `exp:…` relative to the experiment's, or absolute.
    pub path: String,
    /// The part's name for it when its path does not matter: `recording 3`. It is then compared by this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Hex of the BLAKE3 of its content; none when there was no such file.
    pub blake3: Option<String>,
}

impl InputRecord {
    /// Returns the name by which it is compared.
    pub(crate) fn identity(&self) -> &str {
        self.role.as_deref().unwrap_or(&self.path)
    }
}

/// A file that a part wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRecord {
    /// Relative to the stage's folder.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Hex of the BLAKE3 of its content.
    pub blake3: String,
}

/// Everything that determines a part's outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    pub stage: String,
    pub version: u32,
    pub key: String,
    pub config: Value,
    pub inputs: Vec<InputRecord>,
}

impl Fingerprint {
    /// Returns the same without the names of files that have a role.
    pub fn work_record(&self) -> WorkRecord {
        let inputs = self.inputs.iter().map(|input| (input.identity().to_owned(), input.blake3.clone()));
        WorkRecord { version: Some(self.version), config: self.config.clone(), inputs: Some(inputs.collect()) }
    }
}

/// The record of what a finished part read, did and wrote. Two runs of the same part give the same receipt, byte for
/// byte: it contains no time and no host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    format: u32,
    /// The stage's folder: `0-prep`.
    pub stage: String,
    /// The stage's version.
    pub version: u32,
    /// The part's key.
    pub key: String,
    /// The configuration the part read.
    pub config: Value,
    /// The files that it read, sorted by role or path.
    pub inputs: Vec<InputRecord>,
    /// The files that it wrote, sorted by path.
    #[serde(rename = "outputs")]
    pub files: Vec<OutputRecord>,
    /// True if rows go through this part. A codebook or a training carries none.
    pub carries_rows: bool,
    /// The number of rows that came in.
    pub rows_in: u64,
    /// The number of rows that went out.
    pub rows_out: u64,
    /// Facts that the part reports.
    pub facts: Map<String, Value>,
    /// The rejected rows, sorted.
    pub rejected: Vec<Rejection>,
    /// The reason why the part has to be done again although no row was rejected because of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    #[serde(skip)]
    stage_dir: PathBuf,
}

impl Receipt {
    /// Creates the receipt of a part that has just done its work.
    pub(crate) fn new(
        fingerprint: Fingerprint,
        report: PartReport,
        files: Vec<OutputRecord>,
        rejected: Vec<Rejection>,
        incomplete: Option<String>,
    ) -> Self {
        Self {
            format: FORMAT,
            stage: fingerprint.stage,
            version: fingerprint.version,
            key: fingerprint.key,
            config: fingerprint.config,
            inputs: fingerprint.inputs,
            files,
            carries_rows: report.carries_rows,
            rows_in: report.rows_in,
            rows_out: report.rows_out,
            facts: report.facts.into_iter().collect(),
            rejected,
            incomplete,
            stage_dir: PathBuf::new(),
        }
    }

    /// Creates a receipt for files of a result that has none: their sizes and hashes are unknown.
    pub(crate) fn unknown(stage: &str, key: &str, files: Vec<String>) -> Self {
        let fingerprint = Fingerprint {
            stage: stage.to_owned(),
            version: 0,
            key: key.to_owned(),
            config: Value::Null,
            inputs: Vec::new(),
        };
        let file = |path| OutputRecord { path, size: 0, blake3: String::new() };
        let files = files.into_iter().map(file).collect();
        Self::new(fingerprint, PartReport::default(), files, Vec::new(), None)
    }

    /// Returns everything that determined the part's outputs; `None` for an [unknown](Self::unknown) receipt.
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        (!self.config.is_null()).then(|| Fingerprint {
            stage: self.stage.clone(),
            version: self.version,
            key: self.key.clone(),
            config: self.config.clone(),
            inputs: self.inputs.clone(),
        })
    }

    /// Reads a receipt file, for `inspect`.
    ///
    /// # Errors
    /// Returns an error if the file is missing, damaged, or has another format.
    pub fn read(path: &Path) -> Result<Self, StageError> {
        let bytes = std::fs::read(path).map_err(|e| StageError::file(path, e))?;
        let receipt: Self =
            checksummed_json::open(&bytes).map_err(|e| StageError::new(format!("{}: {e}", path.display())))?;
        if receipt.format != FORMAT {
            return Err(StageError::new(format!("{}: receipt format {}", path.display(), receipt.format)));
        }
        Ok(receipt)
    }

    /// Returns the absolute paths of the part's outputs.
    pub fn outputs(&self) -> Vec<PathBuf> {
        self.files.iter().map(|file| self.stage_dir.join(&file.path)).collect()
    }

    /// Returns a fact by its name.
    pub fn fact(&self, name: &str) -> Option<&Value> {
        self.facts.get(name)
    }

    /// Returns the reason why the next run tries the part again even if nothing changed: an unusable source, or the
    /// number of rows that this machine failed to process with the first reason.
    pub(crate) fn retried(&self) -> Option<Reason> {
        let kind = |row: &Rejection| rejects::kind(&row.reason).to_owned();
        if let Some(source) = self.rejected.iter().find(|row| row.of_source) {
            return Some(Reason::SourceUnusable(source.id.clone(), kind(source)));
        }
        let mut rows = self.rejected.iter().filter(|row| row.of_machine);
        let first = rows.next().map(|row| Reason::Retried(1 + rows.count(), kind(row)));
        first.or_else(|| self.incomplete.as_deref().map(|reason| Reason::Retried(0, rejects::kind(reason).to_owned())))
    }

    /// Returns the data that the rest of the stage needs.
    pub(crate) fn done(&self) -> PartDone {
        PartDone {
            key: self.key.clone(),
            carries_rows: self.carries_rows,
            rows_in: self.rows_in,
            rows_out: self.rows_out,
            facts: self.facts.clone(),
            rejected: self.rejected.clone(),
            outputs: self.files.iter().map(|file| file.path.clone()).collect(),
        }
    }

    /// Sets the folder that contains the outputs.
    pub(crate) fn within(mut self, stage_dir: &Path) -> Self {
        stage_dir.clone_into(&mut self.stage_dir);
        self
    }
}

/// The data of a finished part that a stage keeps in memory.
#[derive(Debug, Clone)]
pub(crate) struct PartDone {
    pub key: String,
    pub carries_rows: bool,
    pub rows_in: u64,
    pub rows_out: u64,
    pub facts: Map<String, Value>,
    pub rejected: Vec<Rejection>,
    pub outputs: Vec<String>,
}

/// The record of a stage whose phases are all done. It exists only while they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StageSummary {
    pub stage: String,
    pub version: u32,
    /// The keys of the parts, phase by phase.
    pub phases: Vec<Vec<String>>,
    pub rows_in: u64,
    pub rows_out: u64,
    pub rejected: u64,
    pub carries_rows: bool,
    pub facts: Map<String, Value>,
}
