//! Training data from shards: the utterances, the order of batches, and the making of a batch.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use flowmill_corpus::Row;
use flowmill_corpus::sampling::{BatchPlan, Corpus, Part, SamplingOptions};
use flowmill_corpus::shard::{GROUP, ID, ShardIndex, Shards};
use flowmill_family::{Batch, Configured, Examples, Reader, ReaderRow};
use flowmill_nn::random::RngKey;
use flowmill_runner::StageError;
use flowmill_train::{BatchCost, BoxError, DataSource};

use crate::TrainSection;
use crate::identity::{CorpusIdentity, DataIdentity};
use crate::leakage::{self, Indexed};
use crate::{mixture::Weighted, provenance};

/// The memory for decoded training rows; validation rows have the same amount.
const CACHE_BYTES: usize = 256 << 20;

/// The paths of packed data that training reads.
#[derive(Debug, Clone)]
pub struct DataPaths {
    /// `index.json` of the recipe's own training split, which a mixture may omit.
    pub own: PathBuf,
    /// The training corpora.
    pub train: Vec<Weighted>,
    /// `index.json` of the validation split, if there is one.
    pub validation: Option<PathBuf>,
}

impl DataPaths {
    /// Returns all indexes.
    pub fn indexes(&self) -> impl Iterator<Item = &Path> {
        self.train.iter().map(|corpus| corpus.index.as_path()).chain(self.validation.as_deref())
    }

    /// Returns all indexes, each with its key in [`DataIdentity`].
    pub fn keyed(&self) -> impl Iterator<Item = (String, &Path)> {
        let training = self.train.iter().enumerate().map(|(at, corpus)| (format!("training[{at}]"), &*corpus.index));
        training.chain(self.validation.as_deref().map(|index| ("validation".to_owned(), index)))
    }

    /// Returns the identity of the corpora for a training with `section`.
    ///
    /// # Errors
    /// Returns an error if an existing index cannot be read.
    pub fn identity(&self, section: &TrainSection) -> Result<DataIdentity, StageError> {
        let training = self.train.iter().map(|corpus| CorpusIdentity::of(&corpus.index, section));
        let validation = self.validation.as_deref().map(|index| CorpusIdentity::of(index, section));
        Ok(DataIdentity {
            training: training.collect::<Result<_, _>>()?,
            validation: validation.transpose()?.flatten(),
        })
    }
}

/// Utterances for training and validation. Their numbers count through the corpora, then through the validation
/// split.
pub struct TrainingData {
    /// The training corpora, followed by the validation split if there is one.
    splits: Vec<Split>,
    /// The number of every split's first utterance.
    starts: Vec<u32>,
    /// The costs of all utterances, those for training first.
    costs: Vec<u32>,
    train_len: usize,
    /// The number of training utterances per shard, their speakers if they matter, and their corpora.
    sizes: Vec<u32>,
    speakers: Vec<u32>,
    parts: Vec<Part>,
    model: Arc<dyn Configured>,
    sampling: SamplingOptions,
    /// The device on which batches are made.
    device: Device,
}

/// One split of one corpus.
struct Split {
    shards: Shards,
    reader: Reader,
}

/// Returns the names of all columns of a split on which a training with `section` depends; `None` if its index does
/// not describe them.
pub fn columns_read(index: &ShardIndex, section: &TrainSection) -> Option<Vec<String>> {
    let columns = section.model.columns(index).ok()?;
    let mut read: Vec<String> = columns.into_iter().map(|column| column.name).collect();
    read.push(ID.to_owned());
    if section.balances_speakers() {
        read.push(GROUP.to_owned());
    }
    Some(read)
}

