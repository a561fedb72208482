//! The stage's phases and the work of their parts.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use flowmill_corpus::{Utterance, table};
use flowmill_models::extractors::{self, Column, Extractor, ExtractorConfig, Fit};
use flowmill_runner::{Part, PartReport, PartWork, Phase, PlanContext, StageError};
use flowmill_stage_prep::{
    contents::without_paths,
    recordings::PartRecordings,
    rows::{self as prep, Events, PrepPart, SharedExtractor, Table},
};
use serde_json::{Map, Value, json};

use crate::{
    config::{SECTION, TokensConfig},
    imported, usage,
};

/// The columns of stage 0's tables that the stage reads.
const COLUMNS: &[&str] = &["utt", "start", "end", "channel", "decoder"];

/// The role of an extractor's weights among the inputs.
const WEIGHTS: &str = "weights";

/// The fitted extractor, relative to the stage's folder.
pub const CODEBOOK: &str = "codebook.safetensors";

/// Its settings and the figures of the fit.
const CODEBOOK_FACTS: &str = "codebook.json";

/// How the units are used.
const USAGE: &str = "usage.json";

pub(crate) fn plan(phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
    let config = TokensConfig::of(context.recipe())?;
    if let ExtractorConfig::Import(import) = &config.extractor {
        return imported::plan(import, phase, context);
    }
    match phase {
        0 => measure(&config, context).map(Some),
        1 => fit(&config, context).map(Some),
        2 => extract(&config, context).map(Some),
        3 => count(context).map(Some),
        _ => Ok(None),
    }
}

fn fitter(config: &TokensConfig, context: &PlanContext) -> Result<Box<dyn Fit>, StageError> {
    config.extractor.fit(context.recipe().seed(), context.recipe_dir()).map_err(StageError::other)
}

/// The part of the configuration that random draws depend on.
fn seed(config: &TokensConfig, context: &PlanContext) -> Option<u64> {
    config.extractor.reads_seed().then(|| context.recipe().seed())
}

fn measure(config: &TokensConfig, context: &PlanContext) -> Result<Phase, StageError> {
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
fn measured(config: &TokensConfig, context: &PlanContext) -> Result<Vec<PathBuf>, StageError> {
    if config.extractor.learns() { prep::outputs(context, 2, "measure/") } else { Ok(Vec::new()) }
}

fn fit(config: &TokensConfig, context: &PlanContext) -> Result<Phase, StageError> {
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
    fitted.state.save(&work.output(CODEBOOK)?).map_err(StageError::other)?;
    let facts: Map<String, Value> = fitted.facts.iter().cloned().collect();
    let about = json!({"kind": fitted.state.kind(), "settings": fitted.state.settings(), "fit": facts});
    write_json(&work.output(CODEBOOK_FACTS)?, &about)?;
    Ok(fitted.facts.into_iter().fold(PartReport::summary(), |report, (name, value)| report.fact(name, value)))
}

fn write_json(path: &Path, value: &Value) -> Result<(), StageError> {
    let text = serde_json::to_string_pretty(value).map_err(StageError::other)?;
    std::fs::write(path, text + "\n").map_err(|error| StageError::file(path, error))
}

fn extract(config: &TokensConfig, context: &PlanContext) -> Result<Phase, StageError> {
    let codebook = context.stage_dir(2).join(CODEBOOK);
    let extractor = Arc::new(SharedExtractor::new(&codebook, config.device));
    let part = |PrepPart { table, rows, contents, recordings }: PrepPart| {
        let extractor = Arc::clone(&extractor);
        let part = Part::new(table.key.clone())
            .config(json!({ "utterances": contents.digest() }))
            .input(&codebook)
            .rows(rows)
            .work(move |work| extract_part(work, &*extractor.get()?, &recordings, &table));
        contents.declare(part)
    };
    let parts = prep::parts(context, prep::tables(context)?, COLUMNS)?;
    Ok(Phase::new("extracting tokens", parts.into_iter().map(part).collect()))
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
    let tokens: Vec<(String, Vec<i64>)> =
        values.into_iter().filter_map(|(row, value)| Some((row.utt.clone(), value.into_tokens()?))).collect();
    let path = work.output(&format!("{}.parquet", part.key))?;
    table::write_tokens(&path, "utt", extractor.column().name, &tokens).map_err(StageError::other)?;
    let count: usize = tokens.iter().map(|(_, tokens)| tokens.len()).sum();
    Ok(PartReport::rows(rows.len() as u64, tokens.len() as u64).fact("tokens", count))
}

pub(crate) fn count(context: &PlanContext) -> Result<Phase, StageError> {
    let codebook = context.stage_dir(2).join(CODEBOOK);
    let table = |part: Table| (part.split, context.stage_dir(2).join(format!("{}.parquet", part.key)));
    let tables: Vec<(String, PathBuf)> = prep::tables(context)?.into_iter().map(table).collect();
    let column = TokensConfig::of(context.recipe())?.extractor.column();
    let part = Part::new("usage")
        .input(&codebook)
        .inputs(tables.iter().map(|(_, table)| table))
        .work(move |work| count_all(work, column, &tables));
    Ok(Phase::new("counting units", vec![part]))
}

fn count_all(work: &PartWork, column: Column, tables: &[(String, PathBuf)]) -> Result<PartReport, StageError> {
    let mut counts = usage::Counts::new(column.values);
    for (split, path) in tables {
        for (_, tokens) in table::read_tokens(path, "utt", column.name).map_err(StageError::other)? {
            counts.add(split, &tokens);
        }
    }
    write_json(&work.output(USAGE)?, &counts.to_json())?;
    Ok(counts.facts().into_iter().fold(PartReport::summary(), |report, (name, value)| report.fact(name, value)))
}
