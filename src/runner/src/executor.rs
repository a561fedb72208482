//! Runs parts on local threads.
//!
//! `jobs` threads work on at most `jobs` parts at a time. A part that works on its rows in parallel gets the idle
//! threads, so a phase of one part is as fast as a phase of many. A few more threads sync and rename finished
//! outputs, because waiting on the disk costs no processor time. The order in which parts finish affects only the
//! order of progress messages.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::assess::{Planned, Start};
use crate::cache::{Content, ContentCache, Hash, Stamp, hash_file, hex};
use crate::layout::StageDir;
use crate::panics;
use crate::receipt::{Fingerprint, InputRecord, PartDone, Receipt};
use crate::report::{PartProgress, PhaseProgress};
use crate::staging::{self, Prepared, Publisher};
use crate::work::{Share, lock};
use crate::{Interrupt, PartReport, PartWork, RunError, StageError, lockfile};

/// The number of threads that sync and rename; the disk merges concurrent syncs.
const PUBLISHERS: usize = 8;
/// The interval at which the request to stop is checked.
const LOOK: Duration = Duration::from_millis(100);
/// The number of prepared parts that may wait for a publisher.
const QUEUE: usize = 64;

/// The parts of one phase that have to run, and their environment.
pub(crate) struct Executor<'a> {
    pub dir: &'a StageDir,
    pub version: u32,
    pub cache: &'a ContentCache,
    pub publisher: &'a Publisher<'a>,
    pub progress: &'a Arc<PhaseProgress>,
    /// True if progress counts rows; otherwise it counts parts.
    pub counts_rows: bool,
    pub interrupt: &'a Interrupt,
    pub jobs: usize,
    /// True if resumable work of an earlier run is not continued, because the run is forced.
    pub fresh: bool,
}

/// A file that was hashed before the work and is checked again after it.
struct Watched {
    path: PathBuf,
    stamp: Stamp,
    hash: Hash,
}

struct Shared {
    waiting: Mutex<VecDeque<Planned>>,
    done: Mutex<Vec<PartDone>>,
    failure: Mutex<Option<RunError>>,
    stop: AtomicBool,
    /// The threads that do the work.
    pool: rayon::ThreadPool,
    /// The number of parts in progress.
    in_hand: Arc<AtomicUsize>,
}

impl Shared {
    fn fail(&self, error: RunError) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failure = lock(&self.failure);
        // A failed part is more informative than an interrupted one.
        if matches!(&*failure, None | Some(RunError::Interrupted)) {
            *failure = Some(error);
        }
    }
}

