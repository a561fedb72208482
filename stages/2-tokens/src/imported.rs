//! The stage when tokens are imported: one part looks up all rows.

use std::path::Path;

use flowmill_corpus::shard::speech;
use flowmill_corpus::table;
use flowmill_extract::extractors::import::{ImportConfig, read_tokens};
use flowmill_runner::{PartReport, PartWork, StageError};
use flowmill_stage_extract::{lacks, look_up};
use flowmill_stage_prep::rows::Table;

/// Looks up the rows of all tables and writes the tables.
pub(crate) fn run(
    work: &PartWork,
    import: &ImportConfig,
    root: &Path,
    tables: &[Table],
) -> Result<PartReport, StageError> {
    let files = &import.tokens;
    let values = read_tokens(&files.below(root), import).map_err(StageError::other)?;
    let column = speech::SPEECH_TOKEN;
    let mut tokens = 0;
    let report = look_up(
        work,
        tables,
        values,
        |_, _, value| {
            Ok(match value {
                None => Err(format!("not imported: {}", lacks(files, "it"))),
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
    Ok(report.fact("tokens", tokens))
}
