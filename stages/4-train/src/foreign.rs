//! Corpora of a mixture that another program packed: their shards have no index, so one is made, with checksums.
//!
//! | phase | parts | outputs |
//! |---|---|---|
//! | shards | `corpora/0/shard-00000` | `corpora/0/shard-00000.json`: the rows of a shard that training uses, their lengths, and its checksum |
//! | indexes | `corpora/0/index` | `corpora/0/index.json` |
//!
//! The number is that of the corpus in `train.mixture`. The shards stay where they are. Rows that training cannot use are rejected.

use std::path::{Path, PathBuf};

use flowmill_corpus::packed::{self, Sample, SampledColumn};
use flowmill_corpus::shard::speech::{MEL, MelStore, SPEECH_TOKEN, SPK_EMBEDDING, UTT_EMBEDDING};
use flowmill_corpus::shard::{ShardEntry, ShardIndex};
use flowmill_corpus::{ColumnSpec, DType};
use flowmill_extract::extractors::packed::{PackedColumn, PackedConfig};
use flowmill_extract::{Chosen, Column};
use flowmill_family::{Columns, KeyError, Provided};
use flowmill_runner::{Part, PartReport, PartWork, Phase, PlanContext, Recipe, RecipeError, StageError};
use flowmill_stage_pack::PackConfig;
use flowmill_stage_pack::foreign::{ForeignColumns, with_recording};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::TrainSection;
use crate::columns;
use crate::config::SECTION;
use crate::mixture::{self, INDEX};

/// The number of phases before the training, if a corpus has no index.
pub const PHASES: usize = 2;

/// The folder of the indexes, in the folder of the stage.
const FOLDER: &str = "corpora";

/// A corpus without an index.
#[derive(Debug, Clone, PartialEq)]
pub struct ForeignCorpus {
    /// The corpus's number in `train.mixture`.
    pub number: usize,
    /// The folder, list or shard.
    pub path: PathBuf,
}

/// The record of a shard.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    entry: ShardEntry,
    most: Option<i64>,
}

/// Returns the index that is made for a corpus; `stage` is the folder of this stage.
pub fn index_of(stage: &Path, number: usize) -> PathBuf {
    stage.join(FOLDER).join(number.to_string()).join(INDEX)
}

/// Returns the corpora of a mixture without an index.
pub fn corpora(section: &TrainSection, recipe: &Recipe) -> Vec<ForeignCorpus> {
    let entries = section.settings.mixture.iter().enumerate();
    let path = |(number, entry): (usize, &mixture::MixtureEntry)| {
        let path = recipe.resolve(entry.index.as_deref()?);
        mixture::is_foreign(&path).then_some(ForeignCorpus { number, path })
    };
    entries.filter_map(path).collect()
}

impl ForeignCorpus {
    /// Returns the error about it.
    fn error(&self, recipe: &Recipe, problem: impl std::fmt::Display) -> RecipeError {
        recipe
            .error(&format!("{SECTION}.mixture[{}].index", self.number), format!("{}: {problem}", self.path.display()))
    }

    /// Returns the shards, absolute.
    fn files(&self) -> Result<Vec<PathBuf>, flowmill_corpus::CorpusError> {
        let files = packed::files(Path::new(""), &self.path.to_string_lossy())?;
        Ok(files.into_iter().map(PathBuf::from).collect())
    }

    fn sample(&self) -> Result<Sample, flowmill_corpus::CorpusError> {
        packed::sample(Path::new(""), &self.path.to_string_lossy())
    }

