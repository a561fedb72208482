//! Trying a recipe's training out on a few batches, without leaving anything.

use std::path::PathBuf;

use flowmill_family::Registry;
use flowmill_runner::{Recipe, StageError};
use flowmill_train::{Observer, Overfit, OverfitOptions, overfit};

use crate::TrainSection;
use crate::look::prepared;

/// Trains the recipe's model from its start on the same few batches of its data; see [`overfit`]. `folder` gives the folder of a stage
/// by number, of which those up to packing must be finished. Runs on the threads of the caller's pool.
///
/// # Errors
/// When data or start do not fit the model, or whatever [`overfit`] reports.
pub fn try_out(
    registry: &Registry,
    recipe: &Recipe,
    folder: &dyn Fn(u8) -> PathBuf,
    options: OverfitOptions,
    observer: &mut dyn Observer,
) -> Result<Overfit, StageError> {
    let section = TrainSection::read(recipe, registry).map_err(StageError::other)?;
    let settings = section.run.clone();
    let mut prepared = prepared(section, recipe, folder, false, observer)?;
    let tried = overfit(&prepared.task, &mut prepared.parameters, &prepared.data, &settings, options, observer);
    tried.map_err(StageError::other)
}
