//! The phases of a stage that runs an extractor over rows, and the work of their parts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use flowmill_corpus::Utterance;
use flowmill_extract::extractors::import::ImportConfig;
use flowmill_extract::{Extractor, Fit, Registry};
use flowmill_runner::{Part, PartReport, PartWork, Phase, PlanContext, StageError};
use flowmill_stage_prep::contents::without_paths;
use flowmill_stage_prep::recordings::PartRecordings;
use flowmill_stage_prep::rows::{self as prep, PrepPart, Table};
use serde_json::{Map, Value, json};

use crate::noise::{Noises, NoisyExtractor};
use crate::rows::{Events, PartRows, Reads, SharedExtractor, id, stage_error};
use crate::{Extraction, Section, import};

/// The role of an extractor's weights among the inputs.
const WEIGHTS: &str = "weights";

/// The parts of a phase.
pub(crate) fn plan<S: Extraction>(
    extractors: &Registry,
    section: &Section,
    phase: usize,
    context: &PlanContext,
) -> Result<Option<Phase>, StageError> {
    let stage = Planned { section, context };
    match (phase, section.extractor.import()) {
        (0, Some(imported)) => stage.import::<S>(imported).map(Some),
        (1, Some(_)) | (3, None) => S::summarize(section, context),
        (0, None) => stage.measure::<S>().map(Some),
        (1, None) => stage.fit::<S>().map(Some),
        (2, None) => stage.extract::<S>(extractors).map(Some),
        _ => Ok(None),
    }
}

/// A stage of a recipe that is planned.
struct Planned<'p> {
    section: &'p Section,
    context: &'p PlanContext,
}

impl Planned<'_> {
    fn fitter(&self) -> Result<Box<dyn Fit>, StageError> {
        let (recipe, extractor) = (self.context.recipe(), &self.section.extractor);
        extractor.fit(recipe.seed(), self.context.recipe_dir()).map_err(StageError::other)
    }

    /// The part of the configuration that random draws depend on.
    fn seed(&self) -> Option<u64> {
        self.section.extractor.reads_seed().then(|| self.context.recipe().seed())
    }

    /// The tables with what the extractor reads of their rows.
    fn parts<S: Extraction>(&self, tables: Vec<Table>) -> Result<Vec<PrepPart>, StageError> {
        let reads = Reads::of(&self.section.extractor);
        let mut parts = prep::parts(self.context, tables, &reads.columns(S::READS), reads.recordings)?;
        if reads.files {
            parts.iter_mut().try_for_each(|part| part.contents.add_media(&part.table.path))?;
        }
        if !reads.extra_columns.is_empty() {
            let add = |part: &mut PrepPart| part.contents.add_extra_columns(&part.table.path, reads.extra_columns);
            parts.iter_mut().try_for_each(add)?;
        }
        Ok(parts)
    }

    fn measure<S: Extraction>(&self) -> Result<Phase, StageError> {
        let Some(learning) = self.section.extractor.learning() else {
            return Ok(Phase::new("nothing to measure", Vec::new()));
        };
        let fit_on = &self.section.own.fit_on;
        let tables = prep::tables_of(self.context, fit_on, &format!("{}.fit_on", S::NAME))?;
        let fit: Arc<dyn Fit> = self.fitter()?.into();
        let (reads, root) = (Reads::of(&self.section.extractor), self.context.recipe_dir());
        let part = |PrepPart { table, rows, contents, recordings }: PrepPart| {
            let (fit, root) = (Arc::clone(&fit), root.to_owned());
            let config = json!({"extractor": learning, "seed": self.seed(), "utterances": contents.digest()});
            let part = Part::new(format!("measure/{}", table.key)).config(config).rows(rows);
            contents.declare(part.work(move |work| measure_part(work, &*fit, &recordings, &table, reads, &root)))
        };
        let parts = self.parts::<S>(tables)?.into_iter().map(part).collect();
        Ok(Phase::new(format!("measuring {fit_on}"), parts))
    }

    /// Returns the contributions of parts to the fit. An extractor that does not learn has none, even if an earlier one wrote some.
    fn measured<S: Extraction>(&self) -> Result<Vec<PathBuf>, StageError> {
        match self.section.extractor.learning() {
            Some(_) => prep::outputs(self.context, S::NUMBER, "measure/"),
            None => Ok(Vec::new()),
        }
    }

    fn fit<S: Extraction>(&self) -> Result<Phase, StageError> {
        let (extractor, measured, fit) = (&self.section.extractor, self.measured::<S>()?, self.fitter()?);
        let settings = without_paths(json!(extractor), WEIGHTS, &extractor.weight_files());
        let part = Part::new("fit")
            .config(json!({"extractor": settings, "seed": self.seed()}))
            .inputs(measured.clone())
            .starting(|part| part.inputs_as(WEIGHTS, extractor.files_read(self.context.recipe_dir())))
            .work(move |work| fit_all::<S>(work, &*fit, &measured));
        Ok(Phase::new(format!("fitting {}", extractor.kind()), vec![part]))
    }

    fn extract<S: Extraction>(&self, extractors: &Registry) -> Result<Phase, StageError> {
        let fitted = self.context.stage_dir(S::NUMBER).join(S::FITTED);
        let extractor = Arc::new(SharedExtractor::new(extractors.clone(), &fitted, self.section.own.device));
        let (reads, root) = (Reads::of(&self.section.extractor), self.context.recipe_dir());
        let (seed, files) = (self.context.recipe().seed(), self.section.noise_files::<S>(self.context.recipe())?);
        let noises = self.section.noise.as_ref().map(|noise| Arc::new(Noises::new(files.clone(), noise.snr, seed)));
        let part = |PrepPart { table, rows, contents, recordings }: PrepPart| {
            let (extractor, noises, root) = (Arc::clone(&extractor), noises.clone(), root.to_owned());
            let mut config = json!({ "utterances": contents.digest() });
            if let Some(noise) = &self.section.noise {
                config["noise"] = json!({ "snr": noise.snr, "seed": seed });
            }
            let part = Part::new(table.key.clone()).config(config).input(&fitted).rows(rows);
            let part = part.inputs_as("noise", files.iter().cloned());
            contents.declare(part.work(move |work| {
                let rows = PartRows::read(&table, &recordings, reads, &root)?;
                let codec = extractor.get()?;
                match &noises {
                    Some(noises) => {
                        let noisy = NoisyExtractor::new(codec, Arc::clone(noises));
                        extract_part::<S>(work, &noisy, &rows, &table)
                    }
                    None => extract_part::<S>(work, &*codec, &rows, &table),
                }
            }))
        };
        let parts = self.parts::<S>(prep::tables(self.context)?)?;
        Ok(Phase::new(format!("extracting {}", S::VALUES), parts.into_iter().map(part).collect()))
    }

    fn import<S: Extraction>(&self, imported: &ImportConfig) -> Result<Phase, StageError> {
        let tables = prep::tables(self.context)?;
        let (imported, root) = (imported.clone(), self.context.recipe_dir().to_owned());
        let part = import::part(&imported, &tables, S::IMPORT_READS, self.context)?;
        let part = part.work(move |work| {
            let report = S::import(work, &imported, &root, &tables)?;
            imported.state().save(&work.output(S::FITTED)?).map_err(StageError::other)?;
            Ok(report)
        });
        Ok(Phase::new(format!("importing {}", S::VALUES), vec![part]))
    }
}