    /// Checks that the shards have the columns that the model reads, in its dimensions, as far as a few rows show.
    ///
    /// # Errors
    /// The key of the corpus.
    pub fn check(&self, section: &TrainSection, recipe: &Recipe) -> Result<(), RecipeError> {
        let fail = |problem: String| self.error(recipe, problem);
        let sample = self.sample().map_err(|error| fail(error.to_string()))?;
        let read = columns_read(section, &mel(recipe)?).map_err(|error| fail(error.to_string()))?;
        let lacks = |column: &&ColumnSpec| {
            column.required && column.dtype != DType::Bytes && !sample.columns.contains_key(&column.name)
        };
        if let Some(column) = read.iter().find(lacks) {
            let have: Vec<&str> = sample.columns.keys().map(String::as_str).collect();
            let problem = format!(
                "its shards have no column `{}`, which the model reads; they have {}",
                column.name,
                have.join(", ")
            );
            return Err(fail(problem));
        }
        let provided = provided(&sample, recipe).map_err(fail)?;
        section.model.check_columns(&provided).map_err(|error| fail(of_shards(&error)))
    }
}

/// Rewords an error about the columns of stages 1 and 2 for shards without an index.
fn of_shards(error: &KeyError) -> String {
    let reason = ["stage 1 gives", "stage 2 gives"]
        .iter()
        .fold(error.reason.clone(), |reason, words| reason.replace(words, "its shards have"));
    format!("{}: {reason}", error.key)
}

/// Returns the description of the mel that training computes of recordings.
fn mel(recipe: &Recipe) -> Result<Value, RecipeError> {
    let mut config = PackConfig::of(recipe)?.mel;
    config.store = MelStore::None;
    Ok(config.describe())
}

/// Returns the columns that training reads of shards without mels.
fn columns_read(section: &TrainSection, mel: &Value) -> Result<Vec<ColumnSpec>, flowmill_train::BoxError> {
    section.model.columns(&ShardIndex::new("foreign", mel.clone(), Vec::new()))
}

/// Returns the columns of a sample as the check of the model takes them.
fn provided(sample: &Sample, recipe: &Recipe) -> Result<Columns, String> {
    let of = |(name, found): (&String, &SampledColumn)| {
        let own = PackedColumn::of(&known(name)?, found);
        Some(own.map_err(|problem| format!("its column `{name}` {problem}")))
    };
    let columns = sample.columns.iter().filter_map(of).collect::<Result<_, String>>()?;
    let extractor = Chosen::new(PackedConfig { columns });
    let mut columns = columns::extracted(&extractor, extractor.columns());
    let mel = PackConfig::of(recipe).map_err(|error| error.to_string())?.mel;
    columns.insert(MEL.to_owned(), Provided::Mel { config: mel.config(), stored: true });
    Ok(columns)
}

/// Returns a column of the speech flows with what is to be known of it; `None` for other names.
fn known(name: &str) -> Option<Column> {
    match name {
        SPEECH_TOKEN => Some(Column::tokens(SPEECH_TOKEN, 0, 0.0)),
        UTT_EMBEDDING | SPK_EMBEDDING => Some(Column::embedding(name, 0)),
        _ => None,
    }
}

/// Plans the examination of the shards of all corpora, one part each.
pub fn shards(corpora: &[ForeignCorpus], section: &TrainSection, recipe: &Recipe) -> Result<Phase, StageError> {
    let mel = mel(recipe)?;
    let columns = with_recording(columns_read(section, &mel).map_err(StageError::other)?);
    let config = PackConfig::of(recipe)?.mel.config();
    let mut parts = Vec::new();
    for corpus in corpora {
        let sample = corpus.sample().map_err(StageError::other)?;
        let tokens =
            sample.columns.get(SPEECH_TOKEN).filter(|_| columns.iter().any(|column| column.name == SPEECH_TOKEN));
        let tokens = tokens.map(|found| PackedColumn::of(&Column::tokens(SPEECH_TOKEN, 0, 0.0), found)).transpose();
        let token_rate = tokens.map_err(StageError::new)?.map(|tokens| tokens.rate);
        let foreign = ForeignColumns { columns: columns.clone(), mel: config.clone(), token_rate };
        for (at, file) in corpus.files().map_err(StageError::other)?.into_iter().enumerate() {
            let key = format!("{FOLDER}/{}/shard-{at:05}", corpus.number);
            let read: Vec<String> = columns.iter().map(ToString::to_string).collect();
            let (foreign, output) = (foreign.clone(), format!("{key}.json"));
            let own = json!({ "columns": read, "mel": &mel, "token_rate": token_rate });
            let part = Part::new(key).config(own).starting(|part| part.input(file.clone()));
            parts.push(part.work(move |work| examine(work, &foreign, &file, &output)));
        }
    }
    Ok(Phase::new("examining shards without an index", parts))
}

