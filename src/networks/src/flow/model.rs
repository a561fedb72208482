//! The flow model: parameters and training loss.

use super::direct::DirectMel;
use super::encoder::{Encoder, TokenLengths};
use super::estimator::{Conditions, Estimator};
use super::rows::Rows;
use super::{ConditionsConfig, FlowBatch, FlowConfig, FlowDraws, FlowError, Result};
use candle_core::Tensor;
use flowmill_nn::init::{Builder, Init};
use flowmill_nn::layers::{Embedding, Linear};
use flowmill_nn::objectives::FlowMatching;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Ragged, Value, host};

/// The frames of a batch that the encoder computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Extent {
    /// The frames of the items, which are needed for training and inference.
    #[default]
    Valid,
    /// The padding too, as in the public implementation.
    Padded,
    /// All but the frames of the last `pre_lookahead_len` tokens of each item, which are only looked ahead at: more
    /// tokens follow.
    Unfinished,
}

/// The loss of a batch.
#[derive(Debug, Clone)]
pub struct FlowLoss {
    /// The mean over valid frames and bins.
    pub total: Value,
    /// The parts, by name.
    pub parts: Vec<(&'static str, f64)>,
    /// The number of valid frames times bins, which is the weight in averages over batches.
    pub weight: f64,
}

impl FlowLoss {
    /// Creates a loss over `elements` valid elements. Its parts are copied to the host together.
    pub(crate) fn new(total: Value, parts: &[(&'static str, Value)], elements: usize) -> Result<Self> {
        let values: Vec<&Value> = parts.iter().map(|(_, part)| part).collect();
        let numbers = host::scalars(&values)?.into_iter().map(f64::from);
        let parts = parts.iter().map(|(name, _)| *name).zip(numbers).collect();
        Ok(Self { total, parts, weight: elements as f64 })
    }
}

/// The encoder's output for a batch.
pub(crate) struct Encoded {
    /// The frames, `[row, channel]`.
    pub(crate) frames: Value,
    /// The mel, the condition that the flow refines: `[row, bin]`.
    pub(crate) means: Value,
    /// The rows of each item.
    pub(crate) rows: Ragged,
}

/// A token-to-mel flow without its weights, which are in the [`Parameters`] that were created with it.
#[derive(Debug, Clone)]
pub struct Flow {
    config: FlowConfig,
    embedding: Embedding,
    /// The projection of the speaker to the bins, if the estimator needs it.
    speaker: Option<Linear>,
    encoder: Encoder,
    /// The projection of frames to mels, if the frames are not mels already.
    projection: Option<Linear>,
    /// The path from embeddings directly to the mel, if the settings have one.
    direct: Option<DirectMel>,
    pub(super) estimator: Estimator,
}

impl Flow {
    /// Creates a model with random weights, under the names of the public `state_dict`.
    ///
    /// # Errors
    /// [`FlowError::Config`] if the settings are inconsistent.
    pub fn new(config: &FlowConfig, seed: u64) -> Result<(Self, Parameters)> {
        config.check()?;
        let mut parameters = Parameters::new();
        let mut builder = Builder::new(&mut parameters, RngKey::new(seed).purpose("initial weights"));
        let embedding = match config.dual_codebook {
            None => Embedding::new(builder.scope("input_embedding"), config.vocab_size, config.input_size)?,
            // Both ids of a token share the table; each gets half of the channels.
            Some(_) => {
                let mut scope = builder.scope("input_embedding");
                Embedding::new(scope.scope("embedding"), config.vocab_size, config.input_size / 2)?
            }
        };
        let speaker = match config.conditions {
            ConditionsConfig::Speaker => None,
            ConditionsConfig::ProjectedSpeakerAndPrompt => {
                let scope = builder.scope("spk_embed_affine_layer");
                Some(Linear::new(scope, config.spk_embed_dim, config.output_size)?)
            }
        };
        let encoder = Encoder::new(builder.scope_here(), config)?;
        let direct = DirectMel::new(builder.scope("direct_mel"), config)?;
        let (channels, bins) = (config.input_size, config.output_size);
        let projection = match (&direct, config.pre_lookahead_channels) {
            (_, Some(_)) => None,
            (None, None) => Some(Linear::new(builder.scope("encoder_proj"), channels, bins)?),
            // The linear path leads; the encoder's contribution starts at zero.
            (Some(_), None) => {
                let zero = Init::Constant(0.0);
                Some(Linear::with_init(builder.scope("encoder_proj"), channels, bins, zero, Some(zero))?)
            }
        };
        let mut decoder = builder.scope("decoder");
        let estimator = Estimator::new(decoder.scope("estimator"), config)?;
        Ok((Self { config: config.clone(), embedding, speaker, encoder, projection, direct, estimator }, parameters))
    }

    /// Returns the settings of the model.
    pub fn config(&self) -> &FlowConfig {
        &self.config
    }

    /// Returns the embeddings of tokens, `[token, channel]`.
    fn embed(&self, context: &Context, ids: &[u32]) -> Result<Value> {
        let embedded = self.embedding.forward(context, ids, &[ids.len()])?;
        Ok(embedded.reshape(&[ids.len() / self.config.ids_per_token(), self.config.input_size])?)
    }

    /// Encodes the ids of tokens (`[batch, token, id]`, row-major, `longest` tokens per item) to frames. Returns
    /// `[frame row, channel]` and the rows of each item.
    ///
    /// # Errors
    /// Returns an error if a token is not in the vocabulary or the lengths are inconsistent.
    pub fn encode(
        &self,
        context: &Context,
        tokens: &[u32],
        lengths: &[usize],
        streaming: bool,
        extent: Extent,
    ) -> Result<(Value, Ragged)> {
        let per_token = self.config.ids_per_token();
        let longest = tokens.len() / per_token / lengths.len().max(1);
        if longest * lengths.len() * per_token != tokens.len() {
            let message = format!("{} ids for {} items", tokens.len(), lengths.len());
            return Err(FlowError::Batch { item: 0, message });
        }
        if let Some(item) = lengths.iter().position(|length| *length == 0 || *length > longest) {
            let message = format!("{} of {longest} tokens are valid", lengths[item]);
            return Err(FlowError::Batch { item, message });
        }
        let lookahead = self.config.pre_lookahead_len;
        let all: Vec<usize> = match extent {
            Extent::Valid => lengths.to_vec(),
            Extent::Padded => vec![longest; lengths.len()],
            Extent::Unfinished => {
                if let Some(item) = lengths.iter().position(|length| *length <= lookahead) {
                    let message = format!("{} tokens, of which the last {lookahead} get no frames", lengths[item]);
                    return Err(FlowError::Batch { item, message });
                }
                lengths.iter().map(|length| length - lookahead).collect()
            }
        };
        let extended: Vec<usize> = all.iter().map(|length| longest.min(length + lookahead)).collect();
        let ids = leading(tokens, longest * per_token, extended.iter().map(|length| length * per_token));
        let known = Ragged::packed(&extended).shortened(lengths)?;
        let embedded = self.embed(context, &ids)?.mask_rows(&known)?;
        let valid = lengths.iter().zip(&all).map(|(length, all)| *length.min(all)).collect();
        let lengths = TokenLengths { extended, all, valid };
        let (frames, rows) = self.encoder.forward(context, &embedded, &lengths, streaming)?;
        Ok((frames, rows.all))
    }

    /// Encodes the valid tokens of each item, given in the layout of [`encode`](Self::encode), with speaker
    /// embeddings `[item, value]`.
    pub(crate) fn encoded(
        &self,
        context: &Context,
        tokens: &[u32],
        lengths: &[usize],
        speakers: &Tensor,
        streaming: bool,
    ) -> Result<Encoded> {
        self.encoded_over(context, tokens, lengths, speakers, streaming, Extent::Valid)
    }

    /// Encodes the tokens of each item like [`encoded`](Self::encoded), to the frames that `extent` names.
    pub(super) fn encoded_over(
        &self,
        context: &Context,
        tokens: &[u32],
        lengths: &[usize],
        speakers: &Tensor,
        streaming: bool,
        extent: Extent,
    ) -> Result<Encoded> {
        let (frames, rows) = self.encode(context, tokens, lengths, streaming, extent)?;
        let means = match &self.projection {
            Some(projection) => projection.forward(context, &frames)?,
            None => frames.clone(),
        };
        let Some(direct) = &self.direct else { return Ok(Encoded { frames, means, rows }) };
        let (per_token, ratio) = (self.config.ids_per_token(), self.config.token_mel_ratio);
        let longest = tokens.len() / lengths.len().max(1);
        let ids = leading(tokens, longest, lengths.iter().map(|length| length * per_token));
        let (embedded, speakers) = (self.embed(context, &ids)?, self.unit_speakers(speakers)?);
        let mels = direct.forward(context, &embedded, &Ragged::packed(lengths), &speakers)?;
        let valid: Vec<usize> = lengths.iter().map(|length| length * ratio).collect();
        let kept: Vec<usize> = valid.iter().zip(rows.lengths()).map(|(valid, rows)| *valid.min(&rows)).collect();
        // The frames of tokens that are only looked ahead at are dropped.
        let mels = if kept == valid { mels } else { mels.pack_rows(&Ragged::packed(&valid).shortened(&kept)?)? };
        let means = means.add(&mels.unpack_rows(&rows.shortened(&kept)?)?)?;
        Ok(Encoded { frames, means, rows })
    }

    /// Returns speaker embeddings `[item, value]` for the estimator: at unit length, and projected if the settings
    /// require it.
    pub(crate) fn speaker_condition(&self, context: &Context, embeddings: &Tensor) -> Result<Value> {
        let speakers = self.unit_speakers(embeddings)?;
        match &self.speaker {
            None => Ok(speakers),
            Some(projection) => Ok(projection.forward(context, &speakers)?),
        }
    }

    /// Normalizes speaker embeddings `[item, value]` to unit length.
    fn unit_speakers(&self, embeddings: &Tensor) -> Result<Value> {
        let embeddings = host::contiguous(embeddings)?;
        let width = self.config.spk_embed_dim;
        let mut elements = host::slice("speaker embedding", &embeddings)?.to_vec();
        for row in elements.chunks_exact_mut(width) {
            let norm = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt().max(1e-12);
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
        }
        Ok(Value::from_vec(elements, &[embeddings.elem_count() / width, width])?)
    }

    /// Returns the conditional flow matching loss of a batch: the mean over valid frames and bins of the squared
    /// error of the velocity.
    ///
    /// # Errors
    /// [`FlowError::Batch`] if the batch does not match the model.
    pub fn loss(&self, context: &Context, batch: &FlowBatch, draws: &FlowDraws) -> Result<FlowLoss> {
        batch.check(&self.config)?;
        let (lengths, speakers) = (&batch.token_lengths, &batch.speaker_embedding);
        let Encoded { means: mu, rows, .. } =
            self.encoded(context, &batch.tokens, lengths, speakers, draws.streaming)?;
        let mel = self.packed_mel(batch)?;
        let noise = pack(&draws.noise, batch)?;
        let matching = FlowMatching { sigma_min: self.config.matching.sigma_min };
        let point = matching.point(&mel, &noise, &draws.t, &rows)?;
        let conditions = self.conditions(context, &mu, &mel, batch, draws, &rows)?;
        let velocity = self.velocity(context, &point.position, &draws.t, &conditions, &rows, draws.streaming)?;
        let matched = velocity.mean_square_error(&point.velocity, &rows)?;
        let weight = rows.valid() * self.config.output_size;
        if self.config.matching.prior_weight == 0.0 {
            return FlowLoss::new(matched.clone(), &[("cfm", matched)], weight);
        }
        let prior = mu.mean_square_error(&Value::plain(mel)?, &rows)?;
        let total = matched.add(&prior.affine(self.config.matching.prior_weight, 0.0)?)?;
        FlowLoss::new(total, &[("cfm", matched), ("prior", prior)], weight)
    }

    /// Returns the estimated velocity at the point of the loss, `[batch, frame, bin]`. Frames beyond the end of an
    /// item are those of the public implementation: computed by the DiT (from the padding of the mel and the noise),
    /// zero for the U-Net.
    ///
    /// # Errors
    /// [`FlowError::Batch`] if the batch does not match the model.
    pub fn predict(&self, context: &Context, batch: &FlowBatch, draws: &FlowDraws) -> Result<Tensor> {
        batch.check(&self.config)?;
        let (items, bins) = (batch.len(), self.config.output_size);
        let frames = batch.mel_rows.iter().copied().max().unwrap_or(0);
        let (extent, lengths) = match self.estimator.computes_padding() {
            true => (Extent::Padded, vec![frames; items]),
            false => (Extent::Valid, batch.mel_lengths.clone()),
        };
        let (valid, speakers) = (&batch.token_lengths, &batch.speaker_embedding);
        let encoded = self.encoded_over(context, &batch.tokens, valid, speakers, draws.streaming, extent)?;
        let Encoded { means: mu, rows: all, .. } = encoded;
        if all.lengths() != lengths {
            let message = format!("mels padded to {frames} frames do not match the padding of the tokens");
            return Err(FlowError::Batch { item: 0, message });
        }
        let computed = FlowBatch { mel_lengths: lengths, ..batch.clone() };
        let (mel, noise) = (self.packed_mel(&computed)?, pack(&draws.noise, &computed)?);
        let matching = FlowMatching { sigma_min: self.config.matching.sigma_min };
        let point = matching.point(&mel, &noise, &draws.t, &all)?;
        let conditions = self.conditions(context, &mu, &mel, batch, draws, &all)?;
        let rows = Rows { valid: all.shortened(&batch.mel_lengths)?, all };
        let velocity = self.velocity_over(context, &point.position, &draws.t, &conditions, &rows, draws.streaming)?;
        let velocity = velocity.unpack_rows(&Ragged::padded(&computed.mel_lengths, frames)?)?;
        Ok(velocity.tensor().reshape((items, frames, bins))?)
    }

    /// Returns the conditions of the estimator for a batch in training: the encoder's mel, speaker and prompt of the
    /// items that keep them.
    pub(crate) fn conditions(
        &self,
        context: &Context,
        mu: &Value,
        mel: &Tensor,
        batch: &FlowBatch,
        draws: &FlowDraws,
        rows: &Ragged,
    ) -> Result<Conditions> {
        let kept = &draws.condition_keep;
        let speaker = self.speaker_condition(context, &batch.speaker_embedding)?.on(mu.tensor().device())?;
        let prompt = match self.config.conditions {
            ConditionsConfig::Speaker => None,
            ConditionsConfig::ProjectedSpeakerAndPrompt => Some(prompts(mel, rows, &draws.prompt_lengths, kept)?),
        };
        let mu = mu.scale_items(&repeated(kept, self.config.output_size)?, rows)?;
        let speaker = speaker.multiply(&repeated(kept, speaker.width())?)?;
        Ok(Conditions { mu, speaker, prompt, kept: kept.clone() })
    }

    /// Returns the velocity at `position` `[frame row, bin]` and one time per item. If the settings require it, the
    /// estimator's output is added to the exact velocity of a Gaussian around the encoder's mel. An item without conditions has
    /// no such mel: its Gaussian is that of normalized mels, with mean 0 and deviation 1.
    ///
    /// For x1 ~ N(mu, s^2), x0 ~ N(0, 1) and x = t x1 + (1 - t) x0 it is E[x1 - x0 | x] = mu + c (x - t mu) with
    /// c = (t s^2 - (1 - t)) / (t^2 s^2 + (1 - t)^2).
    pub(crate) fn velocity(
        &self,
        context: &Context,
        position: &Value,
        times: &[f32],
        conditions: &Conditions,
        rows: &Ragged,
        streaming: bool,
    ) -> Result<Value> {
        let rows = Rows { all: rows.clone(), valid: rows.clone() };
        self.velocity_over(context, position, times, conditions, &rows, streaming)
    }

    fn velocity_over(
        &self,
        context: &Context,
        position: &Value,
        times: &[f32],
        conditions: &Conditions,
        rows: &Rows,
        streaming: bool,
    ) -> Result<Value> {
        let position = &position.on(conditions.mu.tensor().device())?;
        let estimated = self.estimator.forward(context, position, times, conditions, rows, streaming)?;
        let Some(deviation) = self.config.matching.gaussian_skip else { return Ok(estimated) };
        let slope = |(t, kept): (&f32, &f32)| {
            let deviation = if *kept > 0.0 { deviation } else { 1.0 };
            let (variance, rest) = (deviation * deviation, 1.0 - t);
            (t * variance - rest) / (t * t * variance + rest * rest)
        };
        let on_position: Vec<f32> = times.iter().zip(&conditions.kept).map(slope).collect();
        let on_mean: Vec<f32> = times.iter().zip(&on_position).map(|(t, slope)| 1.0 - slope * t).collect();
        let bins = self.config.output_size;
        let mean = conditions.mu.scale_items(&repeated(&on_mean, bins)?, &rows.all)?;
        let position = position.scale_items(&repeated(&on_position, bins)?, &rows.all)?;
        Ok(estimated.add(&mean)?.add(&position)?)
    }

    /// Returns the valid mel frames of a batch, normalized, `[row, bin]`.
    pub(crate) fn packed_mel(&self, batch: &FlowBatch) -> Result<Tensor> {
        let mel = pack(&batch.mel, batch)?;
        let Some(normalization) = &self.config.mel_normalisation else { return Ok(mel) };
        let mut elements = host::slice("mel", &mel)?.to_vec();
        normalization.apply(&mut elements);
        Ok(host::tensor(elements, mel.dims())?)
    }
}

/// Returns the first elements of each item: `counts` elements of `stride` each.
fn leading(elements: &[u32], stride: usize, counts: impl Iterator<Item = usize>) -> Vec<u32> {
    counts.enumerate().flat_map(|(item, count)| &elements[item * stride..item * stride + count]).copied().collect()
}

/// Repeats a factor per item for each of `width` values, `[item, value]`.
fn repeated(factors: &[f32], width: usize) -> Result<Value> {
    let elements = factors.iter().flat_map(|factor| std::iter::repeat_n(*factor, width)).collect();
    Ok(Value::from_vec(elements, &[factors.len(), width])?)
}

/// Returns the frames of the items `[frame, bin]` of a tensor with the rows of a batch.
pub(crate) fn pack(tensor: &Tensor, batch: &FlowBatch) -> Result<Tensor> {
    let rows = Ragged::packed(&batch.mel_rows);
    if tensor.dims() != [rows.total(), batch.mel.dims().last().copied().unwrap_or(0)] {
        let message = format!("{:?}, but the batch has {} rows", tensor.dims(), rows.total());
        return Err(FlowError::Batch { item: 0, message });
    }
    if batch.mel_rows == batch.mel_lengths {
        return Ok(tensor.clone());
    }
    let frames = rows.shortened(&batch.mel_lengths)?;
    Ok(Value::plain(tensor.clone())?.pack_rows(&frames)?.tensor().clone())
}

/// Returns the leading frames of each item whose conditions are kept; zero elsewhere.
fn prompts(mel: &Tensor, rows: &Ragged, lengths: &[usize], keep: &[f32]) -> Result<Value> {
    if lengths.len() != rows.len() || keep.len() != rows.len() {
        let message = format!("{} prompts for {} items", lengths.len(), rows.len());
        return Err(FlowError::Batch { item: 0, message });
    }
    let bins = mel.dims().last().copied().unwrap_or(0);
    let source = host::slice("prompt", mel)?;
    let mut elements = vec![0.0; source.len()];
    for ((rows, length), keep) in rows.ranges().iter().zip(lengths).zip(keep) {
        let prompt = rows.start * bins..(rows.start + length.min(&rows.len())) * bins;
        for (out, x) in elements[prompt.clone()].iter_mut().zip(&source[prompt]) {
            *out = x * keep;
        }
    }
    Ok(Value::from_vec(elements, mel.dims())?)
}
