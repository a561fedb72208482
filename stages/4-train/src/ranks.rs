//! A training that several processes share: rank 0 runs the stages, and the other ranks join it for the training.

use std::path::PathBuf;

use flowmill_collective::World;
use flowmill_family::Registry;
use flowmill_nn::device::DeviceName;
use flowmill_runner::{Recipe, StageError};
use flowmill_train::cannot_follow;
use rayon::ThreadPoolBuilder;
use serde::{Deserialize, Serialize};

use crate::TrainSection;
use crate::work::Training;

/// A message of rank 0 to the ranks that wait for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// Join a training.
    Train {
        /// True if it continues from a checkpoint.
        resumes: bool,
    },
    /// There is nothing more to do.
    End,
}

impl Call {
    /// Returns the bytes of the message.
    pub fn bytes(self) -> Vec<u8> {
        // A value of this type always has a text.
        serde_json::to_vec(&self).unwrap_or_default()
    }

    /// Reads a message; one that cannot be read ends this rank.
    pub fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or(Self::End)
    }
}

/// Takes part in the training of rank 0, until it has ended. `loaded` is the recipe and the folder of each stage, or the reason why
/// they cannot be read here.
///
/// # Errors
/// The error of this rank, which all ranks receive, or that of another one.
pub fn follow(
    registry: &Registry,
    loaded: Result<(&Recipe, &dyn Fn(u8) -> PathBuf), String>,
    resumes: bool,
    world: &World,
) -> Result<(), StageError> {
    let prepared = loaded.and_then(|(recipe, folder)| {
        let section = TrainSection::read(recipe, registry).map_err(|error| error.to_string())?;
        let training = Training::new(section, recipe, folder);
        let prepared = training.prepare(resumes, &|_| {}).map_err(|error| error.to_string())?;
        Ok((training.section.run, prepared))
    });
    match prepared {
        Ok((config, mut prepared)) => {
            let (task, parameters) = (&prepared.task, &mut prepared.parameters);
            flowmill_train::follow(task, parameters, &prepared.data, &config, &*world.ranks).map_err(StageError::other)
        }
        Err(reason) => {
            cannot_follow(&*world.ranks, &reason);
            Err(StageError::new(reason))
        }
    }
}

/// Runs the training on this rank's share of the machine's threads, or fewer if the run has fewer. With one rank these are the threads of
/// the run.
pub(crate) fn on_own_threads<R: Send>(world: &World, work: impl FnOnce() -> R + Send) -> Result<R, StageError> {
    if world.local_size < 2 {
        return Ok(work());
    }
    // The training is the only part of its stage, so its threads are not missing elsewhere.
    let threads = rayon::current_num_threads().min(world.own_threads());
    let pool = ThreadPoolBuilder::new().num_threads(threads).build().map_err(StageError::other)?;
    Ok(pool.install(work))
}

/// Returns the device of this rank: the ranks of a machine take its CUDA devices in turn, of those that `CUDA_VISIBLE_DEVICES` shows.
pub(crate) fn device(name: DeviceName, world: &World) -> DeviceName {
    let own = DeviceName::Cuda(world.local_rank);
    match name {
        _ if world.local_size < 2 => name,
        DeviceName::Cuda(0) => own,
        DeviceName::Auto if flowmill_nn::device::open(own).is_ok() => own,
        name => name,
    }
}
