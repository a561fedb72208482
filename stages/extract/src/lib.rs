//! The common part of stages 1 and 2: an extractor that a recipe names gives columns for the rows of stage 0.
//!
//! | phase | parts | outputs |
//! |---|---|---|
//! | measure | `measure/SPLIT/part-00000` of the split that is fitted on | what the part contributes to the fit |
//! | fit | `fit` | the fitted extractor |
//! | extract | `SPLIT/part-00000` of every split | `SPLIT/part-00000.parquet`: `utt` and the extractor's columns |
//! | the stage's own | | what it makes of all tables |
//!
//! Values that another tool made are not measured or extracted: one part, `import`, looks up all rows and writes the same files.
//!
//! [`Extraction`] is what the stages differ in, [`ExtractStage`] the rest. A fitted extractor is loaded once per run, and a recording is
//! decoded once per phase, however many rows are cut from it.

mod import;
mod noise;
mod packed;
mod phases;
mod rows;
mod section;
mod table;

use std::marker::PhantomData;
use std::path::Path;

use flowmill_corpus::Utterance;
use flowmill_extract::extractors::import::ImportConfig;
use flowmill_extract::{Column, Extracted, Facts, Registry};
use flowmill_runner::{PartReport, PartWork, Phase, PlanContext, Recipe, RecipeError, Stage, StageError, StagePaths};
use flowmill_stage_prep::rows::Table;
use schemars::{Schema, SchemaGenerator};

pub use import::{lacks, look_up};
pub use noise::NoiseConfig;
pub use section::Section;
pub use table::{write_json, write_table};

/// The specifics of a stage that runs an extractor over rows.
pub trait Extraction: Send + Sync + 'static {
    /// The stage's number.
    const NUMBER: u8;
    /// The stage's name, which is that of its section.
    const NAME: &'static str;
    /// The stage's title.
    const TITLE: &'static str;
    /// The version of what it makes.
    const VERSION: u32;
    /// The description of the section, in the reference.
    const ABOUT: &'static str;
    /// The description of the section's key `extractor`.
    const ABOUT_EXTRACTOR: &'static str;
    /// The values, in names of phases: `embeddings`.
    const VALUES: &'static str;
    /// The values that it needs, in messages: `an embedding`.
    const NEEDS: &'static str;
    /// The columns of stage 0's tables that extracting reads.
    const READS: &'static [&'static str];
    /// The columns of stage 0's tables that importing reads.
    const IMPORT_READS: &'static [&'static str];
    /// The fitted extractor, relative to the stage's folder.
    const FITTED: &'static str;
    /// The file with the settings and figures of the fit, if there is one.
    const FIT_FACTS: Option<&'static str> = None;

    /// True if the section may add noise to recordings (`noise`).
    const NOISE: bool = false;

    /// Returns whether the columns of an extractor belong to this stage.
    fn takes(columns: &[Column]) -> bool;

    /// Writes the table of a part; figures about it.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write(path: &Path, columns: &[Column], rows: Vec<(&Utterance, Extracted)>) -> Result<Facts, StageError>;

    /// Imports the values of all rows; the work of the part `import`, apart from the state that stands for the extractor.
    ///
    /// # Errors
    /// When the files cannot be read, or tables not written.
    fn import(work: &PartWork, import: &ImportConfig, root: &Path, tables: &[Table]) -> Result<PartReport, StageError>;

    /// The last phase, over the tables of all parts, if there is one.
    ///
    /// # Errors
    /// When stage 0 is not finished.
    fn summarize(section: &Section, context: &PlanContext) -> Result<Option<Phase>, StageError>;
}

/// A stage that runs an extractor over rows.
pub struct ExtractStage<S> {
    extractors: Registry,
    stage: PhantomData<fn() -> S>,
}

impl<S: Extraction> ExtractStage<S> {
    /// The stage with the extractors that a recipe can name.
    pub fn new(extractors: Registry) -> Self {
        Self { extractors, stage: PhantomData }
    }

    /// The section of a recipe, checked.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn section(extractors: &Registry, recipe: &Recipe) -> Result<Section, RecipeError> {
        Section::of::<S>(extractors, recipe)
    }
}

impl<S: Extraction> Stage for ExtractStage<S> {
    fn number(&self) -> u8 {
        S::NUMBER
    }

    fn name(&self) -> &'static str {
        S::NAME
    }

    fn title(&self) -> &'static str {
        S::TITLE
    }

    fn version(&self) -> u32 {
        S::VERSION
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        section::schema::<S>(&self.extractors, generator)
    }

    fn paths(&self) -> StagePaths {
        let mut paths = self.extractors.paths(section::EXTRACTOR);
        paths.keys.extend(S::NOISE.then(|| "noise.dir".to_owned()));
        paths
    }

    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        Self::section(&self.extractors, recipe)?.check_split::<S>(recipe)
    }

    fn check_files(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let section = Self::section(&self.extractors, recipe)?;
        section.check_device::<S>(recipe)?;
        section.check_files::<S>(recipe)
    }

    fn show(&self, recipe: &Recipe) -> Result<serde_json::Value, RecipeError> {
        Ok(serde_json::json!(Self::section(&self.extractors, recipe)?))
    }

    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        let section = Self::section(&self.extractors, context.recipe())?;
        let extractor = &section.extractor;
        if section.is_packed() {
            let (seed, root) = (context.recipe().seed(), context.recipe_dir());
            return (phase == 0).then(|| packed::phase::<S>(extractor, seed, root)).transpose();
        }
        if !extractor.reads_text() && !flowmill_stage_prep::has_media(context.recipe(), extractor.media())? {
            return Ok(None);
        }
        phases::plan::<S>(&self.extractors, &section, phase, context)
    }
}