fn measure_part(
    work: &PartWork,
    fit: &dyn Fit,
    recordings: &PartRecordings,
    table: &Table,
    reads: Reads,
    root: &Path,
) -> Result<PartReport, StageError> {
    let rows = PartRows::read(table, recordings, reads, root)?;
    let events = Events { work, count_rejected: false };
    let media = |row: &Utterance| rows.media(row);
    let (state, used) = flowmill_extract::fit_rows(fit, &rows.rows, &events, id, media).map_err(stage_error)?;
    state.save(&work.output(&format!("measure/{}.safetensors", table.key))?).map_err(StageError::other)?;
    Ok(PartReport::summary().fact("measured", used))
}

fn fit_all<S: Extraction>(work: &PartWork, fit: &dyn Fit, measured: &[PathBuf]) -> Result<PartReport, StageError> {
    let fitted = flowmill_extract::fit_parts(fit, measured).map_err(StageError::other)?;
    fitted.state.save(&work.output(S::FITTED)?).map_err(StageError::other)?;
    if let Some(file) = S::FIT_FACTS {
        let facts: Map<String, Value> = fitted.facts.iter().cloned().collect();
        let about = json!({"kind": fitted.state.kind(), "settings": fitted.state.settings(), "fit": facts});
        crate::table::write_json(&work.output(file)?, &about)?;
    }
    Ok(fitted.facts.into_iter().fold(PartReport::summary(), |report, (name, value)| report.fact(name, value)))
}

fn extract_part<S: Extraction>(
    work: &PartWork,
    extractor: &dyn Extractor,
    rows: &PartRows<'_>,
    table: &Table,
) -> Result<PartReport, StageError> {
    let events = Events { work, count_rejected: true };
    let media = |row: &Utterance| rows.media(row);
    let values = flowmill_extract::apply(extractor, &rows.rows, &events, id, media).map_err(stage_error)?;
    let report = PartReport::rows(rows.rows.len() as u64, values.len() as u64);
    let facts = S::write(&work.output(&format!("{}.parquet", table.key))?, &extractor.columns(), values)?;
    Ok(facts.into_iter().fold(report, |report, (name, value)| report.fact(name, value)))
}
