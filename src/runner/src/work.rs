//! What a part sees while it runs, and what it says when done.

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

/// Outputs of a part lie here inside its staging folder until they are committed.
pub(crate) const OUTPUTS: &str = "out";
/// What a resumable part keeps lies here inside its staging folder.
pub(crate) const STATE: &str = "state";
/// Names beginning so are half-written and are wiped when the part starts again.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Where a part's progress and messages go.
pub(crate) trait Progress: Send + Sync {
    /// `rows` more rows of the phase are done.
    fn advance(&self, rows: u64);
    /// `rows` rows of the phase were done before this run began.
    fn resume(&self, rows: u64);
    /// A line for the person watching.
    fn message(&self, line: &str);
    /// A line that is shown also to who asked for quiet.
    fn alert(&self, line: &str);
    /// How things stand, in place of what was shown before; whether there is a place for it.
    fn show(&self, line: &str) -> bool;
}

/// A part's share of the threads that all parts in hand have in common.
pub(crate) struct Share {
    jobs: usize,
    in_hand: Arc<AtomicUsize>,
}

impl Share {
    /// One more part is in hand, until this is dropped.
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

/// What a part sees while it runs: where to write, whom to tell.
///
/// It may be shared between the threads of a part. The work runs on the run's own pool of threads: what it does in parallel
/// with rayon is shared among all of them.
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
    /// The part's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What the part is a function of. Resumable work keeps it with what it saves; see [`crate::Resumable::record`].
    pub fn record(&self) -> &WorkRecord {
        &self.record
    }

    /// Where to write the output that will become `relative_to_stage_dir`, its folder made. Everything written there
    /// (or below it, when the part makes a folder of it) is committed when the part succeeds.
    ///
    /// # Errors
    /// When the name is empty, absolute, leaves the stage's folder or takes a name of the runner's; when the folder
    /// cannot be made.
    pub fn output(&self, relative_to_stage_dir: &str) -> Result<PathBuf, StageError> {
        check_output_name(relative_to_stage_dir)?;
        let path = self.staging.join(OUTPUTS).join(relative_to_stage_dir);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| StageError::file(parent, e))?;
        }
        Ok(path)
    }

    /// Sets a row aside with its reason; it goes into the stage's `rejected.parquet`.
    ///
    /// A reason groups with its equals up to the first `:`, so put what is particular to the row behind one:
    /// `too short: 0.08 s, at least 0.1 s`. One of this machine is a [`RejectionReason::machine`].
    pub fn reject(&self, id: impl Into<String>, reason: impl Into<RejectionReason>) {
        lock(&self.rejected).push(reason.into().reject(id.into()));
    }

    /// Says that the part left something out for a reason of this machine, without setting a row aside: the next run tries it
    /// again. Of several reasons the first in alphabetical order is kept.
    pub fn incomplete(&self, reason: impl Display) {
        let reason = reason.to_string();
        let mut kept = lock(&self.incomplete);
        if kept.as_ref().is_none_or(|kept| reason < *kept) {
            *kept = Some(reason);
        }
    }

    /// Tells the progress bar that `rows` more rows are done.
    pub fn advance(&self, rows: u64) {
        self.progress.advance(rows);
    }

    /// Tells the progress bar that `rows` rows were done before this run began: they are part of the whole, not of the rate.
    pub fn resume(&self, rows: u64) {
        self.progress.resume(rows);
    }

    /// Shows a line above the progress bar.
    pub fn message(&self, line: impl Display) {
        self.progress.message(&line.to_string());
    }

    /// Shows a line that must be seen, also by who asked for quiet: something would be lost otherwise.
    pub fn alert(&self, line: impl Display) {
        self.progress.alert(&line.to_string());
    }

    /// Shows how things stand under the progress bar, in place of what was shown there before. False where there is no bar: then
    /// say so now and then with [`PartWork::message`].
    pub fn show(&self, line: impl Display) -> bool {
        self.progress.show(&line.to_string())
    }

    /// Returns whether the person asked to stop. Long work looks now and then, saves itself if it is resumable, and returns
    /// [`StageError::Interrupted`].
    pub fn interrupted(&self) -> bool {
        self.interrupt.is_set()
    }

    /// Forgets the wish to stop, and hears the next signal once more before one ends the process; whether there was a wish. For work
    /// that has to say what would be lost: whoever calls this sets the wish again ([`PartWork::ask_to_stop`]) when there is nothing to lose any more.
    pub fn rearm_interrupt(&self) -> bool {
        self.interrupt.rearm()
    }

    /// Asks to stop, as a signal does.
    pub fn ask_to_stop(&self) {
        self.interrupt.set();
    }

    /// Bytes that are free where the part's files lie; none when the system does not say.
    pub fn free_space(&self) -> Option<u64> {
        lockfile::free_space(&self.staging)
    }

    /// How many of the run's threads are this part's share at the moment: how much it should have in hand to keep them busy.
    /// It grows when other parts end.
    pub fn threads(&self) -> usize {
        self.share.threads()
    }

    /// A folder of the part's own for what is not an output. Of a [`crate::Part::resumable`] part it survives a crash
    /// while the fingerprint is the same; otherwise it is empty at the start. It is gone once the part is committed.
    pub fn staging_dir(&self) -> PathBuf {
        self.staging.join(STATE)
    }

    /// Writes a folder that appears in [`PartWork::staging_dir`] as `name` whole and durably, or not at all; one of
    /// that name from before is replaced.
    ///
    /// # Errors
    /// Those of `write`, or when the folder cannot be made, synced or renamed.
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
            // A disk that is full has better uses for what is half written; the error that matters is the one already here.
            drop(files::remove_any(&temporary));
            return Err(error);
        }
        let target = state.join(name);
        files::replace_dir(&temporary, &target)?;
        files::sync_dir(&state)?;
        Ok(target)
    }

    /// The names that [`PartWork::persist_dir`] has made, sorted.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn persisted(&self) -> Result<Vec<String>, StageError> {
        let names = files::list_names(&self.staging_dir())?;
        Ok(names.into_iter().filter(|name| !name.starts_with(TEMPORARY)).collect())
    }

    /// Removes what [`PartWork::persist_dir`] made, at once for any later reader.
    ///
    /// # Errors
    /// When it cannot be removed; one that is not there is no error.
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

    /// Moves what [`PartWork::persist_dir`] made into the stage's folder, as `aside` or that name with a number behind it, where nothing
    /// removes it but a person; gives the place.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn set_aside(&self, name: &str, aside: &str) -> Result<PathBuf, StageError> {
        check_plain_name(name)?;
        check_output_name(aside)?;
        // A staging folder lies in the folder of all of them, that in the stage's.
        let stage = self.staging.parent().and_then(Path::parent).unwrap_or(&self.staging);
        files::set_aside(&self.staging_dir().join(name), stage, aside)
    }

    /// Makes a file or folder of [`PartWork::staging_dir`] an output, by hard links where the disk has them, without
    /// taking it away from a later attempt: a crash between here and the commit loses nothing.
    ///
    /// # Errors
    /// When it is not there or cannot be linked or copied.
    pub fn output_persisted(&self, name: &str, relative_to_stage_dir: &str) -> Result<(), StageError> {
        let target = self.output(relative_to_stage_dir)?;
        files::link_tree(&self.staging_dir().join(name), &target)
    }

    /// Why the part is to be done again.
    pub(crate) fn take_incomplete(&self) -> Option<String> {
        lock(&self.incomplete).take()
    }

    /// The rejections so far, in an order that does not depend on threads.
    pub(crate) fn take_rejected(&self) -> Vec<Rejection> {
        let mut rejected = std::mem::take(&mut *lock(&self.rejected));
        rejected.sort();
        rejected
    }
}

