//! The training data of a flow, and its random draws.

use super::{FlowConfig, FlowError, Result};
use candle_core::{Device, Tensor};
use flowmill_nn::random::RngKey;

/// One utterance.
#[derive(Debug, Clone)]
pub struct FlowItem {
    /// Ids of the speech tokens, [`FlowConfig::ids_per_token`] for each; see [`FlowConfig::token_ids`].
    pub tokens: Vec<u32>,
    /// Log-mel frames, row-major `[frame, bin]`, `token_mel_ratio` frames per token.
    pub mel: Vec<f32>,
    /// Speaker embedding of any length; it is normalized.
    pub speaker_embedding: Vec<f32>,
    /// Identifies the utterance in the random draws.
    pub sample: u64,
}

/// A batch of utterances.
#[derive(Debug, Clone)]
pub struct FlowBatch {
    /// Ids of the speech tokens `[item, token, id]`, row-major, with all items padded to the longest. No frame
    /// depends on the padding.
    pub tokens: Vec<u32>,
    /// Number of tokens of each item.
    pub token_lengths: Vec<usize>,
    /// Log-mel frames `[row, bin]`: the rows of all items concatenated.
    pub mel: Tensor,
    /// Number of rows of each item in `mel` and in the noise: its frames, and its padding if there is any.
    pub mel_rows: Vec<usize>,
    /// Number of frames of each item: `token_mel_ratio` times its tokens.
    pub mel_lengths: Vec<usize>,
    /// Speaker embeddings `[item, value]`.
    pub speaker_embedding: Tensor,
    /// Identifiers of the items in the random draws, so that the draws for an item do not depend on its batch.
    pub samples: Vec<u64>,
}

impl FlowBatch {
    /// Collects utterances into a batch. Their mels are not padded.
    ///
    /// # Errors
    /// [`FlowError::Batch`] names the item with wrong sizes.
    pub fn collate(items: &[FlowItem], config: &FlowConfig) -> Result<Self> {
        let (bins, ratio, values) = (config.output_size, config.token_mel_ratio, config.spk_embed_dim);
        let ids = config.ids_per_token();
        let length = |item: &FlowItem| item.tokens.len() / ids;
        let longest = items.iter().map(length).max().unwrap_or(0);
        let mut tokens = vec![0u32; items.len() * longest * ids];
        let mut mel = Vec::with_capacity(items.iter().map(|item| item.mel.len()).sum());
        let mut speakers = Vec::with_capacity(items.len() * values);
        for (index, item) in items.iter().enumerate() {
            let refuse = |message| Err(FlowError::Batch { item: index, message });
            if !item.tokens.len().is_multiple_of(ids) {
                return refuse(format!("{} ids, but every token has {ids}", item.tokens.len()));
            }
            if item.mel.len() != length(item) * ratio * bins {
                let wanted = length(item) * ratio;
                return refuse(format!("{} mel values, but {wanted} frames of {bins} bins are needed", item.mel.len()));
            }
            if item.speaker_embedding.len() != values {
                return refuse(format!("{} speaker values instead of {values}", item.speaker_embedding.len()));
            }
            tokens[index * longest * ids..][..item.tokens.len()].copy_from_slice(&item.tokens);
            mel.extend_from_slice(&item.mel);
            speakers.extend_from_slice(&item.speaker_embedding);
        }
        let mel_lengths: Vec<usize> = items.iter().map(|item| length(item) * ratio).collect();
        let device = Device::Cpu;
        let frames: usize = mel_lengths.iter().sum();
        Ok(Self {
            tokens,
            token_lengths: items.iter().map(length).collect(),
            mel: Tensor::from_vec(mel, (frames, bins), &device)?,
            mel_rows: mel_lengths.clone(),
            mel_lengths,
            speaker_embedding: Tensor::from_vec(speakers, (items.len(), values), &device)?,
            samples: items.iter().map(|item| item.sample).collect(),
        })
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.token_lengths.len()
    }

