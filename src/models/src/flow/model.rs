//! The flow model: parameters, training loss.

use super::direct::DirectMel;
use super::encoder::Encoder;
use super::estimator::{Conditions, Estimator};
use super::rows::Rows;
use super::{ConditionsConfig, FlowBatch, FlowConfig, FlowDraws, FlowError, Result};
use candle_core::Tensor;
use flowmill_nn::init::{Builder, Init};
use flowmill_nn::layers::{Embedding, Linear};
use flowmill_nn::objectives::FlowMatching;
use flowmill_nn::random::Draw;
use flowmill_nn::{Context, Parameters, Sequences, Value, host};

/// Which frames of a batch the encoder computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Extent {
    /// Those of the items: what training and inference need.
    #[default]
    Valid,
    /// The padding too, as the public implementation does.
    Padded,
}

/// The loss of a batch.
#[derive(Debug, Clone)]
pub struct FlowLoss {
    /// Mean over valid frames and bins.
    pub total: Value,
    /// What it is made of, by name.
    pub parts: Vec<(&'static str, f64)>,
    /// Valid frames times bins: losses of batches are averaged by it.
    pub weight: f64,
}

impl FlowLoss {
    /// A loss over `elements` valid elements, and its parts, which are copied to the host together.
    pub(crate) fn new(total: Value, parts: &[(&'static str, Value)], elements: usize) -> Result<Self> {
        let values: Vec<&Value> = parts.iter().map(|(_, part)| part).collect();
        let numbers = host::scalars(&values)?.into_iter().map(f64::from);
        let parts = parts.iter().map(|(name, _)| *name).zip(numbers).collect();
        Ok(Self { total, parts, weight: elements as f64 })
    }
}

/// What the encoder makes of a batch's tokens.
pub(crate) struct Encoded {
    /// Its frames, `[row, channel]`.
    pub(crate) frames: Value,
    /// Its mel, the condition that the flow refines: `[row, bin]`.
    pub(crate) means: Value,
    /// The rows of each item.
    pub(crate) rows: Sequences,
}

/// A token-to-mel flow. Holds no weights: those are in the [`Parameters`] that were made with it.
#[derive(Debug, Clone)]
pub struct Flow {
    config: FlowConfig,
    embedding: Embedding,
    /// From the speaker to the bins, where the estimator takes it so.
    speaker: Option<Linear>,
    pub(super) encoder: Encoder,
    projection: Linear,
    /// From embeddings straight to the mel, where the settings ask for it.
    direct: Option<DirectMel>,
    pub(super) estimator: Estimator,
}

impl Flow {
    /// A model with freshly drawn weights, under the names of the public `state_dict`.
    ///
    /// # Errors
    /// [`FlowError::Config`] when the settings do not fit together.
    pub fn new(config: &FlowConfig, seed: u64) -> Result<(Self, Parameters)> {
        config.check()?;
        let mut parameters = Parameters::new();
        let mut builder = Builder::new(&mut parameters, Draw::new(seed).purpose("initial weights"));
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
        let encoder = Encoder::new(builder.scope("encoder"), config)?;
        let direct = DirectMel::new(builder.scope("direct_mel"), config)?;
        let (channels, bins) = (config.input_size, config.output_size);
        let projection = match &direct {
            None => Linear::new(builder.scope("encoder_proj"), channels, bins)?,
            // The linear path leads; what the encoder adds starts at nothing.
            Some(_) => {
                let zero = Init::Constant(0.0);
                Linear::with_init(builder.scope("encoder_proj"), channels, bins, zero, Some(zero))?
            }
        };
        let mut decoder = builder.scope("decoder");
        let estimator = Estimator::new(decoder.scope("estimator"), config)?;
        Ok((Self { config: config.clone(), embedding, speaker, encoder, projection, direct, estimator }, parameters))
    }

    /// The settings it was made from.
    pub fn config(&self) -> &FlowConfig {
        &self.config
    }

    /// The embeddings of tokens, `[token, channel]`.
    fn embed(&self, context: &Context, ids: &[u32]) -> Result<Value> {
        let embedded = self.embedding.forward(context, ids, &[ids.len()])?;
        Ok(embedded.reshape(&[ids.len() / self.config.ids_per_token(), self.config.input_size])?)
    }

    /// Encodes the ids of tokens (`[batch, token, id]`, row-major, `longest` tokens per item) to frames: `[frame row, channel]` and the rows of each item.
    ///
    /// # Errors
    /// When a token is not in the vocabulary or the lengths do not fit.
    pub fn encode(
        &self,
        context: &Context,
        tokens: &[u32],
        lengths: &[usize],
        streaming: bool,
        extent: Extent,
    ) -> Result<(Value, Sequences)> {
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
        let all = match extent {
            Extent::Valid => lengths.to_vec(),
            Extent::Padded => vec![longest; lengths.len()],
        };
        let lookahead = self.encoder.lookahead();
        let extended: Vec<usize> = all.iter().map(|length| longest.min(length + lookahead)).collect();
        let ids = leading(tokens, longest * per_token, extended.iter().map(|length| length * per_token));
        let valid = Sequences::packed(&extended).shortened(lengths)?;
        let embedded = self.embed(context, &ids)?.mask_rows(&valid)?;
        let (frames, rows) = self.encoder.forward(context, &embedded, &extended, &all, lengths, streaming)?;
        Ok((frames, rows.all))
    }

    /// Encodes the valid tokens of each item; tokens as in [`encode`](Self::encode), speaker embeddings `[item, value]`.
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

    fn encoded_over(
        &self,
        context: &Context,
        tokens: &[u32],
        lengths: &[usize],
        speakers: &Tensor,
        streaming: bool,
        extent: Extent,
    ) -> Result<Encoded> {
        let (frames, rows) = self.encode(context, tokens, lengths, streaming, extent)?;
        let means = self.projection.forward(context, &frames)?;
        let Some(direct) = &self.direct else { return Ok(Encoded { frames, means, rows }) };
        let (per_token, ratio) = (self.config.ids_per_token(), self.config.token_mel_ratio);
        let longest = tokens.len() / lengths.len().max(1);
        let ids = leading(tokens, longest, lengths.iter().map(|length| length * per_token));
        let (embedded, speakers) = (self.embed(context, &ids)?, self.unit_speakers(speakers)?);
        let mels = direct.forward(context, &embedded, &Sequences::packed(lengths), &speakers)?;
        let valid: Vec<usize> = lengths.iter().map(|length| length * ratio).collect();
        let means = means.add(&mels.unpack_rows(&rows.shortened(&valid)?)?)?;
        Ok(Encoded { frames, means, rows })
    }

    /// Speaker embeddings `[item, value]` as the estimator takes them: at unit length, and projected where the settings say so.
    pub(crate) fn speaker_condition(&self, context: &Context, embeddings: &Tensor) -> Result<Value> {
        let speakers = self.unit_speakers(embeddings)?;
        match &self.speaker {
            None => Ok(speakers),
            Some(projection) => Ok(projection.forward(context, &speakers)?),
        }
    }

    /// Speaker embeddings `[item, value]`, brought to unit length.
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

    /// The conditional flow matching loss of a batch: the mean over valid frames and bins of the squared error of the velocity.
    ///
    /// # Errors
    /// [`FlowError::Batch`] when the batch does not fit the model.
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

    /// The estimated velocity at the point of a batch that the loss is taken at, `[batch, frame, bin]`. Frames beyond the end of
    /// an item are as the public implementation has them: computed by the DiT (from what pads the mel and the noise), zero after
    /// the U-Net.
    ///
    /// # Errors
    /// [`FlowError::Batch`] when the batch does not fit the model.
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
            let message = format!("mels padded to {frames} frames do not go with the padding of the tokens");
            return Err(FlowError::Batch { item: 0, message });
        }
        let computed = FlowBatch { mel_lengths: lengths, ..batch.clone() };
        let (mel, noise) = (self.packed_mel(&computed)?, pack(&draws.noise, &computed)?);
        let matching = FlowMatching { sigma_min: self.config.matching.sigma_min };
        let point = matching.point(&mel, &noise, &draws.t, &all)?;
        let conditions = self.conditions(context, &mu, &mel, batch, draws, &all)?;
        let rows = Rows { valid: all.shortened(&batch.mel_lengths)?, all };
        let velocity = self.velocity_over(context, &point.position, &draws.t, &conditions, &rows, draws.streaming)?;
        let velocity = velocity.unpack_rows(&Sequences::padded(&computed.mel_lengths, frames)?)?;
        Ok(velocity.tensor().reshape((items, frames, bins))?)
    }

