//! Loading ahead: background threads read batches, which are returned in order.
//!
//! One thread plans the epochs and issues a ticket for every batch. The loop receives the tickets in order through a bounded queue and
//! waits on each until the worker that took the batch has filled it. At most `prefetch` batches are therefore loaded in addition to the
//! one waited for, whatever the number of workers, and an error or panic of a worker arrives at its batch's place.
//!
//! If several ranks share the batches of a step, each rank loads only its [share](crate::share), but knows the order of all of them.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use flowmill_nn::random::RngKey;

use crate::share::Share;
use crate::{DataSource, TrainError};

/// The purpose of the random numbers of loading.
pub(crate) const DATA: &str = "data";

/// A batch's place in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) epoch: u64,
    /// Number of the batch in its epoch.
    pub(crate) index: u64,
    /// True if it is the last batch of the epoch.
    pub(crate) last: bool,
    pub(crate) items: Vec<u32>,
}

/// A batch, or the part of a batch that a rank computes.
pub(crate) struct Loaded<B> {
    pub(crate) epoch: u64,
    /// Number of the batch in its epoch.
    pub(crate) index: u64,
    /// The items that were loaded.
    pub(crate) items: Vec<u32>,
    /// Number of the part, from 0, if the batch is cut between ranks.
    pub(crate) part: Option<u64>,
    pub(crate) batch: B,
}

/// The batches of a step.
pub(crate) struct Group<B> {
    /// All batches, in order.
    pub(crate) planned: Vec<Planned>,
    /// The batches, or parts of them, that this rank computes; all if there is one rank.
    pub(crate) own: Vec<Loaded<B>>,
}

/// Number of batches and threads to load ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// Batches loaded ahead of the one in use; with 0 each is loaded when it is needed.
    pub(crate) prefetch: usize,
    /// Loading threads; more than `prefetch` + 1 would have nothing to do.
    pub(crate) workers: usize,
}

/// Result of loading a batch.
type Filled<B> = Result<Loaded<B>, TrainError>;

/// A batch to load, and where to put it.
struct Job<B> {
    epoch: u64,
    index: u64,
    items: Vec<u32>,
    wanted: Range<usize>,
    part: Option<u64>,
    fill: SyncSender<Filled<B>>,
}

/// A batch of the order, in the queue.
enum Ticket<B> {
    /// A batch, and where it arrives if this rank has a share of it.
    Batch(Planned, Option<Receiver<Filled<B>>>),
    /// The order of an epoch is not known.
    Failed(TrainError),
}

/// The receiving end of the queue. Dropping it ends the threads.
pub(crate) struct Loader<B> {
    tickets: Receiver<Ticket<B>>,
}

impl<B: Send> Loader<B> {
    /// Starts loading a share of the batches at batch `position` of `epoch`; ends before epoch number `epochs`, if it is set. Batches before
    /// `position` are not read. Random choices come from `seed`.
    pub(crate) fn start<'scope, 'env, D>(
        scope: &'scope Scope<'scope, 'env>,
        data: &'env D,
        seed: u64,
        from: (u64, u64),
        epochs: Option<u64>,
        (ahead, share): (Ahead, Share),
    ) -> Self
    where
        D: DataSource<Batch = B>,
        B: 'scope,
    {
        let (give, tickets) = sync_channel(ahead.prefetch.saturating_mul(share.stride()));
        let (jobs, queue) = channel::<Job<B>>();
        scope.spawn(move || plan_ahead(data, from, epochs, share, &give, &jobs));
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..ahead.workers.clamp(1, ahead.prefetch + 1) {
            let queue = Arc::clone(&queue);
            scope.spawn(move || work(data, seed, &queue));
        }
        Self { tickets }
    }

