//! The memory that a recipe's training will take, without leaving anything.

use std::path::PathBuf;

use flowmill_runner::{Recipe, StageError};
use flowmill_train::{MemoryPlan, Observer};

use crate::TrainSection;
use crate::look::prepared;

/// Trains the recipe's model on the largest batch of its data and measures; see [`flowmill_train::plan_memory`]. `folder` gives the folder
/// of a stage by number, of which those up to packing must be finished; `usable` is the memory there is, in bytes.
///
/// # Errors
/// When data or start do not fit the model, or whatever the plan reports.
pub fn plan_memory(
    recipe: &Recipe,
    folder: &dyn Fn(u8) -> PathBuf,
    usable: Option<u64>,
    observer: &mut dyn Observer,
) -> Result<MemoryPlan, StageError> {
    let section = TrainSection::read(recipe).map_err(StageError::other)?;
    let settings = section.train_config();
    let mut prepared = prepared(section, recipe, folder, observer)?;
    let data = &prepared.data;
    let plan = flowmill_train::plan_memory(&prepared.task, &mut prepared.parameters, data, &settings, usable, observer);
    plan.map_err(StageError::other)
}
