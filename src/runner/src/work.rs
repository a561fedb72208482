//! The interface between a part and the runner while the part runs, and the part's final report.

use std::fmt::Display;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::files;
use crate::lockfile;
use crate::part::WorkRecord;
use crate::receipt::{Rejection, RejectionReason};
use crate::{Interrupt, StageError};

/// The folder of a part's outputs inside its staging folder, until they are committed.
pub(crate) const OUTPUTS: &str = "out";
/// The folder of a resumable part's state inside its staging folder.
pub(crate) const STATE: &str = "state";
/// The prefix of half-written files, which are removed when the part starts again.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// The destination of a part's progress and messages.
pub(crate) trait Progress: Send + Sync {
    /// Reports that `rows` more rows of the phase are done.
    fn advance(&self, rows: u64);
    /// Reports that `rows` rows of the phase were done before this run began.
    fn resume(&self, rows: u64);
    /// Prints a line for the person watching.
    fn message(&self, line: &str);
    /// Prints a line that is shown even in quiet mode.
    fn alert(&self, line: &str);
    /// Replaces the status line. Returns whether there is a place for it.
    fn show(&self, line: &str) -> bool;
}

/// A part's share of the threads that all running parts have in common.
pub(crate) struct Share {
    jobs: usize,
    in_hand: Arc<AtomicUsize>,
}

impl Share {
    /// Counts one more running part until the share is dropped.
    pub(crate) fn new(jobs: usize, in_hand: &Arc<AtomicUsize>) -> Self {
        in_hand.fetch_add(1, Ordering::Relaxed);
        Self { jobs, in_hand: Arc::clone(in_hand) }
    }

    fn threads(&self) -> usize {
        self.jobs.div_ceil(self.in_hand.load(Ordering::Relaxed).max(1)).max(1)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.in_hand.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The environment of a part while it runs: where to write, and where to report.
///
/// It may be shared between the threads of a part. The work runs on the run's own thread pool, so parallel work with
/// rayon is distributed over all of its threads.
pub struct PartWork {
    pub(crate) key: String,
    pub(crate) staging: PathBuf,
    pub(crate) record: WorkRecord,
    pub(crate) share: Share,
    pub(crate) interrupt: Interrupt,
    pub(crate) progress: Arc<dyn Progress>,
    pub(crate) rejected: Mutex<Vec<Rejection>>,
    pub(crate) incomplete: Mutex<Option<String>>,
}

impl PartWork {
    /// Returns the part's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns everything that determines the part's outputs. Resumable work stores it with its state; see
    /// [`crate::Resumable::record`].
    pub fn record(&self) -> &WorkRecord {
        &self.record
    }

    /// Returns the path at which to write the output `relative_to_stage_dir`, and creates its folder. Everything
    /// written there (or below it, if the part creates a folder at that path) is committed when the part succeeds.
    ///
    /// # Errors
    /// Returns an error if the name is empty, absolute, leaves the stage's folder or is reserved for the runner, or
    /// if the folder cannot be created.
    pub fn output(&self, relative_to_stage_dir: &str) -> Result<PathBuf, StageError> {
        check_output_name(relative_to_stage_dir)?;
        let path = self.staging.join(OUTPUTS).join(relative_to_stage_dir);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| StageError::file(parent, e))?;
        }
        Ok(path)
    }

    /// Rejects a row with a reason; it is listed in the stage's `rejected.parquet`.
    ///
    /// Reasons are grouped by their text up to the first `:`, so put details of the row after it: `too short: 0.08 s,
    /// at least 0.1 s`. For a cause in this machine use [`RejectionReason::machine`].
    pub fn reject(&self, id: impl Into<String>, reason: impl Into<RejectionReason>) {
        lock(&self.rejected).push(reason.into().reject(id.into()));
    }

    /// Reports that the part left something out for a reason of this machine, without rejecting a row: the next run
    /// tries it again. Of several reasons, the first in alphabetical order is kept.
    pub fn incomplete(&self, reason: impl Display) {
        let reason = reason.to_string();
        let mut kept = lock(&self.incomplete);
        if kept.as_ref().is_none_or(|kept| reason < *kept) {
            *kept = Some(reason);
        }
    }