    /// Returns the next batches: `count`, or fewer at the end of an epoch; none after the last.
    pub(crate) fn group(&self, count: usize) -> Result<Group<B>, TrainError> {
        let mut group = Group { planned: Vec::<Planned>::new(), own: Vec::new() };
        while group.planned.len() < count && group.planned.last().is_none_or(|batch| !batch.last) {
            // The sender is gone after the last epoch; a panic of its thread appears where the scope joins it.
            match self.tickets.recv() {
                Ok(Ticket::Batch(planned, filled)) => {
                    // A worker fills every ticket that it takes, even if it fails.
                    match filled.map(|filled| filled.recv()) {
                        Some(Ok(loaded)) => group.own.push(loaded?),
                        Some(Err(_)) => break,
                        None => {}
                    }
                    group.planned.push(planned);
                }
                Ok(Ticket::Failed(error)) => return Err(error),
                Err(_) => break,
            }
        }
        Ok(group)
    }
}

/// Issues the batches of one epoch after the other, until the receiver is dropped.
fn plan_ahead<D: DataSource>(
    data: &D,
    (epoch, position): (u64, u64),
    epochs: Option<u64>,
    share: Share,
    give: &SyncSender<Ticket<D::Batch>>,
    jobs: &Sender<Job<D::Batch>>,
) {
    let mut skip = position;
    for epoch in epoch..epochs.unwrap_or(u64::MAX) {
        let batches = match plan(data, epoch) {
            Ok(batches) => batches,
            Err(error) => {
                // If the receiver is gone, nothing needs the error.
                drop(give.send(Ticket::Failed(error)));
                return;
            }
        };
        let count = batches.len() as u64;
        let first = usize::try_from(std::mem::take(&mut skip)).unwrap_or(usize::MAX);
        for (index, items) in (0..).zip(batches).skip(first) {
            let wanted = share.of(data, index, &items);
            let (fill, filled) = sync_channel(1);
            let job = wanted.map(|wanted| Job { epoch, index, items: items.clone(), wanted, part: share.part(), fill });
            let planned = Planned { epoch, index, last: index + 1 == count, items };
            // Blocks here while enough is loaded.
            let listens = give.send(Ticket::Batch(planned, job.is_some().then_some(filled))).is_ok();
            if !listens || job.is_some_and(|job| jobs.send(job).is_err()) {
                return;
            }
        }
    }
}

/// Loads batches from the queue until it is closed.
fn work<D: DataSource>(data: &D, seed: u64, queue: &Mutex<Receiver<Job<D::Batch>>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { epoch, index, items, wanted, part, fill }) = next else {
            return;
        };
        let what = || described(data, epoch, index, &items[wanted.clone()]);
        let loaded = catch_unwind(AssertUnwindSafe(|| {
            let loaded = load_part(data, seed, (epoch, index), &items, wanted.clone())?;
            Ok(Loaded { part, ..loaded })
        }));
        let loaded = loaded.unwrap_or_else(|payload| {
            Err(TrainError::Data { what: what(), source: format!("this is a bug: {}", said(payload.as_ref())).into() })
        });
        // The loop may have ended in the meantime.
        drop(fill.send(loaded));
    }
}

