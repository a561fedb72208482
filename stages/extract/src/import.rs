//! Values that another tool made, looked up for rows instead of extracted.

use std::collections::BTreeMap;
use std::path::Path;

use flowmill_corpus::Utterance;
use flowmill_extract::extractors::import::{Files, ImportConfig};
use flowmill_runner::{Part, PartReport, PartWork, PlanContext, Recipe, RecipeError, StageError};
use flowmill_stage_prep::contents::without_paths;
use flowmill_stage_prep::rows::{Table, contents, utterances};
use serde_json::json;

/// Refuses an import whose files are not there; `section` is the stage's in the recipe.
///
/// # Errors
/// The key that names the missing file.
pub(crate) fn check_files(import: &ImportConfig, recipe: &Recipe, section: &str) -> Result<(), RecipeError> {
    for (key, file) in import.files() {
        let path = recipe.dir().join(file);
        if !path.is_file() {
            let message = format!(
                "there is no file {}; relative paths start from the folder of the recipe that contains them",
                path.display()
            );
            return Err(recipe.error(&format!("{section}.extractor.{key}"), message));
        }
    }
    Ok(())
}

/// The role of imported files among the inputs.
const IMPORTED: &str = "imported";

/// Creates the part that imports, without its work. It depends on the content of the files and on these columns of
/// the rows.
///
/// # Errors
/// When a table cannot be read.
pub(crate) fn part(
    import: &ImportConfig,
    tables: &[Table],
    columns: &[&str],
    context: &PlanContext,
) -> Result<Part, StageError> {
    let files: Vec<&Path> = import.files().map(|(_, file)| file).collect();
    let rows = contents(context, tables, columns)?;
    let rows: Vec<_> = tables.iter().zip(&rows).map(|(table, rows)| json!([table.key, rows.digest()])).collect();
    Ok(Part::new("import")
        .config(json!({ "extractor": without_paths(json!(import), IMPORTED, &files), "utterances": rows }))
        .starting(|part| part.inputs_as(IMPORTED, files.iter().map(|file| context.recipe_dir().join(file)))))
}

/// Formats the statement that files lack something: "a.pt does not have it", "a.pt and b.pt do not have it".
pub fn lacks(files: &Files, what: &str) -> String {
    let does = if files.iter().count() > 1 { "do" } else { "does" };
    format!("{files} {does} not have {what}")
}

/// Looks up the rows of all tables. `judge` returns the value to keep for an utterance, given the value in `values`
/// for its id, or the reason for rejecting it. `write` takes the kept rows of a table. Ids without a row are counted.
///
/// # Errors
/// Returns an error if a table cannot be read, the errors of `judge` and `write`, or an error if interrupted.
pub fn look_up<T, K>(
    work: &PartWork,
    tables: &[Table],
    mut values: BTreeMap<String, T>,
    judge: impl Fn(&Table, &Utterance, Option<T>) -> Result<Result<K, String>, StageError>,
    mut write: impl FnMut(&Table, &[(Utterance, K)]) -> Result<(), StageError>,
) -> Result<PartReport, StageError> {
    let (mut rows_in, mut rows_out) = (0, 0);
    for table in tables {
        if work.interrupted() {
            return Err(StageError::Interrupted);
        }
        let rows = utterances(table)?;
        let count = rows.len() as u64;
        let mut kept = Vec::with_capacity(rows.len());
        for row in rows {
            match judge(table, &row, values.remove(&row.utt))? {
                Ok(value) => kept.push((row, value)),
                Err(reason) => work.reject(&row.utt, reason),
            }
        }
        write(table, &kept)?;
        work.advance(count);
        (rows_in, rows_out) = (rows_in + count, rows_out + kept.len() as u64);
    }
    if let Some(first) = values.keys().next() {
        work.message(format!("{} imported ids belong to no utterance of this recipe (first: {first})", values.len()));
    }
    Ok(PartReport::rows(rows_in, rows_out).fact("ids of no utterance", values.len()))
}
