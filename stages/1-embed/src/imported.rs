//! The stage when embeddings are imported: one part looks up all rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use flowmill_corpus::Utterance;
use flowmill_models::extractors::import::{Files, ImportConfig, read_embeddings};
use flowmill_runner::{PartReport, PartWork, Phase, PlanContext, StageError};
use flowmill_stage_prep::import as prep_import;
use flowmill_stage_prep::rows::{self as prep, Table};

use crate::phases::{EXTRACTOR, SPEAKERS, average};
use crate::table;

/// The phases: the import, and the speakers' means unless these are imported too.
pub(crate) fn plan(import: &ImportConfig, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
    match phase {
        0 => import_all(import, context).map(Some),
        1 if import.speakers.is_empty() => average(context).map(Some),
        _ => Ok(None),
    }
}

fn import_all(import: &ImportConfig, context: &PlanContext) -> Result<Phase, StageError> {
    let tables = prep::tables(context)?;
    let (import, root) = (import.clone(), context.recipe_dir().to_owned());
    let part = prep_import::part(&import, &tables, &["utt", "spk"], context)?
        .work(move |work| run(work, &import, &root, &tables));
    Ok(Phase::new("importing embeddings", vec![part]))
}

fn run(work: &PartWork, import: &ImportConfig, root: &Path, tables: &[Table]) -> Result<PartReport, StageError> {
    let read = |files: &Files| read_embeddings(&files.below(root), import.dimensions).map_err(StageError::other);
    let embeddings = read(&import.embeddings)?;
    warn_of_zeros(work, "utterances", &embeddings);
    let speakers = (!import.speakers.is_empty()).then(|| read(&import.speakers)).transpose()?;
    speakers.iter().for_each(|speakers| warn_of_zeros(work, "speakers", speakers));
    let column = import.column().name;
    let mut used = BTreeSet::new();
    let report = prep_import::look_up(
        work,
        tables,
        embeddings,
        |row, value| {
            let value = value.ok_or_else(|| not_imported(&import.embeddings, "it"))?;
            match &speakers {
                Some(speakers) if !speakers.contains_key(&row.spk) => {
                    Err(not_imported(&import.speakers, &format!("its speaker {}", row.spk)))
                }
                _ => Ok(value),
            }
        },
        |table, kept| {
            used.extend(kept.iter().map(|(row, _)| row.spk.clone()));
            let row = |(row, value): &(Utterance, Vec<f32>)| (row.utt.clone(), row.spk.clone(), value.clone());
            let rows: Vec<table::UtteranceEmbedding> = kept.iter().map(row).collect();
            table::write(&work.output(&format!("{}.parquet", table.key))?, column, &rows)
        },
    )?;
    import.state().save(&work.output(EXTRACTOR)?).map_err(StageError::other)?;
    match speakers {
        Some(speakers) => {
            write_speakers(work, speakers, &used).map(|unused| report.fact("speakers of no utterance", unused))
        }
        None => Ok(report),
    }
}

/// Writes the embeddings of the speakers that rows have; gives the number of the others.
fn write_speakers(
    work: &PartWork,
    mut speakers: BTreeMap<String, Vec<f32>>,
    used: &BTreeSet<String>,
) -> Result<usize, StageError> {
    let all = speakers.len();
    speakers.retain(|speaker, _| used.contains(speaker));
    let rows: Vec<(String, Vec<f32>)> = speakers.into_iter().collect();
    let path = work.output(SPEAKERS)?;
    flowmill_corpus::table::write_embeddings(&path, "spk", "spk_embedding", &rows).map_err(StageError::other)?;
    Ok(all - rows.len())
}

/// The reason of a row that no file knows.
fn not_imported(files: &Files, what: &str) -> String {
    format!("not imported: {}", prep_import::lacks(files, what))
}

/// Tells of embeddings that say nothing: what a failed extraction often leaves.
fn warn_of_zeros(work: &PartWork, whose: &str, embeddings: &BTreeMap<String, Vec<f32>>) {
    let mut zero = embeddings.iter().filter(|(_, values)| values.iter().all(|value| *value == 0.0)).map(|(id, _)| id);
    if let Some(first) = zero.next() {
        let count = 1 + zero.count();
        work.message(format!("warning: the imported embeddings of {count} {whose} are all zero (first: {first})"));
    }
}