    /// What the estimator is told of a batch in training: the encoder's mel, speaker and prompt of the items that keep them.
    pub(crate) fn conditions(
        &self,
        context: &Context,
        mu: &Value,
        mel: &Tensor,
        batch: &FlowBatch,
        draws: &FlowDraws,
        rows: &Sequences,
    ) -> Result<Conditions> {
        let kept = &draws.condition_keep;
        let speaker = self.speaker_condition(context, &batch.speaker_embedding)?.on(mu.tensor().device())?;
        let prompt = match self.config.conditions {
            ConditionsConfig::Speaker => None,
            ConditionsConfig::ProjectedSpeakerAndPrompt => Some(prompts(mel, rows, &draws.prompt_lengths, kept)?),
        };
        let mu = mu.scale_items(&repeated(kept, self.config.output_size)?, rows)?;
        Ok(Conditions { mu, speaker: speaker.multiply(&repeated(kept, speaker.width())?)?, prompt })
    }

    /// The velocity at `position` `[frame row, bin]` and one time per item: the estimator's, on top of the exact one of a
    /// Gaussian around the encoder's mel where the settings ask for that.
    ///
    /// For x1 ~ N(mu, s^2), x0 ~ N(0, 1) and x = t x1 + (1 - t) x0 it is E[x1 - x0 | x] = mu + c (x - t mu) with
    /// c = (t s^2 - (1 - t)) / (t^2 s^2 + (1 - t)^2).
    pub(crate) fn velocity(
        &self,
        context: &Context,
        position: &Value,
        times: &[f32],
        conditions: &Conditions,
        rows: &Sequences,
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
        let slope = |t: f32| {
            let (variance, rest) = (deviation * deviation, 1.0 - t);
            (t * variance - rest) / (t * t * variance + rest * rest)
        };
        let on_mean: Vec<f32> = times.iter().map(|t| 1.0 - slope(*t) * t).collect();
        let on_position: Vec<f32> = times.iter().map(|t| slope(*t)).collect();
        let bins = self.config.output_size;
        let mean = conditions.mu.scale_items(&repeated(&on_mean, bins)?, &rows.all)?;
        let position = position.scale_items(&repeated(&on_position, bins)?, &rows.all)?;
        Ok(estimated.add(&mean)?.add(&position)?)
    }

