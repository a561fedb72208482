//! The stage when tokens are imported: one part looks up all rows.

use std::path::Path;

use flowmill_corpus::table;
use flowmill_models::extractors::import::{ImportConfig, read_tokens};
use flowmill_runner::{PartReport, PartWork, Phase, PlanContext, StageError};
use flowmill_stage_prep::import as prep_import;
use flowmill_stage_prep::rows::{self as prep, Table};

use crate::phases::{CODEBOOK, count};

/// The phases: the import, and the count of units.
pub(crate) fn plan(import: &ImportConfig, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
    match phase {
        0 => import_all(import, context).map(Some),
        1 => count(context).map(Some),
        _ => Ok(None),
    }
}

fn import_all(import: &ImportConfig, context: &PlanContext) -> Result<Phase, StageError> {
    let tables = prep::tables(context)?;
    let (import, root) = (import.clone(), context.recipe_dir().to_owned());
    let part =
        prep_import::part(&import, &tables, &["utt"], context)?.work(move |work| run(work, &import, &root, &tables));
    Ok(Phase::new("importing tokens", vec![part]))
}

fn run(work: &PartWork, import: &ImportConfig, root: &Path, tables: &[Table]) -> Result<PartReport, StageError> {
    let files = &import.tokens;
    let values = read_tokens(&files.below(root), import).map_err(StageError::other)?;
    let column = import.column().name;
    let mut tokens = 0;
    let report = prep_import::look_up(
        work,
        tables,
        values,
        |_, _, value| {
            Ok(match value {
                None => Err(format!("not imported: {}", prep_import::lacks(files, "it"))),
                Some(tokens) if tokens.is_empty() => Err(format!("no tokens: {files} has none of it")),
                Some(tokens) => Ok(tokens),
            })
        },
        |table, kept| {
            let rows: Vec<(String, Vec<i64>)> =
                kept.iter().map(|(row, value)| (row.utt.clone(), value.clone())).collect();
            tokens += rows.iter().map(|(_, tokens)| tokens.len()).sum::<usize>();
            let path = work.output(&format!("{}.parquet", table.key))?;
            table::write_tokens(&path, "utt", column, &rows).map_err(StageError::other)
        },
    )?;
    import.state().save(&work.output(CODEBOOK)?).map_err(StageError::other)?;
    Ok(report.fact("tokens", tokens))
}
