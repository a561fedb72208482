//! Stage 2, `tokens`: a sequence of discrete units for every utterance.
//!
//! | phase | parts | outputs |
//! |---|---|---|
//! | measure | `measure/SPLIT/part-00000` of the split that is fitted on | what the part contributes to the fit |
//! | fit | `fit` | `codebook.safetensors`, and `codebook.json` with the settings and figures of the fit |
//! | extract | `SPLIT/part-00000` of every split | `SPLIT/part-00000.parquet`: `utt`, `speech_token` |
//! | usage | `usage` | `usage.json`: how many units each split uses, and their perplexity |
//!
//! With `kind: import` nothing is measured or extracted: one part, `import`, looks up all rows and leaves the same files.
//!
//! The recipe chooses the extractor, as long as it does not give embeddings; the stage knows none of them. Where it gives other
//! columns than tokens, the tables have these. The units of codes are counted level by level; those of other columns are not counted.

mod imported;
mod usage;

use std::path::{Path, PathBuf};

use flowmill_corpus::shard::ShardReader;
use flowmill_corpus::{Utterance, table};
use flowmill_extract::extractors::import::ImportConfig;
use flowmill_extract::{Column, Extracted, Facts, ValueType};
use flowmill_runner::{Part, PartReport, PartWork, Phase, PlanContext, StageError};
use flowmill_stage_extract::{ExtractStage, Extraction, Section, write_json, write_table};
use flowmill_stage_prep::rows::{self as prep, Table};

/// The fitted extractor, relative to the stage's folder.
pub const CODEBOOK: &str = "codebook.safetensors";

/// The file with the figures about the use of the units, relative to the stage's folder.
const USAGE: &str = "usage.json";

/// The stage.
pub type Tokens = ExtractStage<Units>;

/// The part of the driver that is stage 2's own: tables of units, and their use by the splits.
pub struct Units;

impl Extraction for Units {
    const NUMBER: u8 = 2;
    const NAME: &'static str = "tokens";
    const TITLE: &'static str = "discrete units per utterance";
    const VERSION: u32 = 4;
    const ABOUT: &'static str = "Settings of stage 2, `tokens`: the speech tokens.";
    const ABOUT_EXTRACTOR: &'static str = "The extractor of the tokens: `kmeans`, `dual-kmeans`, `s3-tokenizer`, \
                                           `paraformer-units`, `step-audio-dual` or `import`, or a codec: \
                                           `rvq-kmeans`, `encodec` or `dac`; with its settings.";
    const VALUES: &'static str = "tokens";
    const NEEDS: &'static str = "tokens";
    const READS: &'static [&'static str] = &["utt", "start", "end", "channel", "decoder"];
    const IMPORT_READS: &'static [&'static str] = &["utt"];
    const FITTED: &'static str = CODEBOOK;
    const FIT_FACTS: Option<&'static str> = Some("codebook.json");
    const NOISE: bool = true;

    fn takes(columns: &[Column]) -> bool {
        !columns.iter().any(|column| matches!(column.values, ValueType::Embedding { .. }))
    }

    fn write(path: &Path, columns: &[Column], rows: Vec<(&Utterance, Extracted)>) -> Result<Facts, StageError> {
        let [Column { spec, values: ValueType::Tokens { .. } }] = columns else {
            let frames = codes_at(columns).map(|at| rows.iter().map(|(_, value)| frames(value, at)).sum::<usize>());
            write_table(path, columns, rows)?;
            return Ok(frames.map(|frames| ("frames".to_owned(), frames.into())).into_iter().collect());
        };
        let tokens: Vec<(String, Vec<i64>)> =
            rows.into_iter().filter_map(|(row, value)| Some((row.utt.clone(), value.as_tokens()?.to_vec()))).collect();
        table::write_tokens(path, "utt", &spec.name, &tokens).map_err(StageError::other)?;
        let count: usize = tokens.iter().map(|(_, tokens)| tokens.len()).sum();
        Ok(vec![("tokens".to_owned(), count.into())])
    }

    fn import(work: &PartWork, import: &ImportConfig, root: &Path, tables: &[Table]) -> Result<PartReport, StageError> {
        imported::run(work, import, root, tables)
    }

    fn summarize(section: &Section, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        let is_counted = |column: &Column| matches!(column.values, ValueType::Tokens { .. } | ValueType::Codes { .. });
        let Some(column) = section.extractor.columns().into_iter().find(is_counted) else { return Ok(None) };
        let own = context.stage_dir(Self::NUMBER);
        let table = |part: Table| (part.split, own.join(format!("{}.parquet", part.key)));
        let tables: Vec<(String, PathBuf)> = prep::tables(context)?.into_iter().map(table).collect();
        let part = Part::new("usage")
            .input(own.join(CODEBOOK))
            .inputs(tables.iter().map(|(_, table)| table))
            .work(move |work| count(work, &column, &tables));
        Ok(Some(Phase::new("counting units", vec![part])))
    }
}

/// The place of the column of codes, if there is one.
fn codes_at(columns: &[Column]) -> Option<usize> {
    columns.iter().position(|column| matches!(column.values, ValueType::Codes { .. }))
}

/// The number of frames of a row's codes, which are the value at this place.
fn frames(value: &Extracted, at: usize) -> usize {
    value.arrays().get(at).and_then(|codes| codes.shape().last().copied()).unwrap_or(0)
}

/// Counts the units of all tables.
fn count(work: &PartWork, column: &Column, tables: &[(String, PathBuf)]) -> Result<PartReport, StageError> {
    let mut counts = usage::Counts::new(column.values);
    for (split, path) in tables {
        let table = ShardReader::open_table(path).map_err(StageError::other)?;
        for row in table.iter(std::slice::from_ref(&column.spec)).map_err(StageError::other)? {
            let row = row.map_err(StageError::other)?;
            counts.add(split, row.column(column.name()).map_err(StageError::other)?).map_err(StageError::other)?;
        }
    }
    write_json(&work.output(USAGE)?, &counts.to_json())?;
    Ok(counts.facts().into_iter().fold(PartReport::summary(), |report, (name, value)| report.fact(name, value)))
}
