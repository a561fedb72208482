//! Overfitting on a few batches, to test a recipe's training. Nothing is written.

use std::path::PathBuf;

use flowmill_family::Registry;
use flowmill_runner::{Recipe, StageError};
use flowmill_train::{Observer, Overfit, OverfitOptions};

use crate::TrainSection;
use crate::evaluate::prepared;

/// Trains the recipe's model from its initial weights repeatedly on the same few batches; see [`flowmill_train::overfit`]. `folder`
/// returns the folder of a stage by number; stages up to packing must be finished. Runs on the threads of the
/// caller's pool.
///
/// # Errors
/// Returns an error if data or initial weights do not match the model, and the errors of [`flowmill_train::overfit`].
pub fn overfit(
    registry: &Registry,
    recipe: &Recipe,
    folder: &dyn Fn(u8) -> PathBuf,
    options: OverfitOptions,
    observer: &mut dyn Observer,
) -> Result<Overfit, StageError> {
    let section = TrainSection::read(recipe, registry).map_err(StageError::other)?;
    let settings = section.run.clone();
    let mut prepared = prepared(section, recipe, folder, false, observer)?;
    let tried =
        flowmill_train::overfit(&prepared.task, &mut prepared.parameters, &prepared.data, &settings, options, observer);
    tried.map_err(StageError::other)
}
