//! The common basis of `run`, `status` and `clean`: the stages in order, the folders, and the comparison.

use std::path::PathBuf;
use std::sync::Arc;

use crate::assess::{Assessor, check_keys};
use crate::cache::ContentCache;
use crate::context::RunValues;
use crate::layout::StageDir;
use crate::names::Names;
use crate::stage::folder_name;
use crate::{
    Experiment, Interrupt, Phase, PlanContext, Recipe, RecipeError, RunError, RunOptions, Stage, StageError, slurm,
    store,
};

/// A range of stages, given by numbers or names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StageRange {
    /// The first stage of the range; by default the first of all.
    pub first: Option<String>,
    /// The last stage of the range; by default the last of all.
    pub last: Option<String>,
}

/// Returns the stages in the order of their numbers.
pub(crate) fn in_order(stages: &[Box<dyn Stage>]) -> Vec<&dyn Stage> {
    let mut stages: Vec<&dyn Stage> = stages.iter().map(AsRef::as_ref).collect();
    stages.sort_by_key(|stage| stage.number());
    stages
}

/// Returns the stages of a range, as positions in the order.
pub(crate) fn select(stages: &[&dyn Stage], range: &StageRange) -> Result<std::ops::Range<usize>, RunError> {
    let first = range.first.as_deref().map_or(Ok(0), |name| position(stages, name))?;
    let last = range.last.as_deref().map_or(Ok(stages.len().saturating_sub(1)), |name| position(stages, name))?;
    if first > last {
        let (first, last) = (folder_name(stages[first]), folder_name(stages[last]));
        return Err(RunError::Usage(format!("the first stage, {first}, comes after the last one, {last}")));
    }
    Ok(first..(last + 1).min(stages.len()))
}

fn position(stages: &[&dyn Stage], written: &str) -> Result<usize, RunError> {
    let is_meant = |stage: &&dyn Stage| {
        written == stage.name() || written == folder_name(*stage) || written.parse() == Ok(stage.number())
    };
    stages.iter().position(is_meant).ok_or_else(|| {
        let known: Vec<String> = stages.iter().map(|stage| folder_name(*stage)).collect();
        RunError::Usage(format!("there is no stage `{written}` (known: {})", known.join(", ")))
    })
}

/// One recipe, its experiment and its stages.
pub(crate) struct Session<'a> {
    pub stages: Vec<&'a dyn Stage>,
    pub recipe: &'a Recipe,
    pub experiment: &'a Experiment,
    pub names: Names,
    pub cache: ContentCache,
    pub jobs: usize,
    pub interrupt: Interrupt,
    numbers: Arc<[(u8, String)]>,
    shared: RunValues,
}

impl<'a> Session<'a> {
    pub fn new(
        stages: &'a [Box<dyn Stage>],
        recipe: &'a Recipe,
        experiment: &'a Experiment,
        options: &RunOptions,
    ) -> Self {
        let stages = in_order(stages);
        let numbers = stages.iter().map(|stage| (stage.number(), folder_name(*stage))).collect();
        let names = Names::new(recipe.dir(), experiment.dir());
        let cache = ContentCache::load(&experiment.cache_file(), options.verify);
        Self {
            stages,
            recipe,
            experiment,
            names,
            cache,
            jobs: options.jobs.max(1),
            interrupt: options.interrupt.clone(),
            numbers,
            shared: RunValues::default(),
        }
    }

    pub fn dir(&self, stage: &dyn Stage) -> StageDir {
        StageDir::new(self.experiment.dir(), folder_name(stage))
    }

    pub fn assessor<'s>(&'s self, stage: &'s dyn Stage, dir: &'s StageDir, force: bool) -> Assessor<'s> {
        Assessor {
            dir,
            name: stage.name(),
            version: stage.version(),
            sections: self.recipe.sections(),
            names: &self.names,
            cache: &self.cache,
            logs: stage.logs(),
            force,
            interrupt: &self.interrupt,
        }
    }

    /// Plans a phase of a stage; `keys` are the parts of its earlier phases.
    pub fn plan(&self, stage: &dyn Stage, phase: usize, keys: &[String]) -> Result<Option<Phase>, StageError> {
        let context = PlanContext {
            recipe: self.recipe.clone(),
            experiment: self.experiment.clone(),
            stages: Arc::clone(&self.numbers),
            own: stage.number(),
            own_keys: keys.to_vec(),
            shared: self.shared.clone(),
        };
        let planned = stage.plan(phase, &context)?;
        if let Some(planned) = &planned {
            check_keys(&planned.parts, keys)?;
        }
        Ok(planned)
    }

    /// Returns the reason why a finished stage cannot be used: not finished, or an output that differs from its
    /// receipt.
    pub fn unusable(&self, stage: &dyn Stage) -> Result<Option<String>, StageError> {
        let dir = self.dir(stage);
        let Some(summary) = store::read_summary(&dir)? else {
            let why = if dir.receipts().is_dir() { "is not finished" } else { "has never run" };
            return Ok(Some(why.to_owned()));
        };
        let Ok(receipts) = store::read_receipts(&dir, &summary.phases.concat()) else {
            return Ok(Some("has a receipt that is missing or damaged".to_owned()));
        };
        let assessor = self.assessor(stage, &dir, false);
        let mut damage = Vec::new();
        for receipt in receipts {
            assessor.compare_outputs(&receipt, &mut damage)?;
        }
        Ok(damage.first().map(|reason| format!("is damaged ({reason})")))
    }
}

/// Checks a whole recipe without running anything.
///
/// # Errors
/// Returns the first error in any stage's section.
pub fn check(stages: &[Box<dyn Stage>], recipe: &Recipe) -> Result<(), RecipeError> {
    let check = |stage: &dyn Stage| {
        stage.check(recipe)?;
        stage.check_files(recipe)?;
        stage.check_contents(recipe)
    };
    slurm::check_slurm(recipe, stages)?;
    in_order(stages).into_iter().try_for_each(check)
}

/// Returns the warnings of all stages; see [`Stage::warnings`].
///
/// # Errors
/// Returns an error if a section does not parse.
pub fn warnings(stages: &[Box<dyn Stage>], recipe: &Recipe) -> Result<Vec<String>, RecipeError> {
    let warnings = in_order(stages).into_iter().map(|stage| stage.warnings(recipe));
    Ok(warnings.collect::<Result<Vec<_>, _>>()?.concat())
}

/// Returns the resolved recipe with every default, section by section.
///
/// # Errors
/// Returns an error for the first section that does not parse.
pub fn show(stages: &[Box<dyn Stage>], recipe: &Recipe) -> Result<serde_json::Value, RecipeError> {
    let mut all = serde_json::Map::new();
    all.insert("name".to_owned(), recipe.name().into());
    all.insert("seed".to_owned(), recipe.seed().into());
    all.insert("max_rejected".to_owned(), recipe.max_rejected().into());
    for stage in in_order(stages) {
        all.insert(stage.name().to_owned(), stage.show(recipe)?);
    }
    all.extend(slurm::show(recipe)?.map(|shown| (slurm::SECTION.to_owned(), shown)));
    Ok(serde_json::Value::Object(all))
}

/// Returns the folders of these stages, in order.
pub(crate) fn folders(experiment: &Experiment, stages: &[&dyn Stage]) -> Vec<PathBuf> {
    stages.iter().map(|stage| experiment.dir().join(folder_name(*stage))).collect()
}
