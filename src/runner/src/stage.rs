//! The contract between a stage and the runner.

use schemars::{Schema, SchemaGenerator};

use crate::{Phase, PlanContext, Recipe, RecipeError, StageError};

/// A numbered step of a recipe: a pure function from declared inputs and its part of the recipe to declared outputs.
///
/// A stage only says what there is to do, as [`Phase`]s of [`crate::Part`]s; the runner decides what has to run and
/// does everything around it.
pub trait Stage: Send + Sync {
    /// Its place in the chain, which also orders the stages: 0 for `0-prep`.
    fn number(&self) -> u8;

    /// Its short name, which is also its section of the recipe: `prep`.
    fn name(&self) -> &'static str;

    /// What it does, in a few words for its title line.
    fn title(&self) -> &'static str;

    /// Raised by its author whenever the same inputs give other bytes; all its parts then run again.
    fn version(&self) -> u32;

    /// The keys of its section that hold paths.
    fn paths(&self) -> StagePaths {
        StagePaths::default()
    }

    /// The JSON schema of its section; without one the section is anything.
    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        let _ = generator;
        Schema::default()
    }

    /// Outputs (files, or folders with all below) that only people read. That they are gone or changed is said, and is no reason to do
    /// anything again.
    fn logs(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns whether its results may be the same for later stages although its settings or inputs have changed: files at other paths, in another
    /// container, in another order of parts. Otherwise such a change shows in them.
    fn may_give_the_same(&self) -> bool {
        false
    }

    /// Returns whether it has resumable parts ([`crate::Part::resumable`]), whose work is not to be lost.
    fn keeps_work(&self) -> bool {
        false
    }

    /// Parses the stage's section and refuses impossible combinations, before anything runs.
    ///
    /// # Errors
    /// The first thing wrong, with file, line and key; see [`Recipe::error`].
    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError>;

    /// Refuses files that the recipe names and that are not there, before anything runs. A stage that is up to date is not refused,
    /// unless it is forced: what it was made of may be gone by then.
    ///
    /// # Errors
    /// The key that names the first file that is missing.
    fn check_files(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let _ = recipe;
        Ok(())
    }

    /// Refuses data that are there and cannot be what the section says. Called where no run follows that would read them and keep the
    /// reasons: by `run --dry-run` and `recipe check`.
    ///
    /// # Errors
    /// The key that names the data.
    fn check_contents(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let _ = recipe;
        Ok(())
    }

    /// The same for work that goes on from where it was left: what it only began with may be gone.
    ///
    /// # Errors
    /// The key that names the first file that is missing.
    fn check_files_to_go_on(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        self.check_files(recipe)
    }

    /// Settings that are valid but will not do what they seem to, such as a warm-up that is longer than the run. `run` says them once
    /// at the start, before a stage that is not finished; so does `recipe check`.
    ///
    /// # Errors
    /// When a section does not parse.
    fn warnings(&self, recipe: &Recipe) -> Result<Vec<String>, RecipeError> {
        let _ = recipe;
        Ok(Vec::new())
    }

    /// The stage's section with every default filled in, for `recipe show`.
    ///
    /// # Errors
    /// When the section does not parse.
    fn show(&self, recipe: &Recipe) -> Result<serde_json::Value, RecipeError>;

    /// The parts of phase `phase` (0, 1, …), or `None` after the last phase.
    ///
    /// All earlier phases of this stage and all earlier stages are complete when this is called, so their outputs and
    /// receipts may be read. It is called by `status` and `--dry-run` too: it must be quick and must write nothing.
    ///
    /// # Errors
    /// Whatever keeps the stage from knowing its parts, such as an unreadable table.
    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError>;
}

/// The keys of a section that hold paths.
#[derive(Debug, Clone, Default)]
pub struct StagePaths {
    /// Dotted, below the section; `[]` for each item of a list, `*` for each entry of a mapping: `data.[].dir`.
    pub keys: Vec<String>,
    /// What may stand there and is no path.
    pub words: Vec<&'static str>,
}

impl StagePaths {
    /// These keys, which hold nothing but paths.
    pub fn of(keys: &[&str]) -> Self {
        Self { keys: keys.iter().map(|&key| key.to_owned()).collect(), words: Vec::new() }
    }
}

/// The folder of a stage inside its experiment: `0-prep`.
pub(crate) fn folder_name(stage: &dyn Stage) -> String {
    format!("{}-{}", stage.number(), stage.name())
}
