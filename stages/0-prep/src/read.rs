//! The first phase: reads index files and writes tables of checked and split rows.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use flowmill_corpus::{UtteranceRow, table};
use flowmill_runner::{Part, PartReport, PartWork, Phase, PlanContext, StageError};
use rayon::prelude::*;
use serde_json::json;

use crate::collect::{Collection, collect};
use crate::columns::{self, ExtraRow};
use crate::listing::dependencies;
use crate::speed::{Copies, Speeds};
use crate::unpack::Unpacked;
use crate::{Format, PrepConfig, condition, fallback, filter, train_split};

/// The part's key.
pub const KEY: &str = "read";

/// Plans the reading as one part.
pub fn phase(config: &PrepConfig, unpacked: Unpacked, context: &PlanContext) -> Result<Phase, StageError> {
    let mut depends = dependencies(config, context)?;
    let resolve = |(shard, tar): (&String, &String)| (context.resolve(shard), context.resolve(tar));
    let tars: HashMap<PathBuf, PathBuf> = unpacked.iter().map(resolve).collect();
    for file in &mut depends.files {
        if let Some(tar) = tars.get(file) {
            file.clone_from(tar);
        }
    }
    let mut own = json!({
        "data": config.data,
        // What the content shows follows below; the name stands for a Kaldi directory.
        "format": if config.format == Format::Auto { Format::Kaldi } else { config.format },
        "split": config.split,
        "allow_pipes": config.allow_pipes,
        "probe": config.probe,
        // Reading only checks whether a text is required.
        "min_text": config.min_text.min(1),
        "part_size": config.part_size,
        "recordings": depends.listings,
    });
    let detected: Vec<&str> = config.data.iter().map(|source| config.format_of(source).name()).collect();
    if config.data.iter().zip(&detected).any(|(source, name)| source.detected.is_some() && *name != "kaldi") {
        own["detected"] = json!(detected);
    }
    let condition = config.parsed_condition().unwrap_or_default();
    let terms = condition.words(if config.probe { condition::Stage::Read } else { condition::Stage::Both });
    if !terms.is_empty() {
        own["where"] = json!(terms);
    }
    let renames = config.renames();
    if !renames.is_empty() {
        own["renames"] = json!(renames);
    }
    if config.has_extras() {
        own["extras"] = json!({ "media": config.media, "references": config.references, "columns": config.columns });
    }
    let speeds = Speeds::of(config, &train_split(context.recipe())?);
    if !speeds.is_empty() {
        own["speed_perturb"] = json!(speeds);
    }
    if config.adds_instructions() {
        own["instruct"] = json!(true);
    }
    // Without a second phase the filters are applied here, and every row may need the fallback.
    let program = fallback::installed(config).filter(|_| !config.probe);
    if !config.probe {
        own["filter"] = filters(config);
        fallback::describe(&mut own, KEY, program.as_deref(), context);
    }
    let (config, root) = (config.clone(), context.recipe_dir().to_path_buf());
    let work = move |work: &PartWork| run(&config, &speeds, &unpacked, &root, program.as_deref(), work);
    let part = Part::new(KEY).config(own).inputs(depends.files);
    let part = depends.optional.into_iter().fold(part, Part::optional_input).work(work);
    Ok(Phase::new("read", vec![part]))
}

/// Returns the fields of the filters, for a part's configuration.
pub fn filters(config: &PrepConfig) -> serde_json::Value {
    json!({
        "min_duration": config.min_duration,
        "max_duration": config.max_duration,
        "min_text": config.min_text,
        "max_text": config.max_text,
    })
}

/// Returns the path of a split's part, relative to the stage: the input of the second phase, or the stage's result.
fn output_name(config: &PrepConfig, split: &str, part: usize) -> String {
    if config.probe {
        format!("manifests/{split}/rows-{part:05}.parquet")
    } else {
        format!("{split}/part-{part:05}.parquet")
    }
}

/// Reads everything and writes the tables.
fn run(
    config: &PrepConfig,
    speeds: &Speeds,
    unpacked: &Unpacked,
    root: &Path,
    program: Option<&str>,
    work: &PartWork,
) -> Result<PartReport, StageError> {
    let mut collection = collect(config, unpacked, root, work).map_err(StageError::other)?;
    // The recipe was checked, so the condition can be parsed.
    let condition = config.parsed_condition().unwrap_or_default();
    let stage = if config.probe { condition::Stage::Read } else { condition::Stage::Both };
    let refused = |row: &UtteranceRow<'_>| {
        let filtered = if config.probe { None } else { filter::unprobed(config, row) };
        filtered.or_else(|| condition.refuse(row, stage))
    };
    collection.filter(refused, |id, reason| work.reject(id, reason));
    let copies = Copies::of(config, speeds, &collection);
    let rows = write(config, speeds, &collection, &copies, program, work)?;
    let (tried, made) = copies.counts();
    let report = PartReport::rows(collection.rows_in + tried, rows + made);
    let report = if speeds.is_empty() { report } else { report.fact("copies at other speeds", made) };
    Ok(if config.probe { report } else { with_counts(report, &collection) })
}

/// Writes every split in parts, first the rows and then their copies of each speed. Returns the number of rows without the copies.
fn write(
    config: &PrepConfig,
    speeds: &Speeds,
    collection: &Collection,
    copies: &Copies<'_>,
    program: Option<&str>,
    work: &PartWork,
) -> Result<u64, StageError> {
    let mut rows = 0;
    for split in collection.splits() {
        rows += split.len() as u64;
        let chunks = split.chunks(config.part_size);
        let speeds = speeds.of_split(split.name);
        let parts: Vec<_> = speeds.flat_map(|speed| chunks.iter().map(move |chunk| (speed, chunk))).collect();
        parts.par_iter().enumerate().try_for_each(|(part, (speed, chunk))| {
            if work.interrupted() {
                return Err(StageError::Interrupted);
            }
            let write = |rows: &[UtteranceRow<'_>]| write_part(config, split.name, part, rows, program, work);
            match speed {
                None => write(&chunk.rows().collect::<Vec<_>>()),
                Some(speed) => copies.with(chunk, *speed, work, write),
            }
        })?;
    }
    Ok(rows)
}

/// Writes one part of a split.
fn write_part(
    config: &PrepConfig,
    split: &str,
    part: usize,
    rows: &[UtteranceRow<'_>],
    program: Option<&str>,
    work: &PartWork,
) -> Result<(), StageError> {
    let output = output_name(config, split, part);
    let extras = rows.iter().filter_map(|row| Some(ExtraRow { id: row.utt, group: row.spk, extra: row.extra? }));
    columns::write(work, &output, &extras.collect::<Vec<_>>(), &config.column_specs())?;
    let path = work.output(&output)?;
    let rows = rows.iter().map(|row| UtteranceRow { decoder: program, ..*row });
    table::write_rows(&path, rows).map_err(StageError::other)
}

/// Adds the number of rows in each split.
fn with_counts(report: PartReport, collection: &Collection) -> PartReport {
    collection.splits().fold(report, |report, split| report.fact(split.name, split.len() as u64))
}