impl Executor<'_> {
    /// Runs the parts. On a failure, parts in progress still finish, and finished parts stay.
    pub fn run(&self, parts: Vec<Planned>) -> Result<Vec<PartDone>, RunError> {
        let (workers, on_stop) = (self.jobs.clamp(1, parts.len().max(1)), on_stop(&parts));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.jobs.max(1)).build();
        let shared = Shared {
            pool: pool.map_err(|e| RunError::stage(&self.dir.name, StageError::other(e)))?,
            in_hand: Arc::default(),
            waiting: Mutex::new(parts.into()),
            done: Mutex::default(),
            failure: Mutex::default(),
            stop: AtomicBool::new(false),
        };
        let (over, is_over) = sync_channel::<()>(0);
        let (sender, receiver) = sync_channel(QUEUE);
        let receiver = Mutex::new(receiver);
        std::thread::scope(|scope| {
            scope.spawn(move || self.acknowledge_interrupt(on_stop, &is_over));
            for _ in 0..PUBLISHERS.min(workers * 4) {
                let (receiver, shared, over) = (&receiver, &shared, over.clone());
                scope.spawn(move || {
                    self.publish_all(receiver, shared);
                    drop(over);
                });
            }
            drop(over);
            for _ in 0..workers {
                let sender = sender.clone();
                let shared = &shared;
                scope.spawn(move || self.work_all(&sender, shared));
            }
            drop(sender);
        });
        self.progress.finish();
        let synced = self.publisher.sync_names().map_err(|e| RunError::stage(&self.dir.name, e));
        match lock(&shared.failure).take() {
            Some(error) => Err(error),
            None => synced.map(|()| std::mem::take(&mut *lock(&shared.done))),
        }
    }

    /// Confirms to the user that the request to stop was received. Returns when the last publisher is done.
    fn acknowledge_interrupt(&self, on_stop: &str, is_over: &Receiver<()>) {
        while is_over.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            if self.interrupt.is_set() {
                return self.progress.note(on_stop);
            }
        }
    }

    fn work_all(&self, sender: &SyncSender<(Prepared, PartProgress)>, shared: &Shared) {
        while !shared.stop.load(Ordering::Relaxed) {
            let Some(planned) = lock(&shared.waiting).pop_front() else {
                return;
            };
            if self.interrupt.is_set() {
                return shared.fail(RunError::Interrupted);
            }
            match self.work_one(planned, shared) {
                // The publishers live as long as a sender does.
                Ok(prepared) => drop(sender.send(prepared)),
                Err(error) => return shared.fail(error),
            }
        }
    }

    fn publish_all(&self, receiver: &Mutex<Receiver<(Prepared, PartProgress)>>, shared: &Shared) {
        loop {
            let next = lock(receiver).recv();
            let Ok((prepared, progress)) = next else {
                return;
            };
            let (key, staging) = (prepared.receipt.key.clone(), prepared.staging.clone());
            let resumable = prepared.resumable;
            match self.publisher.publish(prepared) {
                Ok(done) => {
                    progress.finish();
                    lock(&shared.done).push(done);
                }
                Err(error) => {
                    if !resumable {
                        let _already_failing = staging::discard(&staging);
                    }
                    shared.fail(self.part_error(&key, error));
                }
            }
        }
    }

    /// Runs a part until all of its outputs are in its staging folder.
    fn work_one(&self, mut planned: Planned, shared: &Shared) -> Result<(Prepared, PartProgress), RunError> {
        let key = planned.part.key.clone();
        let resumable = planned.part.resumable.is_some();
        let staging = self.dir.staging(&key);
        let progress = PartProgress::new(self.progress, &key, planned.part.rows, self.counts_rows);
        let progress = Arc::new(progress);
        let outcome = self.try_work(&mut planned, &staging, shared, &progress);
        match outcome {
            Ok(prepared) => {
                // The work is over and has dropped its own handle of the progress, unless one of its threads is still
                // alive.
                let progress = Arc::try_unwrap(progress)
                    .unwrap_or_else(|_| PartProgress::new(self.progress, &key, 0, self.counts_rows));
                Ok((prepared, progress))
            }
            Err(error) => {
                if !resumable {
                    // Frees disk space for others; the error that matters is the one already returned here.
                    let _already_failing = staging::discard(&staging);
                }
                Err(error)
            }
        }
    }

    fn try_work(
        &self,
        planned: &mut Planned,
        staging: &std::path::Path,
        shared: &Shared,
        progress: &Arc<PartProgress>,
    ) -> Result<Prepared, RunError> {
        let key = planned.part.key.clone();
        let fail = |error| self.part_error(&key, error);
        let (mut fingerprint, watched) = self.fingerprint(planned).map_err(fail)?;
        check_as_compared(planned, &fingerprint).map_err(fail)?;
        keep_hashes_at_start(planned, &mut fingerprint);
        self.make_ready(planned, staging, &fingerprint).map_err(fail)?;
        tracing::debug!(stage = self.dir.name, part = key, staging = %staging.display(), "begins");
        let work = PartWork {
            key: key.clone(),
            staging: staging.to_owned(),
            record: fingerprint.work_record(),
            share: Share::new(self.jobs, &shared.in_hand),
            interrupt: self.interrupt.clone(),
            progress: Arc::clone(progress) as _,
            rejected: Mutex::default(),
            incomplete: Mutex::default(),
        };
        let report = self.call(planned, &work, &shared.pool)?;
        let rejected = work.take_rejected();
        check_rows(&report, rejected.len() as u64).map_err(fail)?;
        check_unchanged(&watched).map_err(fail)?;
        let outputs = staging::outputs(staging).map_err(fail)?;
        let (records, hashes) = outputs.into_iter().unzip();
        let receipt = Receipt::new(fingerprint, report, records, rejected, work.take_incomplete());
        let (rows_in, rows_out, rejected) = (receipt.rows_in, receipt.rows_out, receipt.rejected.len());
        tracing::debug!(stage = self.dir.name, part = key, rows_in, rows_out, rejected, "done, to be published");
        let resumable = planned.part.resumable.is_some();
        let prepared = Prepared { staging: staging.to_owned(), receipt, hashes, resumable };
        prepared.write_receipt().map_err(fail)?;
        Ok(prepared)
    }

    /// Prepares the folder in which a part works: empty, or with the state that it continues from.
    fn make_ready(
        &self,
        planned: &Planned,
        staging: &std::path::Path,
        fingerprint: &Fingerprint,
    ) -> Result<(), StageError> {
        match (&planned.start, &planned.part.resumable) {
            (Start::Unfinished(_), _) => staging::take_up(staging, fingerprint),
            (Start::Results(receipt, _), Some(resumable)) => {
                if receipt.fingerprint().is_none() {
                    self.publisher.replaces_without_receipt(receipt);
                }
                staging::reopen(self.dir, receipt, resumable.restored, Some(fingerprint))
            }
            (_, resumable) => {
                if self.fresh {
                    staging::discard(staging)?;
                }
                staging::begin(staging, resumable.as_ref().map(|_| fingerprint))
            }
        }
    }

    /// Calls the stage's code on the worker threads. Panics become errors.
    fn call(&self, planned: &mut Planned, work: &PartWork, pool: &rayon::ThreadPool) -> Result<PartReport, RunError> {
        let key = &work.key;
        let Some(closure) = planned.part.work.take() else {
            return Err(self.part_error(key, StageError::new("the part has no work function")));
        };
        match pool.install(|| panics::recording(|| catch_unwind(AssertUnwindSafe(|| closure(work))))) {
            (Ok(report), _) => report.map_err(|error| self.part_error(key, error)),
            (Err(payload), recorded) => Err(RunError::Panic {
                stage: self.dir.name.clone(),
                part: key.clone(),
                message: recorded.unwrap_or_else(|| panics::message(payload.as_ref())),
            }),
        }
    }

    /// Hashes the inputs, so that a change during the work is detected afterwards.
    fn fingerprint(&self, planned: &Planned) -> Result<(Fingerprint, Vec<Watched>), StageError> {
        let mut inputs = Vec::with_capacity(planned.inputs.len());
        let mut watched = Vec::with_capacity(planned.inputs.len());
        for input in planned.recorded() {
            let content: Option<Content> = self.cache.content(&input.path)?;
            let blake3 = content.map(|content| hex(&content.hash));
            inputs.push(InputRecord { path: input.name.clone(), role: input.role.clone(), blake3 });
            if let Some(Content { stamp: Some(stamp), hash }) = content {
                watched.push(Watched { path: input.path.clone(), stamp, hash });
            }
        }
        let fingerprint = Fingerprint {
            stage: self.dir.name.clone(),
            version: self.version,
            key: planned.part.key.clone(),
            config: planned.part.config.clone(),
            inputs,
        };
        Ok((fingerprint, watched))
    }

    fn part_error(&self, key: &str, source: StageError) -> RunError {
        if matches!(source, StageError::Interrupted) {
            return RunError::Interrupted;
        }
        let source = match (source.is_disk_full(), lockfile::free_space(&self.dir.path)) {
            (true, Some(free)) => {
                let at = self.dir.path.display();
                StageError::DiskFull(format!("{source} ({} MB free where {at} is)", free / 1_000_000))
            }
            _ => source,
        };
        RunError::Stage { stage: self.dir.name.clone(), part: Some(key.to_owned()), source }
    }
}