impl TrainingData {
    /// Opens the training and validation data for a training of `model` with `section`. Batches are made for
    /// `device`.
    ///
    /// # Errors
    /// Returns an error if an index or shard cannot be read, or the splits do not match the model.
    pub fn open(
        paths: &DataPaths,
        model: &Arc<dyn Configured>,
        section: &TrainSection,
        device: Device,
    ) -> Result<Self, StageError> {
        let cache = CACHE_BYTES / paths.train.len().max(1);
        let open = |corpus: &Weighted| Split::open(&corpus.index, model.as_ref(), cache);
        let mut splits = paths.train.iter().map(open).collect::<Result<Vec<Split>, _>>()?;
        let indexed = paths.train.iter().zip(&splits);
        let indexed: Vec<(&Path, &ShardIndex)> =
            indexed.map(|(corpus, split)| (&*corpus.index, split.shards.index())).collect();
        model.check_splits(&indexed).map_err(StageError::other)?;
        let parts = paths.train.iter().zip(&splits);
        let parts = parts.map(|(corpus, split)| Part { utterances: split.shards.len() as u32, weight: corpus.weight });
        let (parts, train_len) = (parts.collect(), splits.iter().map(|split| split.shards.len()).sum());
        let sizes: Vec<u32> = splits.iter().flat_map(|split| split.shards.shard_sizes()).collect();
        let mut speakers = Vec::new();
        for split in splits.iter().filter(|_| section.balances_speakers()) {
            speakers.extend(split.shards.groups().map_err(StageError::other)?);
        }
        if let Some(validation) = &paths.validation {
            splits.push(Split::open(validation, model.as_ref(), CACHE_BYTES)?);
        }
        let sizes_of_rows = splits.iter().flat_map(|split| split.shards.sizes());
        let costs: Vec<u32> = sizes_of_rows.map(|sizes| model.cost(&sizes)).collect();
        let starts = starts(&splits)?;
        let (model, sampling) = (model.clone(), section.sampling());
        let (rows, shards, corpora) = (costs.len(), sizes.len(), paths.train.len());
        tracing::info!(rows, trained_on = train_len, shards, corpora, unit = model.cost_unit(), "data opened");
        Ok(Self { splits, starts, costs, train_len, sizes, speakers, parts, model, sampling, device })
    }

    /// Checks that the validation data are not also training data. Warns about other splits of the recipe in the
    /// training data, and about corpora with features of different extractors. `paths` are those from which the data
    /// were opened.
    ///
    /// # Errors
    /// See [`leakage::check`].
    pub fn check_corpora(&self, paths: &DataPaths, tell: &dyn Fn(String)) -> Result<(), StageError> {
        let indexed: Vec<Indexed<'_>> =
            paths.indexes().zip(&self.splits).map(|(path, split)| split.indexed(path)).collect();
        let (training, validation) = indexed.split_at(paths.train.len());
        let own: Vec<&Path> = paths.indexes().collect();
        let beside = leakage::splits_beside(&paths.own, &own)?;
        provenance::warn(&indexed, tell);
        leakage::check(validation.first().copied(), training, &beside, tell)
    }

    /// Returns the number of training utterances.
    pub fn train_len(&self) -> usize {
        self.train_len
    }

    /// Returns the number of validation utterances.
    pub fn validation_len(&self) -> usize {
        self.costs.len() - self.train_len
    }

    /// Returns the examples of the first `count` validation utterances, with random choices from `rng_key`; none
    /// without validation data.
    ///
    /// # Errors
    /// Returns an error if one cannot be read or does not match the model.
    pub fn examples(&self, count: usize, rng_key: RngKey) -> Result<Option<Examples>, StageError> {
        let numbers: Vec<u32> = (self.train_len as u32..).take(count.min(self.validation_len())).collect();
        self.examples_of(&numbers, rng_key)
    }

    /// Returns the examples of `count` random validation utterances; none without validation data.
    ///
    /// # Errors
    /// See [`examples`](Self::examples).
    pub fn random_examples(&self, count: usize, rng_key: RngKey) -> Result<Option<Examples>, StageError> {
        // There are at most as many utterances as numbers of 32 bits.
        let (first, all) = (self.train_len as u32, self.validation_len() as u32);
        let count = if all == 0 { 0 } else { count as u64 };
        let numbers: Vec<u32> = (0..count).map(|at| first + rng_key.below_at(at, all)).collect();
        self.examples_of(&numbers, rng_key)
    }

