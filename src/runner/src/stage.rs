//! The interface between a stage and the runner.

use schemars::{Schema, SchemaGenerator};

use crate::{Phase, PlanContext, Recipe, RecipeError, StageError};

/// A numbered step of a recipe: a pure function from declared inputs and its part of the recipe to declared outputs.
///
/// A stage only describes the work, as [`Phase`]s of [`crate::Part`]s. The runner decides what has to run and does
/// everything around it.
pub trait Stage: Send + Sync {
    /// Returns its position in the chain, which also orders the stages: 0 for `0-prep`.
    fn number(&self) -> u8;

    /// Returns its short name, which is also its section of the recipe: `prep`.
    fn name(&self) -> &'static str;

    /// Returns what it does, in a few words for its title line.
    fn title(&self) -> &'static str;

    /// Returns its version. The author raises it whenever the same inputs give other bytes; all its parts then run
    /// again.
    fn version(&self) -> u32;

    /// Returns the keys of its section that hold paths.
    fn paths(&self) -> StagePaths {
        StagePaths::default()
    }

    /// Returns the JSON schema of its section. The default accepts anything.
    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        let _ = generator;
        Schema::default()
    }

    /// Returns outputs (files, or folders with everything below) that only people read. A missing or changed one is
    /// reported, and is not a reason to run anything again.
    fn logs(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns whether its results may be the same for later stages although its settings or inputs have changed:
    /// files at other paths, in another container, in another order of parts. Otherwise such a change is visible in
    /// the results.
    fn may_give_the_same(&self) -> bool {
        false
    }

    /// Returns whether it has resumable parts ([`crate::Part::resumable`]), whose work must not be lost.
    fn keeps_work(&self) -> bool {
        false
    }

    /// Returns whether several processes of a launcher, such as `srun`, can work on a part together.
    fn runs_on_ranks(&self) -> bool {
        false
    }

    /// Parses the stage's section and checks for impossible combinations before anything runs.
    ///
    /// # Errors
    /// Returns the first error, with file, line and key; see [`Recipe::error`].
    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError>;

    /// Checks that the files named in the recipe exist, before anything runs. Not called for a stage that is up to
    /// date unless it is forced: its inputs may be gone by then.
    ///
    /// # Errors
    /// Returns an error for the key that names the first missing file.
    fn check_files(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let _ = recipe;
        Ok(())
    }

    /// Checks that the data fit the section. Called by `run --dry-run` and `recipe check`, where no run follows that
    /// would read the data and report the reasons.
    ///
    /// # Errors
    /// Returns an error for the key that names the data.
    fn check_contents(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let _ = recipe;
        Ok(())
    }

    /// Checks files like [`check_files`](Self::check_files), for work that continues: files that it only started from
    /// may be gone.
    ///
    /// # Errors
    /// Returns an error for the key that names the first missing file.
    fn check_files_to_go_on(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        self.check_files(recipe)
    }

    /// Returns warnings about settings that are valid but will not have the expected effect, such as a warm-up that
    /// is longer than the run. `run` prints them once at the start if the stage is not finished; `recipe check`
    /// prints them always.
    ///
    /// # Errors
    /// Returns an error if a section does not parse.
    fn warnings(&self, recipe: &Recipe) -> Result<Vec<String>, RecipeError> {
        let _ = recipe;
        Ok(Vec::new())
    }

    /// Returns the stage's section with every default filled in, for `recipe show`.
    ///
    /// # Errors
    /// Returns an error if the section does not parse.
    fn show(&self, recipe: &Recipe) -> Result<serde_json::Value, RecipeError>;

    /// Returns the parts of phase `phase` (0, 1, …), or `None` after the last phase.
    ///
    /// All earlier phases of this stage and all earlier stages are complete when this is called, so their outputs and
    /// receipts may be read. It is called by `status` and `--dry-run` too: it must be quick and must write nothing.
    ///
    /// # Errors
    /// Returns an error if the stage cannot determine its parts, for example because of an unreadable table.
    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError>;
}

/// The keys of a section that hold paths.
#[derive(Debug, Clone, Default)]
pub struct StagePaths {
    /// Dotted, below the section; `[]` for each item of a list, `*` for each entry of a mapping: `data.[].dir`.
    pub keys: Vec<String>,
    /// Values that are allowed there and are not paths.
    pub words: Vec<&'static str>,
}

impl StagePaths {
    /// These keys, which hold nothing but paths.
    pub fn of(keys: &[&str]) -> Self {
        Self { keys: keys.iter().map(|&key| key.to_owned()).collect(), words: Vec::new() }
    }
}

/// Returns the folder of a stage inside its experiment: `0-prep`.
pub(crate) fn folder_name(stage: &dyn Stage) -> String {
    format!("{}-{}", stage.number(), stage.name())
}
