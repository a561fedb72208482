//! Training data from shards: which utterances, in which batches, and how a batch is made of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use flowmill_audio::features::{MelConfig, MelSpectrogram};
use flowmill_corpus::sampling::{BatchPlan, Corpus, SamplingOptions};
use flowmill_corpus::shard::{Column, ShardRow, Shards};
use flowmill_models::flow::{FlowBatch, FlowConfig, FlowItem};
use flowmill_runner::StageError;
use flowmill_train::{BatchFrames, BoxError, DataSource};
use serde::Deserialize;

use crate::SpeakerEmbedding;
use crate::item::{Mels, item};

/// Memory for decoded rows of each split.
const CACHE_BYTES: usize = 256 << 20;

/// Where the packing stage left what training reads.
#[derive(Debug, Clone)]
pub struct DataPaths {
    /// `index.json` of the split to train on.
    pub train: PathBuf,
    /// `index.json` of the split to validate on.
    pub validation: PathBuf,
}

/// Utterances of both splits. Numbers count through the training split, then through the validation split.
pub struct FlowData {
    train: Split,
    validation: Option<Split>,
    config: FlowConfig,
    sampling: SamplingOptions,
    embedding: SpeakerEmbedding,
    mels: Mels,
}

/// One split.
struct Split {
    shards: Shards,
    lengths: Vec<u32>,
    sizes: Vec<u32>,
}

/// The part of an index's `mel` that training reads.
#[derive(Deserialize)]
struct MelDescription {
    store: String,
    config: MelConfig,
}

impl FlowData {
    /// Opens both splits; a validation split that is not there is left out.
    ///
    /// # Errors
    /// When an index or shard cannot be read, or the mels are not those that the model takes.
    pub fn open(
        paths: &DataPaths,
        config: &FlowConfig,
        sampling: SamplingOptions,
        embedding: SpeakerEmbedding,
    ) -> Result<Self, StageError> {
        let description = mel_description(&paths.train)?;
        check_bins(description.config.n_mels, config.output_size)?;
        let mels = match description.store.as_str() {
            "none" => Mels::Computed(MelSpectrogram::new(description.config).map_err(StageError::other)?),
            _ => Mels::Stored,
        };
        let columns = [
            Column::Utt,
            Column::SpeechToken,
            match embedding {
                SpeakerEmbedding::Utterance => Column::UttEmbedding,
                SpeakerEmbedding::Speaker => Column::SpkEmbedding,
            },
        ];
        let own = match mels {
            Mels::Stored => vec![Column::Mel],
            Mels::Computed(_) => vec![Column::Wav, Column::AudioData],
        };
        let columns = [&columns[..], &own].concat();
        let train = Split::open(&paths.train, &columns)?;
        let validation = paths.validation.exists().then(|| Split::open(&paths.validation, &columns)).transpose()?;
        Ok(Self { train, validation, config: config.clone(), sampling, embedding, mels })
    }

    /// Utterances to train on.
    pub fn train_len(&self) -> usize {
        self.train.shards.len()
    }

    /// Utterances to validate on.
    pub fn validation_len(&self) -> usize {
        self.validation.as_ref().map_or(0, |split| split.shards.len())
    }

    /// The training utterances that are longer than a batch may be; each is a batch of its own.
    pub fn oversized(&self) -> Vec<&str> {
        let items = BatchPlan::validation(self.train.corpus(), &self.sampling).oversized;
        items.into_iter().map(|item| self.train.shards.id(item)).collect()
    }

    /// Rows by number; all of one batch are of the same split.
    fn rows(&self, items: &[u32]) -> Result<Vec<Arc<ShardRow>>, BoxError> {
        let start = self.train.lengths.len() as u32;
        match &self.validation {
            Some(split) if items.first().is_some_and(|&item| item >= start) => {
                let local: Vec<u32> = items.iter().map(|item| item - start).collect();
                Ok(split.shards.fetch(&local)?)
            }
            _ => Ok(self.train.shards.fetch(items)?),
        }
    }
}

impl DataSource for FlowData {
    type Batch = FlowBatch;

    fn batches(&self, epoch: u64) -> Result<Vec<Vec<u32>>, BoxError> {
        Ok(BatchPlan::training(self.train.corpus(), &self.sampling, epoch).batches)
    }

    fn load(&self, items: &[u32]) -> Result<FlowBatch, BoxError> {
        let rows = self.rows(items)?;
        let make = |(row, &number): (&Arc<ShardRow>, &u32)| {
            item(row, u64::from(number), &self.config, self.embedding, &self.mels)
        };
        let items = rows.iter().zip(items).map(make).collect::<Result<Vec<FlowItem>, String>>()?;
        Ok(FlowBatch::collate(&items, &self.config)?)
    }

    fn validation(&self) -> Vec<Vec<u32>> {
        let Some(split) = &self.validation else { return Vec::new() };
        let start = self.train.lengths.len() as u32;
        let batches = BatchPlan::validation(split.corpus(), &self.sampling).batches;
        batches.into_iter().map(|batch| batch.into_iter().map(|item| item + start).collect()).collect()
    }

    fn frames(&self, items: &[u32]) -> BatchFrames {
        let start = self.train.lengths.len() as u32;
        let length = |item: &u32| match (item.checked_sub(start), &self.validation) {
            (Some(item), Some(split)) => split.lengths.get(item as usize),
            _ => self.train.lengths.get(*item as usize),
        };
        let lengths: Vec<u64> = items.iter().filter_map(length).map(|length| u64::from(*length)).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        BatchFrames { valid: lengths.iter().sum(), padded: longest * lengths.len() as u64 }
    }

    fn id(&self, item: u32) -> &str {
        match (item.checked_sub(self.train.lengths.len() as u32), &self.validation) {
            (Some(item), Some(split)) => split.shards.id(item),
            _ => self.train.shards.id(item),
        }
    }
}

impl Split {
    fn open(index: &Path, columns: &[Column]) -> Result<Self, StageError> {
        let shards = Shards::open(index, columns, CACHE_BYTES).map_err(StageError::other)?;
        Ok(Self { lengths: shards.lengths(), sizes: shards.shard_sizes(), shards })
    }

    fn corpus(&self) -> Corpus<'_> {
        Corpus { lengths: &self.lengths, shards: &self.sizes }
    }
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
    let mel = flowmill_corpus::shard::ShardIndex::read(index).map_err(StageError::other)?.mel;
    serde_json::from_value(mel)
        .map_err(|error| StageError::new(format!("{}: the mel's description: {error}", index.display())))
}