    /// The valid mel frames of a batch, normalised, `[row, bin]`.
    pub(crate) fn packed_mel(&self, batch: &FlowBatch) -> Result<Tensor> {
        let mel = pack(&batch.mel, batch)?;
        let Some(normalisation) = &self.config.mel_normalisation else { return Ok(mel) };
        let mut elements = host::slice("mel", &mel)?.to_vec();
        normalisation.apply(&mut elements);
        Ok(host::tensor(elements, mel.dims())?)
    }
}

/// The first elements of each item, of which `stride` are given: as many as `counts` says.
fn leading(elements: &[u32], stride: usize, counts: impl Iterator<Item = usize>) -> Vec<u32> {
    counts.enumerate().flat_map(|(item, count)| &elements[item * stride..item * stride + count]).copied().collect()
}

/// A factor per item on each of `width` values, `[item, value]`.
fn repeated(factors: &[f32], width: usize) -> Result<Value> {
    let elements = factors.iter().flat_map(|factor| std::iter::repeat_n(*factor, width)).collect();
    Ok(Value::from_vec(elements, &[factors.len(), width])?)
}

/// The frames of the items `[frame, bin]` of a tensor with the rows of a batch.
pub(crate) fn pack(tensor: &Tensor, batch: &FlowBatch) -> Result<Tensor> {
    let rows = Sequences::packed(&batch.mel_rows);
    if tensor.dims() != [rows.total(), batch.mel.dims().last().copied().unwrap_or(0)] {
        let message = format!("{:?} where the batch has {} rows", tensor.dims(), rows.total());
        return Err(FlowError::Batch { item: 0, message });
    }
    if batch.mel_rows == batch.mel_lengths {
        return Ok(tensor.clone());
    }
    let frames = rows.shortened(&batch.mel_lengths)?;
    Ok(Value::plain(tensor.clone())?.pack_rows(&frames)?.tensor().clone())
}

/// The leading frames of each item, where its conditions are kept; zero elsewhere.
fn prompts(mel: &Tensor, rows: &Sequences, lengths: &[usize], keep: &[f32]) -> Result<Value> {
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
