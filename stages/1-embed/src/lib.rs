//! Stage 1, `embed`: one embedding per utterance and one per speaker.
//!
//! | phase | parts | outputs |
//! |---|---|---|
//! | measure | `measure/SPLIT/part-00000` of the split that is fitted on | what the part contributes to the fit |
//! | fit | `fit` | `extractor.safetensors` |
//! | extract | `SPLIT/part-00000` of every split | `SPLIT/part-00000.parquet`: `utt`, `spk`, `utt_embedding` |
//! | speakers | `speakers` | `spk2embedding.parquet`: `spk`, `spk_embedding`, the mean over a speaker's utterances in all splits |
//!
//! With `kind: import` nothing is measured or extracted: one part, `import`, looks up all rows and leaves the same files. Where files
//! of several splits differ in a speaker's embedding, the rows have a column `spk_embedding` and the table of speakers a column `split`.
//!
//! The recipe chooses the extractor, as long as it does not give tokens or codes; the stage knows none of them. Where it gives other
//! columns than an embedding, the tables have these, and speakers have no mean.

mod imported;
mod speakers;
mod table;

use std::path::{Path, PathBuf};

use flowmill_corpus::Utterance;
use flowmill_extract::extractors::import::ImportConfig;
use flowmill_extract::{Column, Extracted, Facts, ValueType};
use flowmill_runner::{Part, PartReport, PartWork, Phase, PlanContext, StageError};
use flowmill_stage_extract::{ExtractStage, Extraction, Section, write_table};
use flowmill_stage_prep::rows::{self as prep, Table};

/// The fitted extractor, relative to the stage's folder.
pub const EXTRACTOR: &str = "extractor.safetensors";

/// The speakers' means, relative to the stage's folder.
pub(crate) const SPEAKERS: &str = "spk2embedding.parquet";

/// The stage.
pub type Embed = ExtractStage<Embeddings>;

/// The part of the driver that is stage 1's own: tables with speakers, and the means of speakers.
pub struct Embeddings;

impl Extraction for Embeddings {
    const NUMBER: u8 = 1;
    const NAME: &'static str = "embed";
    const TITLE: &'static str = "embeddings per utterance and speaker";
    const VERSION: u32 = 3;
    const ABOUT: &'static str = "Settings of stage 1, `embed`: the speaker embeddings.";
    const ABOUT_EXTRACTOR: &'static str =
        "The extractor of the embeddings: `statistics`, `campplus` or `import`, with its settings.";
    const VALUES: &'static str = "embeddings";
    const NEEDS: &'static str = "an embedding";
    const READS: &'static [&'static str] = &["utt", "spk", "start", "end", "channel", "decoder"];
    const IMPORT_READS: &'static [&'static str] = &["utt", "spk"];
    const FITTED: &'static str = EXTRACTOR;

    fn takes(columns: &[Column]) -> bool {
        let is_discrete = |column: &Column| matches!(column.values, ValueType::Tokens { .. } | ValueType::Codes { .. });
        !columns.iter().any(is_discrete)
    }

    fn write(path: &Path, columns: &[Column], rows: Vec<(&Utterance, Extracted)>) -> Result<Facts, StageError> {
        let [Column { spec, values: ValueType::Embedding { .. } }] = columns else {
            return write_table(path, columns, rows).map(|()| Facts::new());
        };
        let rows: Vec<table::UtteranceEmbedding> = rows
            .into_iter()
            .filter_map(|(row, value)| Some((row.utt.clone(), row.spk.clone(), value.as_embedding()?.to_vec())))
            .collect();
        table::write(path, &spec.name, &rows, None).map(|()| Facts::new())
    }

    fn import(work: &PartWork, import: &ImportConfig, root: &Path, tables: &[Table]) -> Result<PartReport, StageError> {
        imported::run(work, import, root, tables)
    }

    fn summarize(section: &Section, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        if section.extractor.import().is_some_and(|import| !import.speakers.is_empty()) {
            return Ok(None);
        }
        let is_embedding = |column: &Column| matches!(column.values, ValueType::Embedding { .. });
        let Some(column) = section.extractor.columns().into_iter().find(is_embedding) else { return Ok(None) };
        let table = |table: Table| context.stage_dir(Self::NUMBER).join(format!("{}.parquet", table.key));
        let tables: Vec<PathBuf> = prep::tables(context)?.into_iter().map(table).collect();
        let part = Part::new("speakers").inputs(tables.clone()).work(move |work| average(work, &column, &tables));
        Ok(Some(Phase::new("averaging per speaker", vec![part])))
    }
}

/// Writes the means of speakers over the rows of all tables.
fn average(work: &PartWork, column: &Column, tables: &[PathBuf]) -> Result<PartReport, StageError> {
    let mut means = speakers::Means::default();
    for path in tables {
        for row in table::read(path, &column.spec)? {
            let (speaker, embedding) = row?;
            means.add(speaker, &embedding);
        }
    }
    let means = means.finish();
    let path = work.output(SPEAKERS)?;
    flowmill_corpus::table::write_embeddings(&path, "spk", "spk_embedding", &means).map_err(StageError::other)?;
    Ok(PartReport::summary().fact("speakers", means.len()))
}