    /// Reports to the progress bar that `rows` more rows are done.
    pub fn advance(&self, rows: u64) {
        self.progress.advance(rows);
    }

    /// Reports to the progress bar that `rows` rows were done before this run began: they count for the total, not
    /// for the rate.
    pub fn resume(&self, rows: u64) {
        self.progress.resume(rows);
    }

    /// Shows a line above the progress bar.
    pub fn message(&self, line: impl Display) {
        self.progress.message(&line.to_string());
    }

    /// Shows a line that must be seen even in quiet mode, because something would be lost otherwise.
    pub fn alert(&self, line: impl Display) {
        self.progress.alert(&line.to_string());
    }

    /// Shows a status line under the progress bar, replacing the one before. Returns false if there is no bar: then
    /// report it from time to time with [`PartWork::message`].
    pub fn show(&self, line: impl Display) -> bool {
        self.progress.show(&line.to_string())
    }

    /// Returns whether a stop was requested. Long work checks this regularly, saves itself if it is resumable, and
    /// returns [`StageError::Interrupted`].
    pub fn interrupted(&self) -> bool {
        self.interrupt.is_set()
    }

    /// Clears the request to stop, so that one more signal is handled before the next one ends the process. Returns
    /// whether there was a request. For work that has to report what would be lost: the caller repeats the request
    /// ([`PartWork::ask_to_stop`]) when there is nothing left to lose.
    pub fn rearm_interrupt(&self) -> bool {
        self.interrupt.rearm()
    }

    /// Requests a stop, like a signal.
    pub fn ask_to_stop(&self) {
        self.interrupt.set();
    }

    /// Returns the free bytes on the file system of the part's files; none if the system does not report them.
    pub fn free_space(&self) -> Option<u64> {
        lockfile::free_space(&self.staging)
    }

    /// Returns the part's present share of the run's threads, which is the number of tasks it should have in progress
    /// to keep them busy. It grows when other parts end.
    pub fn threads(&self) -> usize {
        self.share.threads()
    }

    /// Returns a folder of the part's own for files that are not outputs. For a [`crate::Part::resumable`] part it
    /// survives a crash as long as the fingerprint is the same; otherwise it is empty at the start. It is removed
    /// once the part is committed.
    pub fn staging_dir(&self) -> PathBuf {
        self.staging.join(STATE)
    }

    /// Writes a folder that appears in [`PartWork::staging_dir`] as `name`, complete and durable, or not at all. An
    /// earlier one of that name is replaced.
    ///
    /// # Errors
    /// Returns the errors of `write`, or an error if the folder cannot be created, synced or renamed.
    pub fn persist_dir<F>(&self, name: &str, write: F) -> Result<PathBuf, StageError>
    where
        F: FnOnce(&Path) -> Result<(), StageError>,
    {
        check_plain_name(name)?;
        let state = self.staging_dir();
        let temporary = state.join(format!("{TEMPORARY}{name}"));
        files::remove_any(&temporary)?;
        std::fs::create_dir_all(&temporary).map_err(|e| StageError::file(&temporary, e))?;
        if let Err(error) = write(&temporary).and_then(|()| files::sync_tree(&temporary)) {
            // Frees the space of the half-written folder, for example on a full disk; the error that matters is the
            // one already returned here.
            drop(files::remove_any(&temporary));
            return Err(error);
        }
        let target = state.join(name);
        files::replace_dir(&temporary, &target)?;
        files::sync_dir(&state)?;
        Ok(target)
    }

    /// Returns the names that [`PartWork::persist_dir`] has made, sorted.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be read.
    pub fn persisted(&self) -> Result<Vec<String>, StageError> {
        let names = files::list_names(&self.staging_dir())?;
        Ok(names.into_iter().filter(|name| !name.starts_with(TEMPORARY)).collect())
    }

