//! What a flow is trained on, and what is drawn at random for it.

use super::{FlowConfig, FlowError, Result};
use candle_core::{DType, Device, Tensor};
use flowmill_nn::random::Draw;

/// One utterance.
#[derive(Debug, Clone)]
pub struct FlowItem {
    /// Ids of the speech tokens, [`FlowConfig::ids_per_token`] for each; see [`FlowConfig::token_ids`].
    pub tokens: Vec<u32>,
    /// Log-mel frames, row-major `[frame, bin]`, `token_mel_ratio` frames per token.
    pub mel: Vec<f32>,
    /// Speaker embedding; any length, it is normalised.
    pub speaker_embedding: Vec<f32>,
    /// Identifies the utterance in the random draws.
    pub sample: u64,
}

/// A padded batch.
#[derive(Debug, Clone)]
pub struct FlowBatch {
    /// Speech tokens `[batch, token]`, or `[batch, token, 2]` of two codebooks, `u32` or `i64`; negative ones count as 0, as in the public implementation.
    pub tokens: Tensor,
    /// Number of valid tokens of each item.
    pub token_lengths: Vec<usize>,
    /// Log-mel spectrograms `[batch, frame, bin]`.
    pub mel: Tensor,
    /// Number of valid frames of each item: `token_mel_ratio` times its tokens.
    pub mel_lengths: Vec<usize>,
    /// Speaker embeddings `[batch, value]`.
    pub speaker_embedding: Tensor,
    /// Identifies each item in the random draws, so that what is drawn for it does not depend on its batch.
    pub samples: Vec<u64>,
}

impl FlowBatch {
    /// Pads utterances to a batch.
    ///
    /// # Errors
    /// [`FlowError::Batch`] names the item whose sizes do not fit.
    pub fn collate(items: &[FlowItem], config: &FlowConfig) -> Result<Self> {
        let (bins, ratio, values) = (config.output_size, config.token_mel_ratio, config.spk_embed_dim);
        let ids = config.ids_per_token();
        let length = |item: &FlowItem| item.tokens.len() / ids;
        let longest = items.iter().map(length).max().unwrap_or(0);
        let mut tokens = vec![0u32; items.len() * longest * ids];
        let mut mel = vec![0f32; items.len() * longest * ratio * bins];
        let mut speakers = Vec::with_capacity(items.len() * values);
        for (index, item) in items.iter().enumerate() {
            let refuse = |message| Err(FlowError::Batch { item: index, message });
            if !item.tokens.len().is_multiple_of(ids) {
                return refuse(format!("{} ids where every token has {ids}", item.tokens.len()));
            }
            if item.mel.len() != length(item) * ratio * bins {
                let wanted = length(item) * ratio;
                return refuse(format!("{} mel values, {wanted} frames of {bins} bins are needed", item.mel.len()));
            }
            if item.speaker_embedding.len() != values {
                return refuse(format!("{} speaker values instead of {values}", item.speaker_embedding.len()));
            }
            tokens[index * longest * ids..][..item.tokens.len()].copy_from_slice(&item.tokens);
            mel[index * longest * ratio * bins..][..item.mel.len()].copy_from_slice(&item.mel);
            speakers.extend_from_slice(&item.speaker_embedding);
        }
        let device = Device::Cpu;
        Ok(Self {
            tokens: Tensor::from_vec(tokens, token_shape(items.len(), longest, ids), &device)?,
            token_lengths: items.iter().map(length).collect(),
            mel: Tensor::from_vec(mel, (items.len(), longest * ratio, bins), &device)?,
            mel_lengths: items.iter().map(|item| length(item) * ratio).collect(),
            speaker_embedding: Tensor::from_vec(speakers, (items.len(), values), &device)?,
            samples: items.iter().map(|item| item.sample).collect(),
        })
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.token_lengths.len()
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.token_lengths.is_empty()
    }

    pub(crate) fn check(&self, config: &FlowConfig) -> Result<()> {
        let items = self.len();
        let (tokens, frames) = (self.tokens.dims(), self.mel.dims());
        let longest = tokens.get(1).copied().unwrap_or(0);
        let shapes_fit = tokens == token_shape(items, longest, config.ids_per_token())
            && frames.len() == 3
            && frames[0] == items
            && frames[2] == config.output_size
            && self.speaker_embedding.dims() == [items, config.spk_embed_dim]
            && self.samples.len() == items
            && self.mel_lengths.len() == items;
        if !shapes_fit || items == 0 {
            let message = format!("tokens {tokens:?}, mel {frames:?} do not fit {items} items");
            return Err(FlowError::Batch { item: 0, message });
        }
        for item in 0..items {
            let (tokens, length) = (self.token_lengths[item], self.mel_lengths[item]);
            if tokens == 0 || tokens > longest || length != tokens * config.token_mel_ratio || length > frames[1] {
                let message =
                    format!("{tokens} tokens and {length} frames, {} frames per token", config.token_mel_ratio);
                return Err(FlowError::Batch { item, message });
            }
        }
        Ok(())
    }
}

/// The shape of a batch's tokens: no axis for a single id.
fn token_shape(items: usize, tokens: usize, ids: usize) -> Vec<usize> {
    if ids == 1 { vec![items, tokens] } else { vec![items, tokens, ids] }
}

/// Token ids as `u32`, row-major; negative ones become 0.
pub(crate) fn token_ids(tokens: &Tensor) -> Result<Vec<u32>> {
    let ids = tokens.to_dtype(DType::I64)?.flatten_all()?.to_vec1::<i64>()?;
    Ok(ids.into_iter().map(|id| u32::try_from(id.max(0)).unwrap_or(u32::MAX)).collect())
}

/// Every random number of a training step.
#[derive(Debug, Clone)]
pub struct FlowDraws {
    /// The time of each item on its path, uniform in [0, 1).
    pub t: Vec<f32>,
    /// Standard normal noise, shaped like the mel `[batch, frame, bin]`.
    pub noise: Tensor,
    /// 0 for items whose conditions are dropped, 1 for the others.
    pub condition_keep: Vec<f32>,
    /// Leading frames of each item that are given as its prompt.
    pub prompt_lengths: Vec<usize>,
    /// Whether the batch uses chunk-causal masks.
    pub streaming: bool,
}

impl FlowDraws {
    /// Draws everything: what concerns an item is keyed by its `sample`, so it does not depend on the batch around it. `draw` is that of
    /// the (seed, epoch, step).
    ///
    /// # Errors
    /// When the noise cannot be made.
    pub fn from_draw(draw: &Draw, batch: &FlowBatch, config: &FlowConfig) -> Result<Self> {
        let matching = &config.matching;
        let (_, frames, bins) = batch.mel.dims3()?;
        let mut noise = vec![0f32; batch.len() * frames * bins];
        let mut draws = Self {
            t: Vec::with_capacity(batch.len()),
            noise: batch.mel.clone(),
            condition_keep: Vec::with_capacity(batch.len()),
            prompt_lengths: Vec::with_capacity(batch.len()),
            streaming: draw.purpose("flow streaming").uniform_at(0) < matching.streaming_rate,
        };
        for (item, (sample, length)) in batch.samples.iter().zip(&batch.mel_lengths).enumerate() {
            let of = |purpose| draw.purpose(purpose).sample(*sample);
            let numbers = of("flow noise").normals(length.min(&frames) * bins);
            noise[item * frames * bins..][..numbers.len()].copy_from_slice(&numbers);
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
