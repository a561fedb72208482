//! What stage 0 left: the parts to work on and their rows.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use flowmill_corpus::{
    Utterance,
    source::{PipeLimits, Source},
    table,
};
use flowmill_models::extractors::{ExtractError, Media, RowEvents, RowWork};
use flowmill_runner::{PartWork, PlanContext, StageError};

/// One part of a split.
#[derive(Clone)]
pub struct PrepPart {
    /// The split's name.
    pub split: String,
    /// `SPLIT/part-00000`.
    pub key: String,
    /// The table of its utterances.
    pub table: PathBuf,
    /// How many there are.
    pub rows: u64,
    /// The table and every recording in it.
    pub inputs: Vec<PathBuf>,
}

/// The parts of all splits, in the order in which stage 0 planned them.
///
/// # Errors
/// When stage 0 is not finished or a table cannot be read.
pub fn parts(context: &PlanContext) -> Result<Vec<PrepPart>, StageError> {
    let stage = context.stage_dir(0);
    let mut parts = Vec::new();
    for table in context.receipts(0)?.iter().flat_map(|receipt| receipt.outputs()) {
        if let Some((split, key)) = table.strip_prefix(&stage).ok().and_then(name_of) {
            parts.push(part(context, split, key, table)?);
        }
    }
    Ok(parts)
}

/// The parts of one split.
///
/// # Errors
/// When stage 0 made no such split; `key` is the recipe's key that asks for it.
pub fn parts_of(context: &PlanContext, split: &str, key: &str) -> Result<Vec<PrepPart>, StageError> {
    let parts = parts(context)?;
    let splits: BTreeSet<String> = parts.iter().map(|part| part.split.clone()).collect();
    let wanted: Vec<PrepPart> = parts.into_iter().filter(|part| part.split == split).collect();
    if wanted.is_empty() {
        let known = splits.into_iter().collect::<Vec<_>>().join(", ");
        let message = format!("stage 0 made no split {split:?}; there are: {known}");
        return Err(context.recipe().error(key, message).into());
    }
    Ok(wanted)
}

/// The outputs of this stage's own earlier parts whose keys begin so, in the order of the parts.
///
/// # Errors
/// When a receipt cannot be read.
pub fn outputs(context: &PlanContext, own: u8, prefix: &str) -> Result<Vec<PathBuf>, StageError> {
    let receipts = context.receipts(own)?;
    Ok(receipts
        .iter()
        .filter(|receipt| receipt.key.starts_with(prefix))
        .flat_map(|receipt| receipt.outputs())
        .collect())
}

/// The split and the key, when the path, relative to stage 0, is `SPLIT/part-00000.parquet`.
fn name_of(table: &Path) -> Option<(String, String)> {
    let key = table.to_str()?.strip_suffix(".parquet")?;
    let (split, part) = key.split_once('/')?;
    (part.starts_with("part-") && !part.contains('/')).then(|| (split.to_owned(), key.to_owned()))
}

fn part(context: &PlanContext, split: String, key: String, table: PathBuf) -> Result<PrepPart, StageError> {
    let wavs = table::read_wav_column(&table).map_err(StageError::other)?;
    let files: BTreeSet<PathBuf> = wavs.iter().filter_map(|wav| Source::of(wav).file(context.recipe_dir())).collect();
    let inputs = std::iter::once(table.clone()).chain(files).collect();
    Ok(PrepPart { split, key, table, rows: wavs.len() as u64, inputs })
}

/// The utterances of a part.
///
/// # Errors
/// When the table cannot be read.
pub fn utterances(part: &PrepPart) -> Result<Vec<Utterance>, StageError> {
    table::read_utterances(&part.table).map_err(StageError::other)
}

/// What an extractor sees of an utterance; `root` is the recipe's folder.
pub fn media(root: &Path, utterance: &Utterance) -> Media {
    let (root, wav) = (root.to_owned(), utterance.wav.clone());
    let read = move || Source::of(&wav).read(&root, &PipeLimits::default());
    Media::recording(utterance.wav.clone(), (utterance.start, utterance.end), read)
}

/// An utterance's id.
pub fn id(utterance: &Utterance) -> &str {
    &utterance.utt
}

/// Tells the runner about rows.
pub struct Events<'w> {
    /// The part at work.
    pub work: &'w PartWork,
    /// Whether a rejected row is to be counted: once per stage, where its value is extracted, not where it is only
    /// measured.
    pub count_rejected: bool,
}

impl RowEvents for Events<'_> {
    fn reject(&self, id: &str, reason: &ExtractError) {
        if self.count_rejected {
            self.work.reject(id, reason);
        }
    }

    fn advance(&self, rows: u64) {
        self.work.advance(rows);
    }

    fn interrupted(&self) -> bool {
        self.work.interrupted()
    }
}

/// The driver's errors as the runner's.
pub fn stage_error(error: RowWork) -> StageError {
    match error {
        RowWork::Interrupted(_) => StageError::Interrupted,
        other => StageError::other(other),
    }
}

/// Runs `work` on as many threads as the part may use.
///
/// # Errors
/// Those of `work`, or when threads cannot be had.
pub fn with_threads<T: Send>(
    jobs: usize,
    work: impl FnOnce() -> Result<T, StageError> + Send,
) -> Result<T, StageError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs.max(1)).build().map_err(StageError::other)?;
    pool.install(work)
}
