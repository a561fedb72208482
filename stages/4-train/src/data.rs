//! Training data from shards: which utterances, in which batches, and how a batch is made of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use flowmill_audio::features::{MelConfig, MelSpectrogram};
use flowmill_corpus::sampling::{BatchPlan, Corpus, Part, SamplingOptions};
use flowmill_corpus::shard::{GROUP, ID, ShardIndex, Shards, speech};
use flowmill_corpus::{ColumnSpec, DType, Row};
use flowmill_models::flow::{FlowBatch, FlowConfig, FlowItem};
use flowmill_runner::StageError;
use flowmill_train::{BatchFrames, BoxError, DataSource};
use serde::Deserialize;

use crate::identity::{CorpusIdentity, DataIdentity};
use crate::item::{Mels, item};
use crate::leakage::{self, Indexed};
use crate::{SpeakerEmbedding, TrainSection};
use crate::{apart, mixture::Weighted};

/// Memory for decoded rows to train on, and as much for those to validate on.
const CACHE_BYTES: usize = 256 << 20;

/// Where packing left what training reads.
#[derive(Debug, Clone)]
pub struct DataPaths {
    /// `index.json` of the recipe's own training split, which a mixture may leave out.
    pub own: PathBuf,
    /// The corpora to train on.
    pub train: Vec<Weighted>,
    /// `index.json` of the split to validate on, if any is.
    pub validation: Option<PathBuf>,
}

impl DataPaths {
    /// All indexes.
    pub fn indexes(&self) -> impl Iterator<Item = &Path> {
        self.train.iter().map(|corpus| corpus.index.as_path()).chain(self.validation.as_deref())
    }

    /// All indexes, each with the key that it has in [`DataIdentity`].
    pub fn keyed(&self) -> impl Iterator<Item = (String, &Path)> {
        let training = self.train.iter().enumerate().map(|(at, corpus)| (format!("training[{at}]"), &*corpus.index));
        training.chain(self.validation.as_deref().map(|index| ("validation".to_owned(), index)))
    }

    /// What identifies the corpora to a training by `section`.
    ///
    /// # Errors
    /// When an index is there and cannot be read.
    pub fn identity(&self, section: &TrainSection) -> Result<DataIdentity, StageError> {
        let training = self.train.iter().map(|corpus| CorpusIdentity::of(&corpus.index, section));
        let validation = self.validation.as_deref().map(|index| CorpusIdentity::of(index, section));
        Ok(DataIdentity {
            training: training.collect::<Result<_, _>>()?,
            validation: validation.transpose()?.flatten(),
        })
    }
}

/// Utterances to train and to validate on. Numbers count through the corpora, then through the validation split.
pub struct FlowData {
    /// The corpora to train on, then the validation split if there is one.
    splits: Vec<Split>,
    /// The number of every split's first utterance.
    starts: Vec<u32>,
    /// Lengths of all, first of what is trained on.
    lengths: Vec<u32>,
    train_len: usize,
    /// Of what is trained on: utterances per shard, speakers if they matter, the corpora.
    sizes: Vec<u32>,
    speakers: Vec<u32>,
    parts: Vec<Part>,
    config: FlowConfig,
    sampling: SamplingOptions,
    embedding: SpeakerEmbedding,
}

/// One split of one corpus.
struct Split {
    shards: Shards,
    mels: Mels,
    /// How the mels are computed, or were.
    mel: MelConfig,
}

/// The part of an index's `mel` that training reads.
#[derive(Deserialize)]
struct MelDescription {
    store: String,
    config: MelConfig,
}

impl MelDescription {
    fn is_stored(&self) -> bool {
        self.store != "none"
    }
}

/// The columns that items are made of.
fn columns(stored_mels: bool, embedding: SpeakerEmbedding) -> Vec<ColumnSpec> {
    let mut columns = vec![speech::speech_token(), embedding.spec()];
    if stored_mels {
        columns.push(speech::mel(DType::F32));
    } else {
        let sound = [speech::WAV, speech::AUDIO_DATA];
        columns.extend(speech::recording().into_iter().filter(|column| sound.contains(&column.name.as_str())));
    }
    columns
}

/// The names of all columns of a split that a training by `section` depends on; `None` when its mels are not described.
pub fn columns_read(index: &ShardIndex, section: &TrainSection) -> Option<Vec<String>> {
    let columns = columns(!computes_mels(index)?, section.speaker_embedding);
    let mut read: Vec<String> = columns.into_iter().map(|column| column.name).collect();
    read.push(ID.to_owned());
    if section.balances_speakers() {
        read.push(GROUP.to_owned());
    }
    Some(read)
}

