//! Loading ahead: one background thread reads batches in order into a bounded queue.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use crate::{DataSource, TrainError};

/// A batch and its place in the order.
pub(crate) struct Loaded<B> {
    pub(crate) epoch: u64,
    /// Number of the batch in its epoch.
    pub(crate) index: u64,
    /// Whether the epoch ends with it.
    pub(crate) last: bool,
    pub(crate) items: Vec<u32>,
    pub(crate) batch: B,
}

/// The receiving end of the queue. Dropping it ends the thread.
pub(crate) struct Loader<B> {
    receiver: Receiver<Result<Loaded<B>, TrainError>>,
}

impl<B: Send> Loader<B> {
    /// Starts loading at batch `position` of `epoch`; ends before epoch number `epochs`, if given. At most `depth` batches wait.
    pub(crate) fn start<'scope, 'env, D>(
        scope: &'scope Scope<'scope, 'env>,
        data: &'env D,
        (epoch, position): (u64, u64),
        epochs: Option<u64>,
        depth: usize,
    ) -> Self
    where
        D: DataSource<Batch = B>,
        B: 'scope,
    {
        let (sender, receiver) = sync_channel(depth);
        scope.spawn(move || {
            let mut skip = position;
            for epoch in epoch..epochs.unwrap_or(u64::MAX) {
                let batches = match plan(data, epoch) {
                    Ok(batches) => batches,
                    Err(error) => return drop(sender.send(Err(error))),
                };
                let count = batches.len() as u64;
                let first = usize::try_from(std::mem::take(&mut skip)).unwrap_or(usize::MAX);
                for (index, items) in batches.into_iter().enumerate().skip(first) {
                    let loaded = load(data, epoch, index as u64, count, items);
                    let failed = loaded.is_err();
                    if sender.send(loaded).is_err() || failed {
                        return;
                    }
                }
            }
        });
        Self { receiver }
    }

    /// The next batches: `count`, or fewer at the end of an epoch; none after the last.
    pub(crate) fn group(&self, count: usize) -> Result<Vec<Loaded<B>>, TrainError> {
        let mut group: Vec<Loaded<B>> = Vec::with_capacity(count);
        while group.len() < count && group.last().is_none_or(|batch| !batch.last) {
            // The sender is gone after the last epoch; a panic of its thread surfaces where the scope joins it.
            let Ok(loaded) = self.receiver.recv() else {
                break;
            };
            group.push(loaded?);
        }
        Ok(group)
    }
}

/// The batches of an epoch, of which there must be one.
pub(crate) fn plan<D: DataSource>(data: &D, epoch: u64) -> Result<Vec<Vec<u32>>, TrainError> {
    let batches = data.batches(epoch);
    let batches = batches.map_err(|source| TrainError::Data { what: format!("the order of epoch {epoch}"), source })?;
    if batches.is_empty() { Err(TrainError::NoData { epoch }) } else { Ok(batches) }
}

/// Reads a batch of an epoch that has `count`.
pub(crate) fn load<D: DataSource>(
    data: &D,
    epoch: u64,
    index: u64,
    count: u64,
    items: Vec<u32>,
) -> Result<Loaded<D::Batch>, TrainError> {
    let batch = data.load(&items).map_err(|source| {
        let ids: Vec<String> = items.iter().map(|&item| data.id(item).to_owned()).collect();
        let what = format!("batch {index} of epoch {epoch} ({})", crate::coverage::shorten(&ids));
        TrainError::Data { what, source }
    })?;
    Ok(Loaded { epoch, index, last: index + 1 == count, items, batch })
}
