//! The interfaces between the loop and what is trained, on what, where it is kept, and who watches.

use std::path::{Path, PathBuf};

use flowmill_nn::random::Draw;
use flowmill_nn::{Context, Parameters, Value};

use crate::metrics::Measured;
use crate::optimizer::GradientNorms;
use crate::samples::Sample;
use crate::steering::{Answer, Request};
use crate::{BatchCost, BoxError, Freeable, TrainError};

/// A loss, averaged over what it was computed from.
#[derive(Debug)]
pub struct Loss {
    /// The scalar that is minimised: a mean.
    pub total: Value,
    /// Its parts for the metrics, as names and means.
    pub parts: Vec<(&'static str, f64)>,
    /// What the mean was taken over, such as valid frames x bins: batches are averaged by it.
    pub weight: f64,
}

/// What is trained: a pure function of parameters, batch and draws.
pub trait Task {
    /// What a loss is computed from.
    type Batch: Send;

    /// The loss of one batch. Every random number comes from `draw`, told apart by purpose and sample.
    fn loss(&self, context: &Context<'_>, batch: &Self::Batch, draw: Draw) -> Result<Loss, BoxError>;

    /// A few examples of what these weights generate, always of the same things.
    fn samples(&self, parameters: &Parameters) -> Result<Vec<Sample>, BoxError> {
        let _ = parameters;
        Err("this model generates nothing".into())
    }

    /// Writes these weights into a folder as a model that can be loaded.
    fn export(&self, parameters: &Parameters, folder: &Path) -> Result<(), BoxError> {
        let _ = (parameters, folder);
        Err("this model cannot be exported".into())
    }
}

/// What it is trained on: items known by number, in batches whose order is a function of (seed, epoch) alone.
pub trait DataSource: Sync {
    /// What [`Self::load`] makes of a batch's items.
    type Batch: Send;

    /// The batches of an epoch in order, each a list of items. Pure: resuming asks again and skips what is done.
    fn batches(&self, epoch: u64) -> Result<Vec<Vec<u32>>, BoxError>;

    /// Reads the items of one batch. Called on a thread of its own, ahead of use.
    fn load(&self, items: &[u32]) -> Result<Self::Batch, BoxError>;

    /// The batches to validate on, always the same; empty for no validation.
    fn validation(&self) -> Vec<Vec<u32>>;

    /// Returns the cost of a batch of these items; by default each item costs one.
    fn cost(&self, items: &[u32]) -> BatchCost {
        let count = items.len() as u64;
        BatchCost { valid: count, padded: count, unit: "items" }
    }

    /// Bytes that reading will keep at the most beyond those that it keeps now, such as a cache that is not full yet.
    fn still_to_keep(&self) -> u64 {
        0
    }

    /// The name of an item, for dumps and errors.
    fn id(&self, item: u32) -> &str;
}

/// Where checkpoints live: named directories, each of which is there whole or not at all.
pub trait CheckpointStore {
    /// Makes the checkpoint `name`: `write` fills an empty directory, which then appears under that name, durably. An existing
    /// one of that name is replaced.
    fn save(&self, name: &str, write: &mut dyn FnMut(&Path) -> Result<(), TrainError>) -> Result<(), TrainError>;

    /// The names of all checkpoints, in any order.
    fn list(&self) -> Result<Vec<String>, TrainError>;

    /// The directory of a checkpoint.
    fn path(&self, name: &str) -> PathBuf;

    /// Removes a checkpoint.
    fn remove(&self, name: &str) -> Result<(), TrainError>;

    /// What the run was begun with, in the terms of who keeps its checkpoints: every checkpoint holds it, so that it can be known from any
    /// of them.
    fn record(&self) -> Option<serde_json::Value> {
        None
    }

    /// Moves a damaged checkpoint out of the way, to a place under the name `damaged-` and its own where nothing removes it, and gives
    /// that place.
    fn set_aside(&self, name: &str) -> Result<PathBuf, TrainError>;
}

/// What the loop tells about one step. Clock readings come only here, never into a result.
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
    /// Seconds the step took, waiting included.
    pub seconds: f64,
    /// Seconds of it spent waiting for data.
    pub data_wait: f64,
}

impl Progress {
    /// What a step measured, without its place in the run and its times.
    pub(crate) fn measured(means: &Measured, norms: &GradientNorms) -> Self {
        let Measured { loss, parts, weight } = means;
        Self { loss: *loss, parts: parts.clone(), grad_norm: norms.total, weight: *weight, ..Self::default() }
    }
}

/// Who watches, and who may interrupt.
pub trait Observer {
    /// A step was done.
    fn step(&mut self, progress: &Progress) {
        let _ = progress;
    }

    /// A validation was done.
    fn validated(&mut self, step: u64, loss: f64) {
        let _ = (step, loss);
    }

    /// Something a person should read: a resume, a skipped step, a damaged checkpoint.
    fn message(&mut self, text: &str);

    /// Something that must be read before anything else is done, or something is lost.
    fn alert(&mut self, text: &str) {
        self.message(text);
    }

    /// Asked after every step; when true, the loop saves and stops.
    fn interrupted(&self) -> bool {
        false
    }

    /// Forgets a wish to stop, so that the next one is heard before one ends the process; whether there was one.
    fn rearm_interrupt(&mut self) -> bool {
        false
    }

    /// Wishes to stop, on behalf of the person, once that loses nothing any more.
    fn ask_to_stop(&mut self) {}

    /// Bytes that are free where the run's files lie.
    fn free_space(&self) -> Option<u64> {
        None
    }

    /// What lies beside the run's own folder and can be deleted to make room.
    fn freeable(&self) -> Vec<Freeable> {
        Vec::new()
    }

    /// Commands given since the last step; each is answered.
    fn requests(&mut self) -> Vec<Request> {
        Vec::new()
    }

    /// What became of a command.
    fn answer(&mut self, request: &Request, answer: &Answer) {
        let _ = (request, answer);
    }

    /// Where a file of the run's folder lies once the run is done, when that is elsewhere.
    fn final_place(&self, file: &Path) -> Option<PathBuf> {
        let _ = file;
        None
    }

    /// A folder for what is made by command, which is no result of the run.
    fn aside(&self) -> Option<PathBuf> {
        None
    }
}