/// Describes one shard.
fn examine(work: &PartWork, foreign: &ForeignColumns, file: &Path, output: &str) -> Result<PartReport, StageError> {
    let found = foreign.describe(file, &|rows| work.advance(rows)).map_err(StageError::other)?;
    let (rows, out) = (found.entry.rows + found.rejected.len() as u64, found.entry.rows);
    found.rejected.iter().for_each(|(id, reason)| work.reject(id, reason.as_str()));
    let path = work.output(output)?;
    let text = serde_json::to_string(&Record { entry: found.entry, most: found.most }).map_err(StageError::other)?;
    std::fs::write(&path, text + "\n").map_err(|error| StageError::file(&path, error))?;
    Ok(PartReport::rows(rows, out))
}

/// Plans the indexes of all corpora.
pub fn indexes(
    corpora: &[ForeignCorpus],
    section: &TrainSection,
    recipe: &Recipe,
    context: &PlanContext,
) -> Result<Phase, StageError> {
    let (mel, own) = (mel(recipe)?, context.stage_dir(crate::work::TRAIN));
    let receipts = context.receipts(crate::work::TRAIN)?;
    let part = |corpus: &ForeignCorpus| {
        let folder = own.join(FOLDER).join(corpus.number.to_string());
        let outputs = receipts.iter().flat_map(|receipt| receipt.outputs());
        let records: Vec<PathBuf> = outputs.filter(|path| path.parent() == Some(folder.as_path())).collect();
        let (corpus, mel, section, recipe) = (corpus.clone(), mel.clone(), section.clone(), recipe.clone());
        Part::new(format!("{FOLDER}/{}/index", corpus.number))
            .config(json!({ "mel": &mel, "model": section.model.model() }))
            .inputs(&records)
            .work(move |work| write_index(work, &corpus, &section, &recipe, mel, &records))
    };
    Ok(Phase::new("indexing shards", corpora.iter().map(part).collect()))
}

/// Writes the index of a corpus, unless its tokens are not those of the model.
fn write_index(
    work: &PartWork,
    corpus: &ForeignCorpus,
    section: &TrainSection,
    recipe: &Recipe,
    mel: Value,
    records: &[PathBuf],
) -> Result<PartReport, StageError> {
    let mut entries = Vec::with_capacity(records.len());
    let mut most = None;
    for path in records {
        let text = std::fs::read(path).map_err(|error| StageError::file(path, error))?;
        let record: Record = serde_json::from_slice(&text).map_err(StageError::other)?;
        most = most.max(record.most);
        entries.extend(Some(record.entry).filter(|entry| entry.rows > 0));
    }
    let fail = |problem: String| StageError::from(corpus.error(recipe, problem));
    if entries.is_empty() {
        return Err(fail("none of its rows can be trained on; see rejected.parquet for the reasons".to_owned()));
    }
    if let Some(most) = most.and_then(|most| usize::try_from(most).ok()) {
        let mut provided = provided(&corpus.sample().map_err(StageError::other)?, recipe).map_err(fail)?;
        if let Some(Provided::Tokens { vocabulary, .. }) = provided.get_mut(SPEECH_TOKEN) {
            *vocabulary = most + 1;
        }
        section.model.check_columns(&provided).map_err(|error| fail(of_shards(&error)))?;
    }
    let index = ShardIndex::new(flowmill_stage_prep::TRAIN_SPLIT, mel, entries).in_place();
    let (rows, seconds) = (index.rows, index.seconds);
    let path = work.output(&format!("{FOLDER}/{}/{INDEX}", corpus.number))?;
    index.write(&path).map_err(StageError::other)?;
    work.message(format!("{}: {rows} rows, {:.2} hours", corpus.path.display(), seconds / 3600.0));
    Ok(PartReport::summary())
}