/// What a part did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PartReport {
    /// Rows that came in.
    pub rows_in: u64,
    /// Rows that went out; with the rejected ones they make up `rows_in`.
    pub rows_out: u64,
    /// Shown in the stage's closing line and kept in the receipt. Numbers of the same name are added over the parts.
    pub facts: Vec<(String, Value)>,
    pub(crate) carries_rows: bool,
}

impl PartReport {
    /// A part that rows go through.
    pub fn rows(rows_in: u64, rows_out: u64) -> Self {
        Self { rows_in, rows_out, facts: Vec::new(), carries_rows: true }
    }

    /// A part that carries no rows: a codebook, a training, an index.
    pub fn summary() -> Self {
        Self::default()
    }

    /// Adds a fact, such as `hours` or `perplexity`.
    pub fn fact(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.facts.push((name.into(), value.into()));
        self
    }
}

/// Locks even after a panic of another holder: what is kept behind these locks is whole at every instant.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn check_output_name(name: &str) -> Result<(), StageError> {
    let path = Path::new(name);
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    if name.is_empty() || !plain {
        return Err(StageError::new(format!(
            "`{name}` is no name for an output: give one relative to the stage's folder"
        )));
    }
    // The components are plain, so the first one exists.
    let first = path.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
    if crate::layout::RESERVED.contains(&first.as_str()) {
        return Err(StageError::new(format!("the output `{name}` would take a name that the runner uses itself")));
    }
    Ok(())
}

fn check_plain_name(name: &str) -> Result<(), StageError> {
    let mut components = Path::new(name).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(_)), None) if !name.starts_with(TEMPORARY) => Ok(()),
        _ => Err(StageError::new(format!("`{name}` is no plain name for a folder"))),
    }
}
