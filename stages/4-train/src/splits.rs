//! The check that stage 3 packed the splits in the recipe. It runs before training, instead of in the stage after it
//! that needs them.

use std::path::Path;

use flowmill_runner::{Recipe, RecipeError, StageError};

use crate::TrainSection;
use crate::data::DataPaths;
use crate::leakage::splits_beside;

/// Checks that stage 0 makes the named splits, before anything runs.
///
/// # Errors
/// Returns the key, with the existing splits.
pub fn check_names(section: &TrainSection, recipe: &Recipe) -> Result<(), RecipeError> {
    let trained =
        section.settings.mixture.is_empty() || section.settings.mixture.iter().any(|entry| entry.index.is_none());
    if trained {
        flowmill_stage_prep::check_split(recipe, "train.train_split", &section.settings.train_split)?;
    }
    let validation = section.settings.validation_split.as_deref();
    validation.map_or(Ok(()), |split| flowmill_stage_prep::check_split(recipe, "train.validation_split", split))
}

/// Warns if stage 6 will have nothing to score, before the hours of training.
///
/// # Errors
/// Returns an error if a folder of stage 3 cannot be listed.
pub fn warn_of_scores(scored: &str, paths: &DataPaths, tell: &dyn Fn(String)) -> Result<(), StageError> {
    let index = paths.own.parent().and_then(Path::parent).unwrap_or(Path::new("")).join(scored).join("index.json");
    if !index.is_file() {
        let absent = absent("export.split", scored, &index, "; stage 6 will have nothing to sample and score")?;
        tell(format!("WARNING: {absent}"));
    }
    Ok(())
}

/// Checks that the named splits exist.
///
/// # Errors
/// Returns the key, the existing splits, and advice.
pub fn check(section: &TrainSection, paths: &DataPaths) -> Result<(), StageError> {
    let trained = paths.train.iter().any(|corpus| corpus.index == paths.own);
    if trained && !paths.own.is_file() {
        return Err(absent("train.train_split", &section.settings.train_split, &paths.own, "")?);
    }
    if let Some(made) = paths.train.iter().find(|corpus| corpus.index != paths.own && !corpus.index.is_file()) {
        let index = made.index.display();
        let problem =
            "a corpus of train.mixture has no index yet; `flowmill run RECIPE --stage train` makes it before it trains";
        return Err(StageError::new(format!("{index} does not exist: {problem}")));
    }
    match (&paths.validation, &section.settings.validation_split) {
        (Some(index), Some(split)) if !index.is_file() => Err(absent(
            "train.validation_split",
            split,
            index,
            "; without it no checkpoint has a validation loss: name another, increase its share (prep.split), or train \
             without validation (train.validation_split: null)",
        )?),
        _ => Ok(()),
    }
}

/// Returns the message about a missing split.
fn absent(key: &str, split: &str, index: &Path, advice: &str) -> Result<StageError, StageError> {
    let folder = |path: &Path| path.parent()?.file_name()?.to_str().map(str::to_owned);
    let names: Vec<String> = splits_beside(index, &[])?.iter().filter_map(|path| folder(path)).collect();
    let there = if names.is_empty() { "it packed none".to_owned() } else { format!("there are: {}", names.join(", ")) };
    Ok(StageError::new(format!("{key}: stage 3 packed no split `{split}`; {there}{advice}")))
}
