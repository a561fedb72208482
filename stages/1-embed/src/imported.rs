//! The stage when embeddings are imported: one part looks up all rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use flowmill_corpus::Utterance;
use flowmill_models::extractors::import::{ImportConfig, read_embeddings};
use flowmill_runner::{Part, PartReport, PartWork, Phase, PlanContext, StageError};
use flowmill_stage_prep::import as prep_import;
use flowmill_stage_prep::rows::{self as prep, Table};
use serde_json::json;

use crate::phases::{EXTRACTOR, SPEAKERS, average};
use crate::table;

/// The phases: the import, and the speakers' means unless these are imported too.
pub(crate) fn plan(import: &ImportConfig, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
    match phase {
        0 => import_all(import, context).map(Some),
        1 if import.speakers.is_none() => average(context).map(Some),
        _ => Ok(None),
    }
}

fn import_all(import: &ImportConfig, context: &PlanContext) -> Result<Phase, StageError> {
    let tables = prep::tables(context)?;
    let (import, root) = (import.clone(), context.recipe_dir().to_owned());
    let part = Part::new("import")
        .config(json!({ "extractor": import }))
        .inputs(prep_import::inputs(&import, &tables, context))
        .work(move |work| run(work, &import, &root, &tables));
    Ok(Phase::new("importing embeddings", vec![part]))
}

fn run(work: &PartWork, import: &ImportConfig, root: &Path, tables: &[Table]) -> Result<PartReport, StageError> {
    let read = |file: &Option<PathBuf>| {
        let values = file.as_ref().map(|file| read_embeddings(&root.join(file), import.dimensions));
        values.transpose().map_err(StageError::other)
    };
    let speakers = read(&import.speakers)?;
    let column = import.column().name;
    let mut used = BTreeSet::new();
    let report = prep_import::look_up(
        work,
        tables,
        read(&import.embeddings)?.unwrap_or_default(),
        |row, value| {
            let value = value.ok_or_else(|| absent(&import.embeddings, "it"))?;
            match &speakers {
                Some(speakers) if !speakers.contains_key(&row.spk) => {
                    Err(absent(&import.speakers, &format!("its speaker {}", row.spk)))
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

/// The reason of a row that a file does not know.
fn absent(file: &Option<PathBuf>, what: &str) -> String {
    let file = file.as_deref().unwrap_or(Path::new("")).display();
    format!("not imported: {file} does not have {what}")
}
