//! The second phase: each split's index and lists, and the statistics of the mels of the training split.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flowmill_corpus::file_checksum;
use flowmill_corpus::shard::{
    ListPaths, MadeBy, ShardEntry, ShardIndex, SplitContent, speech, write_data_list, write_row_lists,
    write_shard_lists,
};
use flowmill_extract::{Registry, State};
use flowmill_runner::{Part, PartReport, PartWork, Phase, PlanContext, StageError};
use flowmill_stage_prep::recordings::RunRecordings;
use serde_json::{Value, json};

use crate::record::ShardRecord;
use crate::statistics::Moments;
use crate::wanted::{Needed, Wanted};
use crate::{Container, ListStyle, PackConfig};

/// Plans an index per split and the statistics.
pub fn phase(
    config: &PackConfig,
    registry: &Registry,
    needed: Option<Needed>,
    context: &PlanContext,
) -> Result<Phase, StageError> {
    // No later stage cuts rows from recordings.
    context.of_run::<RunRecordings>().clear();
    let own = context.stage_dir(3);
    let mut records: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in context.receipts(3)?.iter().flat_map(|receipt| receipt.outputs()) {
        let is_record = path.extension().is_some_and(|extension| extension == "json");
        let split = path.strip_prefix(&own).ok().and_then(Path::parent).and_then(Path::to_str).map(str::to_owned);
        if let (Some(split), true) = (split, is_record) {
            records.entry(split).or_default().push(path);
        }
    }
    let wanted = Wanted::of(config, registry, needed, context)?;
    let extractors = extractors(&wanted, context)?;
    let part =
        |(split, records): (&String, &Vec<PathBuf>)| index_part(config, &own, split, records.clone(), &extractors);
    let mut parts: Vec<Part> = records.iter().map(part).collect();
    let train_split = flowmill_stage_prep::train_split(context.recipe())?;
    if let Some(train) = records.get(&train_split).filter(|_| wanted.has(speech::MEL)) {
        parts.push(statistics_part(config, train_split, train.clone()));
    }
    Ok(Phase::new("index", parts))
}

/// The names of columns, and the file of the extractor that made them.
type Extractor = (Vec<String>, PathBuf);

/// Returns the extractors of stages 1 and 2, each with its file in its stage's folder.
fn extractors(wanted: &Wanted, context: &PlanContext) -> Result<Vec<Extractor>, StageError> {
    let mut found = Vec::new();
    for stage in [1, 2] {
        // Embeddings of speakers are means of those of utterances.
        let mut columns = wanted.given_by(stage);
        columns.retain(|column| column.name != speech::SPK_EMBEDDING);
        if columns.is_empty() {
            continue;
        }
        let folder = context.stage_dir(stage);
        let is_extractor = |path: &PathBuf| {
            path.parent() == Some(&folder) && path.extension().is_some_and(|extension| extension == "safetensors")
        };
        let outputs = context.receipts(stage)?.iter().flat_map(|receipt| receipt.outputs()).find(is_extractor);
        found.extend(outputs.map(|path| (columns.into_iter().map(|column| column.name).collect(), path)));
    }
    Ok(found)
}

/// Returns the origins of the columns.
fn made_by(extractors: &[Extractor]) -> Result<BTreeMap<String, MadeBy>, StageError> {
    let mut made = BTreeMap::new();
    for (columns, path) in extractors {
        let kind = State::load(path).map_err(StageError::other)?.kind().to_owned();
        let blake3 = file_checksum(path).map_err(StageError::other)?.to_string();
        let made_by = MadeBy { kind, blake3 };
        made.extend(columns.iter().map(|column| (column.clone(), made_by.clone())));
    }
    Ok(made)
}

/// Plans the index of one split.
fn index_part(config: &PackConfig, own: &Path, split: &str, records: Vec<PathBuf>, extractors: &[Extractor]) -> Part {
    let prefix = match config.list_paths {
        ListStyle::Name => String::new(),
        ListStyle::Absolute => format!("{}/", own.join(split).display()),
    };
    let lists = Lists { paths: ListPaths { prefix }, by_row: config.format == Container::Parquet };
    let (mel, split, extractors) = (config.mel.describe(), split.to_owned(), extractors.to_vec());
    let files: Vec<PathBuf> = extractors.iter().map(|(_, path)| path.clone()).collect();
    Part::new(format!("{split}/index"))
        .config(json!({ "mel": &mel, "list_prefix": &lists.paths.prefix, "format": config.format }))
        .inputs(&records)
        .inputs(&files)
        .work(move |work| write_index(&split, mel, &lists, &records, made_by(&extractors)?, work))
}

/// The lists to write.
struct Lists {
    paths: ListPaths,
    /// True if the lists that map rows to shards are written too, which CosyVoice needs for Parquet.
    by_row: bool,
}

/// Writes the index and the lists of one split. Shards without rows are left out.
fn write_index(
    split: &str,
    mel: Value,
    lists: &Lists,
    records: &[PathBuf],
    made_by: BTreeMap<String, MadeBy>,
    work: &PartWork,
) -> Result<PartReport, StageError> {
    let path = work.output(&format!("{split}/index.json"))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut entries: Vec<ShardEntry> = Vec::with_capacity(records.len());
    let mut contents = Vec::with_capacity(records.len());
    for path in records {
        let record = ShardRecord::read(path)?;
        if record.entry.rows > 0 {
            if lists.by_row {
                write_shard_lists(folder, entries.len(), &record.entry, &record.speakers, &lists.paths)
                    .map_err(StageError::other)?;
            }
            contents.push((record.entry.blake3.clone(), record.content));
            entries.push(record.entry);
        }
    }
    write_data_list(folder, &entries, &lists.paths).map_err(StageError::other)?;
    if lists.by_row {
        write_row_lists(folder, &entries, &lists.paths).map_err(StageError::other)?;
    }
    SplitContent::new(contents).write(&SplitContent::path(&path)).map_err(StageError::other)?;
    ShardIndex::new(split, mel, entries).made_by(made_by).write(&path).map_err(StageError::other)?;
    Ok(PartReport::summary())
}

/// Plans the statistics of the training mels.
fn statistics_part(config: &PackConfig, train_split: String, records: Vec<PathBuf>) -> Part {
    let settings = json!({ "mel": config.mel.describe(), "train": { "train_split": &train_split } });
    Part::new("mel_statistics").config(settings).inputs(&records).work(move |work| {
        let mut moments = Moments::default();
        for path in &records {
            moments.merge(&ShardRecord::read(path)?.moments);
        }
        let path = work.output(flowmill_corpus::shard::MEL_STATISTICS_FILE)?;
        let text = serde_json::to_string_pretty(&moments.statistics(&train_split)).map_err(StageError::other)?;
        std::fs::write(&path, text + "\n").map_err(|e| StageError::file(&path, e))?;
        Ok(PartReport::summary())
    })
}
