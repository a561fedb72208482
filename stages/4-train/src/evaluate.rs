//! Examination of a recipe's training without changing it: replaying a skipped step, and validating the newest
//! checkpoint.

use std::path::{Path, PathBuf};

use flowmill_family::Registry;
use flowmill_nn::Parameters;
use flowmill_nn::random::RngKey;
use flowmill_runner::{Recipe, StageError, part_state};
use flowmill_train::checkpoint::step_of;
use flowmill_train::{Evaluation, Observer, Replay, TrainError};

use crate::data::TrainingData;
use crate::heard::{Heard, hear};
use crate::task::FamilyTask;
use crate::work::{Prepared, TRAIN, Training};
use crate::{CHECKPOINTS, PART, TrainSection};

/// Repeats the step of a dump; see [`flowmill_train::replay`]. `folder` returns the folder of a stage by number;
/// stages up to packing must be finished.
///
/// # Errors
/// Returns an error if data or dump do not match the recipe, and the errors of the replay.
pub fn replay(
    registry: &Registry,
    recipe: &Recipe,
    folder: &dyn Fn(u8) -> PathBuf,
    dump: &Path,
    observer: &mut dyn Observer,
) -> Result<Replay, StageError> {
    let section = TrainSection::read(recipe, registry).map_err(StageError::other)?;
    let settings = section.run.clone();
    let Prepared { task, mut parameters, data, .. } = prepared(section, recipe, folder, false, observer)?;
    flowmill_train::replay(&task, &mut parameters, &data, &settings, dump).map_err(StageError::other)
}

/// Validates the newest checkpoint of a run that is finished, running or interrupted; see
/// [`flowmill_train::evaluate`]. A model that speaks also speaks the first validation utterances, in the voices of their
/// prompts.
///
/// # Errors
/// Returns an error if data or checkpoint do not match the recipe or there is no checkpoint, and the errors of the
/// validation.
pub fn evaluate(
    registry: &Registry,
    recipe: &Recipe,
    folder: &dyn Fn(u8) -> PathBuf,
    listening: &Listening,
    observer: &mut dyn Observer,
) -> Result<Evaluated, StageError> {
    let section = TrainSection::read(recipe, registry).map_err(StageError::other)?;
    let count = section.settings.sample_count;
    let Prepared { config, task, mut parameters, data } = prepared(section, recipe, folder, true, observer)?;
    if listening.random_texts && !config.speaks() {
        let family = config.family();
        return Err(StageError::new(format!(
            "models of the family `{family}` do not speak texts, so none can be random"
        )));
    }
    let validation = newest(&task, &mut parameters, &data, &folder(TRAIN), observer)?;
    if !config.speaks() {
        return Ok(Evaluated { validation, heard: None });
    }
    let seed = task.preview.seed;
    let mut examples = data.examples(count, RngKey::new(seed).purpose("preview"))?;
    if listening.random_texts {
        let others = data.random_examples(count, RngKey::new(seed).purpose("random texts"))?;
        examples = match (examples, others) {
            (Some(own), Some(others)) => Some(config.with_texts_of(own, &others).map_err(StageError::other)?),
            (own, _) => own,
        };
    }
    let place = listening.folder.join(format!("step-{:06}", validation.step));
    let heard = match examples {
        Some(examples) => hear(&task, &parameters, &examples, &place, observer)?,
        None => None,
    };
    Ok(Evaluated { validation, heard })
}

/// Speech that is made for listening when a checkpoint is validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// The folder for one folder of each step.
    pub folder: PathBuf,
    /// Speaks random texts of the validation split instead of the texts of the utterances.
    pub random_texts: bool,
}

/// The result of [`evaluate`].
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// The validation.
    pub validation: Evaluation,
    /// The speech, if the model speaks and there are validation data.
    pub heard: Option<Heard>,
}

/// Validates the newest intact checkpoint of the training in the folder `stage`.
fn newest(
    task: &FamilyTask,
    parameters: &mut Parameters,
    data: &TrainingData,
    stage: &Path,
    observer: &mut dyn Observer,
) -> Result<Evaluation, StageError> {
    loop {
        let mut found = checkpoints_in(&part_state(stage, PART))?;
        found.extend(checkpoints_in(&stage.join(CHECKPOINTS))?);
        let checkpoints: Vec<&Path> = found.iter().map(PathBuf::as_path).collect();
        match flowmill_train::evaluate(task, parameters, data, &checkpoints, observer) {
            // A running training has replaced them since they were listed.
            Err(TrainError::NoCheckpoint) if found.iter().any(|folder| !folder.exists()) => {}
            evaluated => return evaluated.map_err(StageError::other),
        }
    }
}

/// Prepares the model and the data of the recipe. A model that `resumes` gets its weights from a checkpoint.
pub fn prepared(
    section: TrainSection,
    recipe: &Recipe,
    folder: &dyn Fn(u8) -> PathBuf,
    resumes: bool,
    observer: &mut dyn Observer,
) -> Result<Prepared, StageError> {
    let messages = std::cell::RefCell::new(Vec::new());
    let tell = |message| messages.borrow_mut().push(message);
    let prepared = Training::new(section, recipe, folder).prepare(resumes, &tell);
    messages.take().iter().for_each(|message| observer.message(message));
    prepared
}

/// Returns the checkpoints in a folder; none if it does not exist.
pub fn checkpoints_in(folder: &Path) -> Result<Vec<PathBuf>, StageError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| StageError::file(folder, error))? {
        let path = entry.map_err(|error| StageError::file(folder, error))?.path();
        if path.file_name().and_then(|name| name.to_str()).and_then(step_of).is_some() {
            found.push(path);
        }
    }
    Ok(found)
}