    /// Returns the examples of utterances, under the family's settings for previews; none without utterances.
    ///
    /// # Errors
    /// See [`examples`](Self::examples).
    pub fn examples_of(&self, numbers: &[u32], rng_key: RngKey) -> Result<Option<Examples>, StageError> {
        if numbers.is_empty() {
            return Ok(None);
        }
        let rows = self.rows(numbers).map_err(StageError::other)?;
        let numbers = numbers.iter().map(|&number| u64::from(number));
        let rows: Vec<ReaderRow<'_>> =
            rows.iter().zip(numbers).map(|(row, number)| reader_row(row, number, rng_key)).collect();
        let shown = self.model.variants().into_iter().next().unwrap_or_else(|| self.model.clone());
        shown.examples(&rows).map(Some).map_err(StageError::other)
    }

    /// Loads a batch like [`DataSource::load`] under other settings of the family.
    ///
    /// # Errors
    /// Returns an error if a row cannot be read or does not match the model.
    pub fn load_as(&self, model: &dyn Configured, items: &[u32], rng_key: RngKey) -> Result<Batch, BoxError> {
        self.load_part_as(model, items, 0..items.len(), rng_key)
    }

    /// Loads a part of a batch, each item with the random choices that it has in the whole batch.
    fn load_part_as(
        &self,
        model: &dyn Configured,
        items: &[u32],
        wanted: Range<usize>,
        rng_key: RngKey,
    ) -> Result<Batch, BoxError> {
        let rows = self.rows(&items[wanted.clone()])?;
        let rows = wanted.zip(&rows);
        let rows: Vec<ReaderRow<'_>> = rows.map(|(at, row)| reader_row(row, sample(items, at), rng_key)).collect();
        model.batch(&rows, &self.device)
    }

    /// Returns what the family has to say about the splits, each note with the split's name.
    pub fn notes(&self) -> Vec<String> {
        let notes = |split: &Split| {
            let name = split.shards.index().split.clone();
            self.model.notes(&split.reader).into_iter().map(move |note| format!("{name}: {note}"))
        };
        self.splits.iter().flat_map(notes).collect()
    }

    /// Returns the training utterances that cost more than the limit of a batch. Each is in a batch of its own.
    pub fn oversized(&self) -> Vec<&str> {
        let items = BatchPlan::validation(self.corpus(), &self.sampling).oversized;
        items.into_iter().map(|item| self.id(item)).collect()
    }

    /// Returns the unit of a batch's budget.
    pub fn cost_unit(&self) -> &'static str {
        self.model.cost_unit()
    }

    /// Returns the training data for the sampler.
    fn corpus(&self) -> Corpus<'_> {
        Corpus {
            costs: &self.costs[..self.train_len],
            shards: &self.sizes,
            speakers: &self.speakers,
            parts: &self.parts,
        }
    }

    /// Returns the split of an utterance, and its number there.
    fn place(&self, item: u32) -> (usize, u32) {
        let split = self.starts.partition_point(|&start| start <= item).saturating_sub(1);
        // Of several splits with the same first number, all except the last are empty.
        (split, item - self.starts.get(split).copied().unwrap_or(0))
    }

    /// Returns rows by number, each with the reader of its split.
    fn rows(&self, items: &[u32]) -> Result<Vec<(Arc<Row>, &Reader)>, BoxError> {
        let places: Vec<(usize, u32)> = items.iter().map(|&item| self.place(item)).collect();
        let mut rows: Vec<Option<(Arc<Row>, &Reader)>> = vec![None; items.len()];
        for (index, split) in self.splits.iter().enumerate() {
            let here: Vec<usize> = (0..items.len()).filter(|&at| places[at].0 == index).collect();
            let local: Vec<u32> = here.iter().map(|&at| places[at].1).collect();
            if local.is_empty() {
                continue;
            }
            for (at, row) in here.into_iter().zip(split.shards.fetch(&local)?) {
                rows[at] = Some((row, &split.reader));
            }
        }
        Ok(rows.into_iter().flatten().collect())
    }
}

