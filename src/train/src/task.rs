//! The interfaces between the loop and the task, the data, the store of checkpoints, and the observer.

use std::ops::Range;
use std::path::{Path, PathBuf};

use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Value};

use crate::metrics::Measured;
use crate::optimizer::GradientNorms;
use crate::samples::Sample;
use crate::steering::{Answer, Request};
use crate::{BatchCost, BoxError, Freeable, TrainError};

/// A loss, averaged over its data.
#[derive(Debug)]
pub struct Loss {
    /// The scalar that is minimized: a mean.
    pub total: Value,
    /// The parts for the metrics, as names and means: always the same names, NaN for a part that this batch does not have.
    pub parts: Vec<(&'static str, f64)>,
    /// Weight of the mean, such as valid frames x bins: batches are averaged by it.
    pub weight: f64,
}

/// A task to train: a pure function of parameters, batch and draws.
pub trait Task {
    /// The data that a loss is computed from.
    type Batch: Send;

    /// Computes the loss of one batch. Every random number comes from `rng_key`, keyed by purpose and sample.
    fn loss(&self, context: &Context<'_>, batch: &Self::Batch, rng_key: RngKey) -> Result<Loss, BoxError>;

    /// Returns whether batches may leave a parameter without a gradient, such as the embedding of something that not every batch has. All
    /// other parameters need one on the first step.
    fn is_optional(&self, parameter: &str) -> bool {
        let _ = parameter;
        false
    }

    /// Generates a few samples with these weights, always of the same items.
    fn samples(&self, parameters: &Parameters) -> Result<Vec<Sample>, BoxError> {
        let _ = parameters;
        Err("this model generates nothing".into())
    }

    /// Exports these weights into a folder as a model that can be loaded.
    fn export(&self, parameters: &Parameters, folder: &Path) -> Result<(), BoxError> {
        let _ = (parameters, folder);
        Err("this model cannot be exported".into())
    }
}

/// The training data: items by number, in batches whose order is a function of (seed, epoch) only.
pub trait DataSource: Sync {
    /// The loaded form of a batch.
    type Batch: Send;

    /// Returns the batches of an epoch in order, each a list of items. Pure: a resumed run calls it again and skips what is done.
    fn batches(&self, epoch: u64) -> Result<Vec<Vec<u32>>, BoxError>;

    /// Reads the items of one batch. Called on a background thread, ahead of use. Random choices, such as a part of an item, come from
    /// `rng_key`, a function of the seed, the epoch and the batch's number in it, so that they do not depend on threads.
    fn load(&self, items: &[u32], rng_key: RngKey) -> Result<Self::Batch, BoxError>;

    /// Reads the items at `wanted` of a batch, each with the random choices that it has when the whole batch is read.
    fn load_part(&self, items: &[u32], wanted: Range<usize>, rng_key: RngKey) -> Result<Self::Batch, BoxError> {
        self.load(&items[wanted], rng_key)
    }

    /// Returns the batches to validate on, always the same; empty for no validation.
    fn validation(&self) -> Vec<Vec<u32>>;

    /// Returns the cost of a batch of these items; by default each item costs one.
    fn cost(&self, items: &[u32]) -> BatchCost {
        let count = items.len() as u64;
        BatchCost { valid: count, padded: count, unit: "items" }
    }

    /// Returns the number of bytes that reading will keep in addition to those kept now, at most, such as a cache that is not full yet.
    fn still_to_keep(&self) -> u64 {
        0
    }

    /// Returns the name of an item, for dumps and errors.
    fn id(&self, item: u32) -> &str;
}

/// A store of checkpoints: named directories, each of which exists completely or not at all.
pub trait CheckpointStore {
    /// Creates the checkpoint `name`: `write` fills an empty directory, which then appears under that name, durably. An existing
    /// one of that name is replaced.
    fn save(&self, name: &str, write: &mut dyn FnMut(&Path) -> Result<(), TrainError>) -> Result<(), TrainError>;

    /// Returns the names of all checkpoints, in any order.
    fn list(&self) -> Result<Vec<String>, TrainError>;

    /// Returns the directory of a checkpoint.
    fn path(&self, name: &str) -> PathBuf;

    /// Removes a checkpoint.
    fn remove(&self, name: &str) -> Result<(), TrainError>;

    /// Returns a record of what the run was started with, in the terms of the owner of its checkpoints. Every checkpoint contains it, so
    /// that any of them identifies the run.
    fn record(&self) -> Option<serde_json::Value> {
        None
    }

    /// Moves a damaged checkpoint out of the way, to a place named `damaged-` and its name where nothing removes it, and returns
    /// that place.
    fn set_aside(&self, name: &str) -> Result<PathBuf, TrainError>;
}

/// The loop's report of one step. Clock readings appear only here, never in a result.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// Steps done, including this one and those of earlier runs that were resumed.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// Loss of this step; not finite when the step was skipped.
    pub loss: f64,
    /// Parts of the loss, as names and means.
    pub parts: Vec<(String, f64)>,
    /// Learning rate of this step.
    pub rate: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Sum of the weights of the step's batches.
    pub weight: f64,
    /// Items in the step's batches.
    pub items: u64,
    /// Duration of the step in seconds, including waiting.
    pub seconds: f64,
    /// Seconds of it spent waiting for data.
    pub data_wait: f64,
}

impl Progress {
    /// Creates a report of a step's measurements, without its place in the run and its times.
    pub(crate) fn measured(means: &Measured, norms: &GradientNorms) -> Self {
        let Measured { loss, parts, weight, .. } = means;
        Self { loss: *loss, parts: parts.clone(), grad_norm: norms.total, weight: *weight, ..Self::default() }
    }
}

/// Observes a run and may interrupt it.
pub trait Observer {
    /// Called after a step.
    fn step(&mut self, progress: &Progress) {
        let _ = progress;
    }

    /// Called after a validation.
    fn validated(&mut self, step: u64, loss: f64) {
        let _ = (step, loss);
    }

    /// Shows a message that a person should read: a resume, a skipped step, a damaged checkpoint.
    fn message(&mut self, text: &str);

    /// Shows a message that must be read before anything else is done, to prevent a loss.
    fn alert(&mut self, text: &str) {
        self.message(text);
    }

    /// Called after every step; if it returns true, the loop saves and stops.
    fn interrupted(&self) -> bool {
        false
    }

    /// Clears a request to stop, so that the next one is noticed before one ends the process; returns whether there was one.
    fn rearm_interrupt(&mut self) -> bool {
        false
    }

    /// Requests to stop on behalf of the person, once nothing would be lost by it.
    fn ask_to_stop(&mut self) {}

    /// Returns the free bytes on the disk of the run's files.
    fn free_space(&self) -> Option<u64> {
        None
    }

    /// Lists what is outside of the run's own folder and can be deleted to free disk space.
    fn freeable(&self) -> Vec<Freeable> {
        Vec::new()
    }

    /// Returns the commands given since the last step; each is answered.
    fn requests(&mut self) -> Vec<Request> {
        Vec::new()
    }

    /// Receives the result of a command.
    fn answer(&mut self, request: &Request, answer: &Answer) {
        let _ = (request, answer);
    }

    /// Returns the path of a file of the run's folder after the run, if it is moved.
    fn final_place(&self, file: &Path) -> Option<PathBuf> {
        let _ = file;
        None
    }

    /// Returns a folder for files made by command, which are not results of the run.
    fn aside(&self) -> Option<PathBuf> {
        None
    }
}
