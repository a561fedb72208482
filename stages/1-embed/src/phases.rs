//! The stage's phases and the work of their parts.

use std::{path::PathBuf, sync::Arc};

use flowmill_corpus::Utterance;
use flowmill_models::extractors::{self, Extractor, ExtractorConfig, Fit};
use flowmill_runner::{Part, PartReport, PartWork, Phase, PlanContext, StageError};
use flowmill_stage_prep::{
    contents::without_paths,
    recordings::PartRecordings,
    rows::{self as prep, Events, PrepPart, SharedExtractor, Table},
};
use serde_json::json;

use crate::{
    config::{EmbedConfig, SECTION},
    imported, speakers, table,
};

/// The columns of stage 0's tables that the stage reads.
const COLUMNS: &[&str] = &["utt", "spk", "start", "end", "channel", "decoder"];

/// The role of an extractor's weights among the inputs.
const WEIGHTS: &str = "weights";

/// The fitted extractor, relative to the stage's folder.
pub const EXTRACTOR: &str = "extractor.safetensors";

/// The speakers' means, relative to the stage's folder.
pub(crate) const SPEAKERS: &str = "spk2embedding.parquet";

pub(crate) fn plan(phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
    let config = EmbedConfig::of(context.recipe())?;
    if let ExtractorConfig::Import(import) = &config.extractor {
        return imported::plan(import, phase, context);
    }
    match phase {
        0 => measure(&config, context).map(Some),
        1 => fit(&config, context).map(Some),
        2 => extract(&config, context).map(Some),
        3 => average(context).map(Some),
        _ => Ok(None),
    }
}

fn fitter(config: &EmbedConfig, context: &PlanContext) -> Result<Box<dyn Fit>, StageError> {
    config.extractor.fit(context.recipe().seed(), context.recipe_dir()).map_err(StageError::other)
}

/// The part of the configuration that random draws depend on.
fn seed(config: &EmbedConfig, context: &PlanContext) -> Option<u64> {
    config.extractor.reads_seed().then(|| context.recipe().seed())
}

fn measure(config: &EmbedConfig, context: &PlanContext) -> Result<Phase, StageError> {
    let mut parts = Vec::new();
    if !config.extractor.learns() {
        return Ok(Phase::new("nothing to measure", parts));
    }
    let tables = prep::tables_of(context, &config.fit_on, &format!("{SECTION}.fit_on"))?;
    for PrepPart { table, rows, contents, recordings } in prep::parts(context, tables, COLUMNS)? {
        let fit = fitter(config, context)?;
        let part = Part::new(format!("measure/{}", table.key))
            .config(json!({
                "extractor": config.extractor.measuring(),
                "seed": seed(config, context),
                "utterances": contents.digest(),
            }))
            .rows(rows)
            .work(move |work| measure_part(work, &*fit, &recordings, &table));
        parts.push(contents.declare(part));
    }
    Ok(Phase::new(format!("measuring {}", config.fit_on), parts))
}

fn measure_part(
    work: &PartWork,
    fit: &dyn Fit,
    recordings: &PartRecordings,
    part: &Table,
) -> Result<PartReport, StageError> {
    let rows = prep::utterances(part)?;
    let events = Events { work, count_rejected: false };
    let media = |row: &Utterance| prep::media(recordings, row);
    let (state, used) = extractors::fit_rows(fit, &rows, &events, prep::id, media).map_err(prep::stage_error)?;
    state.save(&work.output(&format!("measure/{}.safetensors", part.key))?).map_err(StageError::other)?;
    Ok(PartReport::summary().fact("measured", used))
}

/// What the parts contribute to the fit; what an extractor that learned has left is no business of one that does not.
fn measured(config: &EmbedConfig, context: &PlanContext) -> Result<Vec<PathBuf>, StageError> {
    if config.extractor.learns() { prep::outputs(context, 1, "measure/") } else { Ok(Vec::new()) }
}

