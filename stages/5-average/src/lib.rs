//! Stage 5, average: the mean of the last or the best checkpoints, in double precision.
//!
//! Reads `4-train/checkpoints`, writes `5-average/model.safetensors` (F32) and `average.json`, which lists the
//! averaged checkpoints. Does not depend on the kind of model.

mod choice;
mod config;

use std::path::{Path, PathBuf};

use flowmill_runner::{Part, PartReport, PartWork, Phase, PlanContext, Recipe, RecipeError, Stage, StageError};
use flowmill_train::checkpoint::{average_weights, step_of};
use serde_json::{Value, json};

use choice::{Candidate, choose, order};
pub use config::{AverageSection, Which};
use schemars::{Schema, SchemaGenerator};

/// Number of the training stage.
const TRAIN: u8 = 4;
/// The averaged weights.
pub const WEIGHTS: &str = "model.safetensors";
/// The list of averaged checkpoints.
pub const RECORD: &str = "average.json";

/// The stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct AverageStage;

impl Stage for AverageStage {
    fn number(&self) -> u8 {
        5
    }

    fn name(&self) -> &'static str {
        "average"
    }

    fn title(&self) -> &'static str {
        "average checkpoints"
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<AverageSection>()
    }

    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        AverageSection::read(recipe).map(drop)
    }

    fn warnings(&self, recipe: &Recipe) -> Result<Vec<String>, RecipeError> {
        config::warnings(recipe)
    }

    fn show(&self, recipe: &Recipe) -> Result<Value, RecipeError> {
        Ok(json!(AverageSection::read(recipe)?))
    }

    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        if phase > 0 {
            return Ok(None);
        }
        let section = AverageSection::read(context.recipe())?;
        let candidates = checkpoints(&context.stage_dir(TRAIN).join("checkpoints"))?;
        let states: Vec<PathBuf> = candidates.iter().map(Candidate::state).collect();
        let which = order(&section, &candidates);
        let chosen = choose(&section, candidates)?;
        let weights: Vec<PathBuf> = chosen.iter().map(Candidate::weights).collect();
        let part = Part::new("average").config(json!(section)).inputs(states).inputs(weights);
        let part = part.work(move |work| average(work, &section, which, &chosen));
        Ok(Some(Phase::new("averaging", vec![part])))
    }
}

/// Returns the checkpoints in a folder.
fn checkpoints(folder: &Path) -> Result<Vec<Candidate>, StageError> {
    let entries = std::fs::read_dir(folder).map_err(|error| StageError::file(folder, error))?;
    let mut candidates = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| StageError::file(folder, error))?;
        if entry.path().is_dir() && entry.file_name().to_str().and_then(step_of).is_some() {
            candidates.push(Candidate::read(entry.path())?);
        }
    }
    candidates.sort_by_key(|candidate| candidate.step);
    Ok(candidates)
}

fn average(
    work: &PartWork,
    section: &AverageSection,
    which: Which,
    chosen: &[Candidate],
) -> Result<PartReport, StageError> {
    if which != section.which {
        work.message("no checkpoint has a validation loss: the last ones are averaged instead of the best");
    }
    if chosen.len() < section.count {
        let (have, want) = (chosen.len(), section.count);
        work.message(format!("only {have} checkpoints exist to average, but the recipe asks for {want}"));
    }
    let files: Vec<PathBuf> = chosen.iter().map(Candidate::weights).collect();
    average_weights(&files, &work.output(WEIGHTS)?).map_err(StageError::other)?;
    let entry = |candidate: &Candidate| {
        let weights = candidate.weights();
        let file = weights.file_name().unwrap_or_default().to_string_lossy().into_owned();
        json!({ "step": candidate.step, "validation_loss": candidate.validation, "weights": file })
    };
    let record = json!({
        "which": which,
        "count": chosen.len(),
        "checkpoints": chosen.iter().map(entry).collect::<Vec<_>>(),
    });
    let path = work.output(RECORD)?;
    std::fs::write(&path, format!("{record:#}\n")).map_err(|error| StageError::file(&path, error))?;
    let steps: Vec<u64> = chosen.iter().map(|candidate| candidate.step).collect();
    Ok(PartReport::summary().fact("checkpoints", chosen.len()).fact("steps", steps))
}