/// Whether training computes the mels of a split from its recordings; `None` when they are not described.
pub fn computes_mels(index: &ShardIndex) -> Option<bool> {
    let description: MelDescription = serde_json::from_value(index.mel.clone()).ok()?;
    Some(!description.is_stored())
}

impl FlowData {
    /// Opens what `section` trains and validates on.
    ///
    /// # Errors
    /// When an index or shard cannot be read, or the mels are not those that the model takes, the same in all corpora.
    pub fn open(paths: &DataPaths, config: &FlowConfig, section: &TrainSection) -> Result<Self, StageError> {
        let embedding = section.speaker_embedding;
        let cache = CACHE_BYTES / paths.train.len().max(1);
        let open = |corpus: &Weighted| Split::open(&corpus.index, embedding, cache);
        let mut splits = paths.train.iter().map(open).collect::<Result<Vec<Split>, _>>()?;
        check_mels(paths, &splits, config)?;
        let parts = paths.train.iter().zip(&splits);
        let parts = parts.map(|(corpus, split)| Part { utterances: split.shards.len() as u32, weight: corpus.weight });
        let (parts, train_len) = (parts.collect(), splits.iter().map(|split| split.shards.len()).sum());
        let sizes = splits.iter().flat_map(|split| split.shards.shard_sizes()).collect();
        let mut speakers = Vec::new();
        for split in splits.iter().filter(|_| section.balances_speakers()) {
            speakers.extend(split.shards.groups().map_err(StageError::other)?);
        }
        if let Some(validation) = &paths.validation {
            splits.push(Split::open(validation, embedding, CACHE_BYTES)?);
        }
        let (starts, lengths) = (starts(&splits)?, splits.iter().flat_map(|split| split.shards.lengths()).collect());
        let (config, sampling) = (config.clone(), section.sampling());
        Ok(Self { splits, starts, lengths, train_len, sizes, speakers, parts, config, sampling, embedding })
    }

    /// Refuses to validate on what is trained on, and warns where other splits of the recipe are, or where corpora have features of
    /// different extractors. `paths` are those that it was opened by.
    ///
    /// # Errors
    /// As [`leakage::check`].
    pub fn check_corpora(&self, paths: &DataPaths, tell: &dyn Fn(String)) -> Result<(), StageError> {
        let indexed: Vec<Indexed<'_>> =
            paths.indexes().zip(&self.splits).map(|(path, split)| split.indexed(path)).collect();
        let (training, validation) = indexed.split_at(paths.train.len());
        let own: Vec<&Path> = paths.indexes().collect();
        let beside = leakage::splits_beside(&paths.own, &own)?;
        apart::tell(&indexed, tell);
        leakage::check(validation.first().copied(), training, &beside, tell)
    }

    /// Utterances to train on.
    pub fn train_len(&self) -> usize {
        self.train_len
    }

    /// Utterances to validate on.
    pub fn validation_len(&self) -> usize {
        self.lengths.len() - self.train_len
    }

    /// The first so many utterances to validate on, by id.
    ///
    /// # Errors
    /// When one cannot be read or does not fit the model.
    pub fn held_out(&self, count: usize) -> Result<Vec<(String, FlowItem)>, StageError> {
        let numbers: Vec<u32> = (self.train_len as u32..).take(count.min(self.validation_len())).collect();
        let rows = self.rows(&numbers).map_err(StageError::other)?;
        let make = |((row, mels), &number): (&(Arc<Row>, &Mels), &u32)| {
            let item = item(row, u64::from(number), &self.config, self.embedding, mels);
            item.map(|item| (row.id.clone(), item)).map_err(StageError::new)
        };
        rows.iter().zip(&numbers).map(make).collect()
    }

    /// The training utterances that are longer than a batch may be; each is a batch of its own.
    pub fn oversized(&self) -> Vec<&str> {
        let items = BatchPlan::validation(self.corpus(), &self.sampling).oversized;
        items.into_iter().map(|item| self.id(item)).collect()
    }

    /// What is trained on, for the sampler.
    fn corpus(&self) -> Corpus<'_> {
        Corpus {
            lengths: &self.lengths[..self.train_len],
            shards: &self.sizes,
            speakers: &self.speakers,
            parts: &self.parts,
        }
    }

    /// The split that an utterance is in, and its number there.
    fn place(&self, item: u32) -> (usize, u32) {
        let split = self.starts.partition_point(|&start| start <= item).saturating_sub(1);
        // Of splits that begin at the same number all but the last are empty.
        (split, item - self.starts.get(split).copied().unwrap_or(0))
    }

    /// Rows by number, each with its mels' source.
    fn rows(&self, items: &[u32]) -> Result<Vec<(Arc<Row>, &Mels)>, BoxError> {
        let places: Vec<(usize, u32)> = items.iter().map(|&item| self.place(item)).collect();
        let mut rows: Vec<Option<(Arc<Row>, &Mels)>> = vec![None; items.len()];
        for (index, split) in self.splits.iter().enumerate() {
            let here: Vec<usize> = (0..items.len()).filter(|&at| places[at].0 == index).collect();
            let local: Vec<u32> = here.iter().map(|&at| places[at].1).collect();
            if local.is_empty() {
                continue;
            }
            for (at, row) in here.into_iter().zip(split.shards.fetch(&local)?) {
                rows[at] = Some((row, &split.mels));
            }
        }
        Ok(rows.into_iter().flatten().collect())
    }
}