    /// Returns whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.token_lengths.is_empty()
    }

    pub(crate) fn check(&self, config: &FlowConfig) -> Result<()> {
        let (items, ids, mel) = (self.len(), config.ids_per_token(), self.mel.dims());
        let longest = self.tokens.len() / (items * ids).max(1);
        let shapes_fit = self.tokens.len() == items * longest * ids
            && mel == [self.mel_rows.iter().sum(), config.output_size]
            && self.speaker_embedding.dims() == [items, config.spk_embed_dim]
            && [self.samples.len(), self.mel_lengths.len(), self.mel_rows.len()] == [items; 3];
        if !shapes_fit || items == 0 {
            let message = format!("{} token ids and a mel of {mel:?} do not match {items} items", self.tokens.len());
            return Err(FlowError::Batch { item: 0, message });
        }
        for item in 0..items {
            let (tokens, length) = (self.token_lengths[item], self.mel_lengths[item]);
            let rows = self.mel_rows[item];
            if tokens == 0 || tokens > longest || length != tokens * config.token_mel_ratio || length > rows {
                let message =
                    format!("{tokens} tokens and {length} frames, {} frames per token", config.token_mel_ratio);
                return Err(FlowError::Batch { item, message });
            }
        }
        Ok(())
    }
}

/// All random numbers of a training step.
#[derive(Debug, Clone)]
pub struct FlowDraws {
    /// The time of each item on its path, uniform in [0, 1).
    pub t: Vec<f32>,
    /// Standard normal noise with the shape of the mel, `[row, bin]`.
    pub noise: Tensor,
    /// 0 for items whose conditions are dropped, 1 for the others.
    pub condition_keep: Vec<f32>,
    /// The number of leading frames of each item that are its prompt.
    pub prompt_lengths: Vec<usize>,
    /// True if the batch uses chunk-causal masks.
    pub streaming: bool,
}

impl FlowDraws {
    /// Draws all random numbers. The draws of an item are keyed by its `sample`, so they do not depend on the batch
    /// around it. `draw` is keyed by (seed, epoch, step).
    ///
    /// # Errors
    /// Returns an error if the noise cannot be created.
    pub fn from_rng_key(rng_key: &RngKey, batch: &FlowBatch, config: &FlowConfig) -> Result<Self> {
        let matching = &config.matching;
        let (rows, bins) = batch.mel.dims2()?;
        let mut noise = Vec::with_capacity(rows * bins);
        let mut draws = Self {
            t: Vec::with_capacity(batch.len()),
            noise: batch.mel.clone(),
            condition_keep: Vec::with_capacity(batch.len()),
            prompt_lengths: Vec::with_capacity(batch.len()),
            streaming: rng_key.purpose("flow streaming").uniform_at(0) < matching.streaming_rate,
        };
        for ((sample, length), rows) in batch.samples.iter().zip(&batch.mel_lengths).zip(&batch.mel_rows) {
            let of = |purpose| rng_key.purpose(purpose).sample(*sample);
            let end = noise.len() + rows * bins;
            noise.extend(of("flow noise").normals(length.min(rows) * bins));
            noise.resize(end, 0.0);
            draws.t.push(of("flow time").uniform_at(0));
            let keep = of("flow condition").uniform_at(0) >= matching.training_cfg_rate;
            draws.condition_keep.push(if keep { 1.0 } else { 0.0 });
            let longest = (matching.prompt_fraction * *length as f32) as u32;
            let prompted = of("flow prompt").uniform_at(0) < matching.prompt_rate;
            let frames = of("flow prompt").below_at(1, longest + 1);
            draws.prompt_lengths.push(if prompted { frames as usize } else { 0 });
        }
        draws.noise = Tensor::from_vec(noise, batch.mel.dims(), &Device::Cpu)?;
        Ok(draws)
    }
}