    /// Removes a folder that [`PartWork::persist_dir`] made. It disappears for later readers in one step.
    ///
    /// # Errors
    /// Returns an error if it cannot be removed. A missing one is not an error.
    pub fn remove_persisted(&self, name: &str) -> Result<(), StageError> {
        check_plain_name(name)?;
        let path = self.staging_dir().join(name);
        let doomed = self.staging_dir().join(format!("{TEMPORARY}removed-{name}"));
        files::remove_any(&doomed)?;
        match std::fs::rename(&path, &doomed) {
            Ok(()) => files::remove_any(&doomed),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(StageError::file(path, e)),
        }
    }

    /// Moves a folder that [`PartWork::persist_dir`] made into the stage's folder, as `aside` or that name with a
    /// number appended. Only a person removes it from there. Returns the new path.
    ///
    /// # Errors
    /// Returns an error if it cannot be moved.
    pub fn set_aside(&self, name: &str, aside: &str) -> Result<PathBuf, StageError> {
        check_plain_name(name)?;
        check_output_name(aside)?;
        // The staging folder is two levels below the stage's folder.
        let stage = self.staging.parent().and_then(Path::parent).unwrap_or(&self.staging);
        files::set_aside(&self.staging_dir().join(name), stage, aside)
    }

    /// Makes a file or folder of [`PartWork::staging_dir`] an output, by hard links if the disk supports them. It
    /// stays available to a later attempt: a crash before the commit loses nothing.
    ///
    /// # Errors
    /// Returns an error if it does not exist or cannot be linked or copied.
    pub fn output_persisted(&self, name: &str, relative_to_stage_dir: &str) -> Result<(), StageError> {
        let target = self.output(relative_to_stage_dir)?;
        files::link_tree(&self.staging_dir().join(name), &target)
    }

    /// Returns the reason why the part has to be done again.
    pub(crate) fn take_incomplete(&self) -> Option<String> {
        lock(&self.incomplete).take()
    }

    /// Returns the rejections so far, in an order that does not depend on threads.
    pub(crate) fn take_rejected(&self) -> Vec<Rejection> {
        let mut rejected = std::mem::take(&mut *lock(&self.rejected));
        rejected.sort();
        rejected
    }
}

/// The report of a finished part.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PartReport {
    /// The number of rows that came in.
    pub rows_in: u64,
    /// The number of rows that went out; with the rejected ones they add up to `rows_in`.
    pub rows_out: u64,
    /// Facts shown in the stage's closing line and stored in the receipt. Numbers of the same name are summed over
    /// the parts.
    pub facts: Vec<(String, Value)>,
    pub(crate) carries_rows: bool,
}

impl PartReport {
    /// Creates the report of a part that rows go through.
    pub fn rows(rows_in: u64, rows_out: u64) -> Self {
        Self { rows_in, rows_out, facts: Vec::new(), carries_rows: true }
    }

    /// Creates the report of a part that carries no rows: a codebook, a training, an index.
    pub fn summary() -> Self {
        Self::default()
    }

    /// Adds a fact, such as `hours` or `perplexity`.
    pub fn fact(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.facts.push((name.into(), value.into()));
        self
    }
}

/// Locks a mutex even after another holder panicked: the data in these locks are consistent at every instant.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn check_output_name(name: &str) -> Result<(), StageError> {
    let path = Path::new(name);
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    if name.is_empty() || !plain {
        return Err(StageError::new(format!(
            "`{name}` is not a valid name for an output: use a path relative to the stage's folder"
        )));
    }
    // The components are plain, so the first one exists.
    let first = path.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
    if crate::layout::RESERVED.contains(&first.as_str()) {
        return Err(StageError::new(format!("the output `{name}` uses a name that is reserved for the runner")));
    }
    Ok(())
}

fn check_plain_name(name: &str) -> Result<(), StageError> {
    let mut components = Path::new(name).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(_)), None) if !name.starts_with(TEMPORARY) => Ok(()),
        _ => Err(StageError::new(format!("`{name}` is not a plain folder name"))),
    }
}