impl DataSource for FlowData {
    type Batch = FlowBatch;

    fn batches(&self, epoch: u64) -> Result<Vec<Vec<u32>>, BoxError> {
        Ok(BatchPlan::training(self.corpus(), &self.sampling, epoch).batches)
    }

    fn load(&self, items: &[u32]) -> Result<FlowBatch, BoxError> {
        let rows = self.rows(items)?;
        let make = |(at, (row, mels)): (usize, &(Arc<Row>, &Mels))| {
            item(row, sample(items, at), &self.config, self.embedding, mels)
        };
        let items = rows.iter().enumerate().map(make).collect::<Result<Vec<FlowItem>, String>>()?;
        Ok(FlowBatch::collate(&items, &self.config)?)
    }

    fn validation(&self) -> Vec<Vec<u32>> {
        let (start, lengths) = (self.train_len as u32, &self.lengths[self.train_len..]);
        let batches = BatchPlan::validation(Corpus { lengths, ..Corpus::default() }, &self.sampling).batches;
        batches.into_iter().map(|batch| batch.into_iter().map(|item| item + start).collect()).collect()
    }

    fn frames(&self, items: &[u32]) -> BatchFrames {
        let length = |&item: &u32| self.lengths.get(item as usize).copied().map(u64::from);
        let lengths: Vec<u64> = items.iter().filter_map(length).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        BatchFrames { valid: lengths.iter().sum(), padded: longest * lengths.len() as u64 }
    }

    fn still_to_keep(&self) -> u64 {
        self.splits.iter().map(|split| split.shards.still_to_keep()).sum()
    }

    fn id(&self, item: u32) -> &str {
        let (split, local) = self.place(item);
        self.splits.get(split).map_or("", |split| split.shards.id(local))
    }
}

/// What the random numbers of an item are drawn by: its number, told apart where a batch has it more than once.
fn sample(items: &[u32], at: usize) -> u64 {
    let before = items[..at].iter().filter(|&&item| item == items[at]).count() as u64;
    before << 32 | u64::from(items[at])
}

impl Split {
    fn open(index: &Path, embedding: SpeakerEmbedding, cache_bytes: usize) -> Result<Self, StageError> {
        let description = mel_description(index)?;
        let mels = match description.is_stored() {
            true => Mels::Stored,
            false => Mels::Computed(MelSpectrogram::new(description.config.clone()).map_err(StageError::other)?),
        };
        let columns = columns(description.is_stored(), embedding);
        let shards = Shards::open(index, &columns, cache_bytes).map_err(StageError::other)?;
        Ok(Self { shards, mels, mel: description.config })
    }

    fn indexed<'a>(&'a self, path: &'a Path) -> Indexed<'a> {
        Indexed { path, index: self.shards.index() }
    }
}

/// The number of every split's first utterance.
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
        _ => Err(StageError::new(format!(
            "{next} utterances are more than the 4,294,967,295 that can be trained on at once"
        ))),
    }
}

/// Refuses mels that the model does not make, and corpora whose mels were computed in different ways.
fn check_mels(paths: &DataPaths, splits: &[Split], config: &FlowConfig) -> Result<(), StageError> {
    for (corpus, split) in paths.train.iter().zip(splits) {
        check_bins(split.mel.n_mels, config.output_size)?;
        if split.mel != splits[0].mel {
            let (a, b) = (paths.train[0].index.display(), corpus.index.display());
            let problem = format!("train.mixture: {a} and {b} hold mels of different definitions; pack them alike");
            return Err(StageError::new(problem));
        }
    }
    Ok(())
}

/// Refuses mels of another number of bins than the model makes.
pub(crate) fn check_bins(found: usize, wanted: usize) -> Result<(), StageError> {
    if found == wanted {
        return Ok(());
    }
    Err(StageError::new(format!(
        "the shards hold mels of {found} bins, the model makes {wanted}; set train.model.output_size to {found}"
    )))
}

fn mel_description(index: &Path) -> Result<MelDescription, StageError> {
    let mel = ShardIndex::read(index).map_err(StageError::other)?.mel;
    serde_json::from_value(mel)
        .map_err(|error| StageError::new(format!("{}: the mel's description: {error}", index.display())))
}