/// Returns the message of a panic.
fn said(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

/// Returns the batches of an epoch, or an error if there is none.
pub(crate) fn plan<D: DataSource>(data: &D, epoch: u64) -> Result<Vec<Vec<u32>>, TrainError> {
    let batches = data.batches(epoch);
    let batches = batches.map_err(|source| TrainError::Data { what: format!("the order of epoch {epoch}"), source })?;
    if batches.is_empty() { Err(TrainError::NoData { epoch }) } else { Ok(batches) }
}

/// Reads a batch, given by its epoch and its number there.
pub(crate) fn load<D: DataSource>(
    data: &D,
    seed: u64,
    place: (u64, u64),
    items: &[u32],
) -> Result<Loaded<D::Batch>, TrainError> {
    load_part(data, seed, place, items, 0..items.len())
}

/// Reads the items at `wanted` of a batch, with the random choices that they have in the whole batch.
fn load_part<D: DataSource>(
    data: &D,
    seed: u64,
    (epoch, index): (u64, u64),
    items: &[u32],
    wanted: Range<usize>,
) -> Result<Loaded<D::Batch>, TrainError> {
    let rng_key = RngKey::new(seed).purpose(DATA).epoch(epoch).step(index);
    let batch = data.load_part(items, wanted.clone(), rng_key);
    let items = items[wanted].to_vec();
    let batch = batch.map_err(|source| TrainError::Data { what: described(data, epoch, index, &items), source })?;
    Ok(Loaded { epoch, index, items, part: None, batch })
}

/// Describes a batch for people.
fn described<D: DataSource>(data: &D, epoch: u64, index: u64, items: &[u32]) -> String {
    let ids: Vec<String> = items.iter().map(|&item| data.id(item).to_owned()).collect();
    format!("batch {index} of epoch {epoch} ({})", crate::coverage::shorten(&ids))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::BoxError;

    /// Epochs of ten batches with different loading times, some of them zero.
    struct Source {
        started: AtomicUsize,
        asked: AtomicUsize,
        most_ahead: AtomicUsize,
        fails: Option<u32>,
        panics: Option<u32>,
    }

    fn source() -> Source {
        let count = || AtomicUsize::new(0);
        Source { started: count(), asked: count(), most_ahead: count(), fails: None, panics: None }
    }

    impl DataSource for Source {
        type Batch = u32;

        fn batches(&self, epoch: u64) -> Result<Vec<Vec<u32>>, BoxError> {
            Ok((0..10).map(|index| vec![epoch as u32 * 10 + index]).collect())
        }

        fn load(&self, items: &[u32], _: RngKey) -> Result<u32, BoxError> {
            let ahead =
                (self.started.fetch_add(1, Ordering::SeqCst) + 1).saturating_sub(self.asked.load(Ordering::SeqCst));
            self.most_ahead.fetch_max(ahead, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(u64::from(items[0] * 7 % 5)));
            assert!(self.panics != Some(items[0]), "the tape is torn");
            if self.fails == Some(items[0]) { Err("the tape is missing".into()) } else { Ok(items[0]) }
        }

        fn validation(&self) -> Vec<Vec<u32>> {
            Vec::new()
        }

        fn id(&self, _: u32) -> &str {
            "tape"
        }
    }

    /// Returns the batches of the loader from a position, up to the first error.
    fn loaded(source: &Source, from: (u64, u64), ahead: Ahead) -> (Vec<u32>, Option<TrainError>) {
        std::thread::scope(|scope| {
            let loader = Loader::start(scope, source, 0, from, Some(3), (ahead, Share::whole()));
            let mut batches = Vec::new();
            loop {
                source.asked.fetch_add(1, Ordering::SeqCst);
                match loader.group(1).map(|group| group.own.first().map(|loaded| loaded.batch)) {
                    Ok(Some(batch)) => batches.push(batch),
                    Ok(None) => return (batches, None),
                    Err(error) => return (batches, Some(error)),
                }
            }
        })
    }

    #[test]
    fn batches_come_in_order_and_no_more_are_loaded_ahead_than_asked_for() {
        for (prefetch, workers) in [(0, 1), (0, 3), (1, 1), (4, 2), (4, 9)] {
            let source = source();
            let (batches, error) = loaded(&source, (1, 3), Ahead { prefetch, workers });
            assert!(error.is_none(), "{error:?}");
            assert_eq!(batches, (13..30).collect::<Vec<u32>>(), "{prefetch} {workers}");
            let (started, ahead) = (source.started.into_inner(), source.most_ahead.into_inner());
            assert_eq!(started, 17, "what is done already is not read again");
            assert!(ahead <= prefetch, "{ahead} ahead of {prefetch}, {workers} workers");
        }
    }

    #[test]
    fn an_error_or_a_panic_comes_out_once_in_its_place_with_the_ids() {
        let broken: [(Source, &str); 2] = [
            (Source { fails: Some(15), ..source() }, "the tape is missing"),
            (Source { panics: Some(15), ..source() }, "the tape is torn"),
        ];
        for (source, expected) in broken {
            let (batches, error) = loaded(&source, (1, 0), Ahead { prefetch: 4, workers: 3 });
            assert_eq!(batches, (10..15).collect::<Vec<u32>>());
            let TrainError::Data { what, source } = error.unwrap() else { panic!("not of the data") };
            assert!(what.contains("batch 5 of epoch 1 (tape)"), "{what}");
            assert!(source.to_string().contains(expected), "{source}");
        }
    }
}