fn fit(config: &EmbedConfig, context: &PlanContext) -> Result<Phase, StageError> {
    let measured = measured(config, context)?;
    let (fit, inputs) = (fitter(config, context)?, measured.clone());
    let files = config.extractor.weight_files();
    let extractor = without_paths(json!(config.extractor), WEIGHTS, &files);
    let part = Part::new("fit")
        .config(json!({"extractor": extractor, "seed": seed(config, context)}))
        .inputs(inputs)
        .starting(|part| part.inputs_as(WEIGHTS, config.extractor.files_read(context.recipe_dir())))
        .work(move |work| fit_all(work, &*fit, &measured));
    Ok(Phase::new(format!("fitting {}", config.extractor.kind()), vec![part]))
}

fn fit_all(work: &PartWork, fit: &dyn Fit, measured: &[PathBuf]) -> Result<PartReport, StageError> {
    let fitted = extractors::fit_parts(fit, measured).map_err(StageError::other)?;
    fitted.state.save(&work.output(EXTRACTOR)?).map_err(StageError::other)?;
    Ok(fitted.facts.into_iter().fold(PartReport::summary(), |report, (name, value)| report.fact(name, value)))
}

fn extract(config: &EmbedConfig, context: &PlanContext) -> Result<Phase, StageError> {
    let file = context.stage_dir(1).join(EXTRACTOR);
    let extractor = Arc::new(SharedExtractor::new(&file, config.device));
    let part = |PrepPart { table, rows, contents, recordings }: PrepPart| {
        let extractor = Arc::clone(&extractor);
        let part = Part::new(table.key.clone())
            .config(json!({ "utterances": contents.digest() }))
            .input(&file)
            .rows(rows)
            .work(move |work| extract_part(work, &*extractor.get()?, &recordings, &table));
        contents.declare(part)
    };
    let parts = prep::parts(context, prep::tables(context)?, COLUMNS)?;
    Ok(Phase::new("extracting embeddings", parts.into_iter().map(part).collect()))
}

fn extract_part(
    work: &PartWork,
    extractor: &dyn Extractor,
    recordings: &PartRecordings,
    part: &Table,
) -> Result<PartReport, StageError> {
    let rows = prep::utterances(part)?;
    let events = Events { work, count_rejected: true };
    let media = |row: &Utterance| prep::media(recordings, row);
    let values = extractors::apply(extractor, &rows, &events, prep::id, media).map_err(prep::stage_error)?;
    let embeddings: Vec<table::UtteranceEmbedding> = values
        .into_iter()
        .filter_map(|(row, value)| Some((row.utt.clone(), row.spk.clone(), value.into_embedding()?)))
        .collect();
    table::write(&work.output(&format!("{}.parquet", part.key))?, extractor.column().name, &embeddings, None)?;
    Ok(PartReport::rows(rows.len() as u64, embeddings.len() as u64))
}

pub(crate) fn average(context: &PlanContext) -> Result<Phase, StageError> {
    let column = EmbedConfig::of(context.recipe())?.extractor.column().name;
    let keys: Vec<String> = prep::tables(context)?.into_iter().map(|table| table.key).collect();
    let tables: Vec<PathBuf> = keys.iter().map(|key| context.stage_dir(1).join(format!("{key}.parquet"))).collect();
    let part = Part::new("speakers").inputs(tables.clone()).work(move |work| average_all(work, column, &tables));
    Ok(Phase::new("averaging per speaker", vec![part]))
}

fn average_all(work: &PartWork, column: &str, tables: &[PathBuf]) -> Result<PartReport, StageError> {
    let mut means = speakers::Means::default();
    for path in tables {
        for (_, spk, embedding) in table::read(path, column)? {
            means.add(spk, &embedding);
        }
    }
    let means = means.finish();
    let path = work.output(SPEAKERS)?;
    flowmill_corpus::table::write_embeddings(&path, "spk", "spk_embedding", &means).map_err(StageError::other)?;
    Ok(PartReport::summary().fact("speakers", means.len()))
}