/// Returns an error if the inputs of continued work differ from those it was compared with.
fn check_as_compared(planned: &Planned, fingerprint: &Fingerprint) -> Result<(), StageError> {
    let seen = match &planned.start {
        Start::Anew => return Ok(()),
        Start::Unfinished(hashes) | Start::Results(_, hashes) => hashes,
    };
    let now = fingerprint.inputs.iter().map(|input| input.blake3.clone());
    if now.eq(seen.iter().map(|hash| hash.as_ref().map(hex))) {
        Ok(())
    } else {
        Err(StageError::new("its inputs changed just now; run again"))
    }
}

/// Keeps the recorded hashes of inputs that the work started from and that are gone while it continues.
fn keep_hashes_at_start(planned: &Planned, fingerprint: &mut Fingerprint) {
    let (Some(prior), false) = (&planned.prior, matches!(planned.start, Start::Anew)) else { return };
    let pairs = planned.recorded().zip(&mut fingerprint.inputs);
    for (input, record) in pairs.filter(|(input, record)| input.starting && record.blake3.is_none()) {
        record.blake3 = prior.hash_at_start(input);
    }
}

/// Returns the message for a stop request: the parts' own, if all have the same.
fn on_stop(parts: &[Planned]) -> &'static str {
    let mut words = parts.iter().map(|planned| planned.part.resumable.as_ref().map(|resumable| resumable.on_stop));
    let first = words.next().flatten();
    first
        .filter(|first| words.all(|other| other == Some(*first)))
        .unwrap_or("stopping when the running parts are done; a second Ctrl-C stops immediately and loses only them")
}

fn check_rows(report: &PartReport, rejected: u64) -> Result<(), StageError> {
    let (rows_in, rows_out) = (report.rows_in, report.rows_out);
    if !report.carries_rows && rejected > 0 {
        return Err(StageError::new(format!("a part that carries no rows rejected {rejected}")));
    }
    if rows_out.checked_add(rejected) != Some(rows_in) {
        return Err(StageError::RowsLost { rows_in, rows_out, rejected });
    }
    Ok(())
}

fn check_unchanged(watched: &[Watched]) -> Result<(), StageError> {
    for Watched { path, stamp, hash } in watched {
        let now = std::fs::metadata(path).map_err(|e| StageError::file(path, e))?;
        if Stamp::of(&now) != *stamp && hash_file(path)?.0 != *hash {
            return Err(StageError::new(format!("{} changed while it was being read; run again", path.display())));
        }
    }
    Ok(())
}