impl DataSource for TrainingData {
    type Batch = Batch;

    fn batches(&self, epoch: u64) -> Result<Vec<Vec<u32>>, BoxError> {
        let batches = BatchPlan::training(self.corpus(), &self.sampling, epoch).batches;
        tracing::debug!(
            epoch,
            batches = batches.len(),
            rows = batches.iter().map(Vec::len).sum::<usize>(),
            "batches planned"
        );
        Ok(batches)
    }

    fn load(&self, items: &[u32], rng_key: RngKey) -> Result<Batch, BoxError> {
        self.load_as(self.model.as_ref(), items, rng_key)
    }

    fn load_part(&self, items: &[u32], wanted: Range<usize>, rng_key: RngKey) -> Result<Batch, BoxError> {
        self.load_part_as(self.model.as_ref(), items, wanted, rng_key)
    }

    fn validation(&self) -> Vec<Vec<u32>> {
        let (start, costs) = (self.train_len as u32, &self.costs[self.train_len..]);
        let batches = BatchPlan::validation(Corpus { costs, ..Corpus::default() }, &self.sampling).batches;
        batches.into_iter().map(|batch| batch.into_iter().map(|item| item + start).collect()).collect()
    }

    fn cost(&self, items: &[u32]) -> BatchCost {
        let cost = |&item: &u32| self.costs.get(item as usize).copied().map(u64::from);
        let costs: Vec<u64> = items.iter().filter_map(cost).collect();
        let most = costs.iter().copied().max().unwrap_or(0);
        let unit = self.model.cost_unit();
        BatchCost { valid: costs.iter().sum(), padded: most * costs.len() as u64, unit }
    }

    fn still_to_keep(&self) -> u64 {
        self.splits.iter().map(|split| split.shards.still_to_keep()).sum()
    }

    fn id(&self, item: u32) -> &str {
        let (split, local) = self.place(item);
        self.splits.get(split).map_or("", |split| split.shards.id(local))
    }
}

/// Returns a row with its reader and its random numbers; `rng_key` is that of its batch.
fn reader_row<'a>((row, reader): &'a (Arc<Row>, &Reader), sample: u64, rng_key: RngKey) -> ReaderRow<'a> {
    ReaderRow { row, reader, sample, rng_key: rng_key.sample(sample) }
}

/// Returns the key of an item's random draws: its number, distinguished if a batch contains it several times.
fn sample(items: &[u32], at: usize) -> u64 {
    let before = items[..at].iter().filter(|&&item| item == items[at]).count() as u64;
    before << 32 | u64::from(items[at])
}

impl Split {
    fn open(path: &Path, model: &dyn Configured, cache_bytes: usize) -> Result<Self, StageError> {
        let index = ShardIndex::read(path).map_err(StageError::other)?;
        let about = |error: BoxError| StageError::new(format!("{}: {error}", path.display()));
        let (columns, reader) = (model.columns(&index).map_err(about)?, model.reader(path, &index).map_err(about)?);
        let shards = Shards::with_index(path, index, &columns, cache_bytes).map_err(StageError::other)?;
        Ok(Self { shards, reader })
    }

    fn indexed<'a>(&'a self, path: &'a Path) -> Indexed<'a> {
        Indexed { path, index: self.shards.index() }
    }
}

/// Returns the number of every split's first utterance.
fn starts(splits: &[Split]) -> Result<Vec<u32>, StageError> {
    let mut next = 0u64;
    let mut starts = Vec::with_capacity(splits.len());
    for split in splits {
        starts.push(next);
        next += split.shards.len() as u64;
    }
    let all = starts.into_iter().map(u32::try_from).collect::<Result<Vec<u32>, _>>();
    match all {
        Ok(starts) if next <= u64::from(u32::MAX) => Ok(starts),
        _ => Err(StageError::new(format!("{next} utterances exceed the limit of 4,294,967,295 for one training"))),
    }
}
