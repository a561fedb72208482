//! Inference: from tokens and a speaker to mel spectrograms.

use super::estimator::Conditions;
use super::model::{Encoded, Extent, Flow};
use super::{ConditionsConfig, FlowError, Result};
use candle_core::Tensor;
use flowmill_nn::random::RngKey;
use flowmill_nn::solvers::{Method, Solution, Solver};
use flowmill_nn::{Context, Ragged, Value, host};
use std::ops::Range;

/// Audio of the target voice from which to continue.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// The ids of its speech tokens, in the form of those of the request.
    pub tokens: Vec<u32>,
    /// The log-mel frames `[frame, bin]`, `token_mel_ratio` per token.
    pub mel: Tensor,
}

/// A request to generate one mel.
#[derive(Debug, Clone)]
pub struct GenerationRequest {
    /// Ids of the speech tokens, without those of the prompt; see [`FlowConfig::token_ids`](super::FlowConfig::token_ids).
    pub tokens: Vec<u32>,
    /// Speaker embedding.
    pub speaker_embedding: Vec<f32>,
    /// A prompt, if any.
    pub prompt: Option<Prompt>,
}

/// Options of generation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GenerationOptions {
    /// The solver that follows the path. An evaluation of the velocity runs the estimator once (with and without
    /// conditions).
    pub solver: Solver,
    /// Strength alpha of a shallow flow, which determines where on the path it starts; by default the model's own.
    /// Other flows ignore it.
    pub strength: Option<f32>,
    /// Strength of the guidance, 0 for none: (1 + r) conditional - r unconditional.
    pub guidance: f32,
    /// Standard deviation of the starting noise.
    pub temperature: f32,
    /// True for chunk-causal masks.
    pub streaming: bool,
    /// True if more tokens follow those of a request: the last `pre_lookahead_len` get no frames yet, because the
    /// encoder only looks ahead at them. With `streaming`, the frames of whole chunks are those of the finished request.
    pub unfinished: bool,
    /// True to lead the frames of a prompt straight from their noise to the prompt, instead of along the model's own velocity. A model that was
    /// trained without prompts then sees the prompt too, as the state of these frames.
    pub hold_prompts: bool,
}

/// The result of generation.
#[derive(Debug, Clone, Default)]
pub struct Generated {
    /// The mel of each request, `[frame, bin]`, without its prompt.
    pub mels: Vec<Tensor>,
    /// The number of evaluations of the velocity for each request.
    pub evaluations: Vec<usize>,
}

/// Encoded requests.
pub(crate) struct Prepared {
    /// Encoder frames `[row, channel]`, prompts first.
    pub(crate) frames: Value,
    /// The rows of each request.
    pub(crate) rows: Ragged,
    /// The conditions of the velocity for the requests and, with guidance, again without conditions.
    conditions: Conditions,
    items: Ragged,
    /// Rows whose end is given, and the normalized frames there `[row, bin]`.
    held: Vec<(Range<usize>, Vec<f32>)>,
}

/// Runs `generate` on as many requests at a time as the solver allows: all with fixed steps, one by one with adaptive
/// steps, which would follow the hardest request of a batch. So the result of a request never depends on the others.
pub(crate) fn in_groups(
    requests: &[GenerationRequest],
    noise: &[Tensor],
    options: &GenerationOptions,
    generate: impl Fn(&[GenerationRequest], &[Tensor]) -> Result<Generated>,
) -> Result<Generated> {
    let size = match options.solver.method {
        Method::Euler => requests.len().max(1),
        Method::Dopri5 => 1,
    };
    let mut all = Generated::default();
    for (requests, noise) in requests.chunks(size).zip(noise.chunks(size)) {
        let Generated { mels, evaluations } = generate(requests, noise)?;
        all.mels.extend(mels);
        all.evaluations.extend(evaluations);
    }
    Ok(all)
}

impl Flow {
    /// Returns the number of frames of the request's mel including its prompt.
    pub(crate) fn frames(&self, request: &GenerationRequest, options: &GenerationOptions) -> usize {
        let prompt = request.prompt.as_ref().map_or(0, |prompt| prompt.tokens.len());
        let frames = self.frames_of(request.tokens.len() + prompt);
        let ahead = self.config().pre_lookahead_len * self.config().token_mel_ratio;
        if options.unfinished { frames.saturating_sub(ahead) } else { frames }
    }

    /// Returns the number of frames of `ids` ids.
    fn frames_of(&self, ids: usize) -> usize {
        ids / self.config().ids_per_token() * self.config().token_mel_ratio
    }

    /// Returns standard normal noise `[frame, bin]` for each request.
    pub(crate) fn draw_noise(
        &self,
        requests: &[GenerationRequest],
        options: &GenerationOptions,
        rng_key: &RngKey,
        samples: &[u64],
    ) -> Result<Vec<Tensor>> {
        if samples.len() != requests.len() {
            let message = format!("{} sample ids for {} requests", samples.len(), requests.len());
            return Err(FlowError::Batch { item: 0, message });
        }
        let noise = |(request, sample): (&GenerationRequest, &u64)| {
            self.noise_of(rng_key, *sample, 0..self.frames(request, options))
        };
        requests.iter().zip(samples).map(noise).collect()
    }

    /// Returns the noise `[frame, bin]` of some frames of a sample, which does not depend on the other frames.
    pub(crate) fn noise_of(&self, rng_key: &RngKey, sample: u64, frames: Range<usize>) -> Result<Tensor> {
        let bins = self.config().output_size;
        let rng_key = rng_key.purpose("generation noise").sample(sample);
        let noise = rng_key.normals_at(frames.start * bins..frames.end * bins);
        Ok(host::tensor(noise, &[frames.len(), bins])?)
    }

    /// Generates a batch of mel spectrograms from given standard normal noise `[frame, bin]`, prompt frames first.
    ///
    /// # Errors
    /// [`FlowError::Batch`] names the request that does not match the model.
    pub fn generate_from(
        &self,
        context: &Context,
        requests: &[GenerationRequest],
        options: &GenerationOptions,
        noise: &[Tensor],
    ) -> Result<Generated> {
        self.check_requests(requests, options, noise)?;
        in_groups(requests, noise, options, |requests, noise| {
            let prepared = self.prepare(context, requests, options)?;
            let mut start = Vec::with_capacity(prepared.rows.total() * self.config().output_size);
            for noise in noise {
                let noise = host::contiguous(noise)?;
                start.extend(host::slice("noise", &noise)?.iter().map(|x| x * options.temperature));
            }
            let starts = vec![0.0; requests.len()];
            let solution = self.follow(context, &prepared, options, start, &starts)?;
            self.cut(solution, requests, &prepared.rows)
        })
    }

    /// Encodes requests.
    pub(crate) fn prepare(
        &self,
        context: &Context,
        requests: &[GenerationRequest],
        options: &GenerationOptions,
    ) -> Result<Prepared> {
        let Encoded { frames, means: mu, rows } = self.encode_requests(context, requests, options)?;
        let speakers: Vec<f32> = requests.iter().flat_map(|request| request.speaker_embedding.clone()).collect();
        let speakers = host::tensor(speakers, &[requests.len(), self.config().spk_embed_dim])?;
        let speaker = self.speaker_condition(context, &speakers)?;
        let frames_of_prompts = self.prompt_frames(requests, &rows)?;
        let held = match options.hold_prompts {
            true => self.held(requests, &rows, &frames_of_prompts)?,
            false => Vec::new(),
        };
        let prompt = match self.config().conditions {
            ConditionsConfig::Speaker => None,
            ConditionsConfig::ProjectedSpeakerAndPrompt => Some(frames_of_prompts),
        };
        // Every evaluation of the velocity reads them.
        let device = mu.tensor().device();
        let (speaker, prompt) = (speaker.on(device)?, prompt.map(|prompt| prompt.on(device)).transpose()?);
        let conditions = Conditions { mu, speaker, prompt, kept: vec![1.0; requests.len()] };
        let (conditions, items) = match options.guidance {
            0.0 => (conditions, rows.clone()),
            _ => (with_unconditional(&conditions)?, twice(&rows)),
        };
        Ok(Prepared { frames, rows, conditions, items, held })
    }

    /// Returns the rows of the prompts with their normalized frames.
    fn held(
        &self,
        requests: &[GenerationRequest],
        rows: &Ragged,
        frames: &Value,
    ) -> Result<Vec<(Range<usize>, Vec<f32>)>> {
        let (frames, bins) = (host::read(frames.tensor())?, self.config().output_size);
        let prompts = requests.iter().zip(rows.ranges()).filter_map(|(request, rows)| {
            let rows = rows.start..rows.start + self.frames_of(request.prompt.as_ref()?.tokens.len());
            let held = frames[rows.start * bins..rows.end * bins].to_vec();
            Some((rows, held))
        });
        Ok(prompts.collect())
    }

    /// Follows the velocity from `state` `[row, bin]`, where item `i` is at time `starts[i]`, until all items are at
    /// time 1.
    pub(crate) fn follow(
        &self,
        context: &Context,
        prepared: &Prepared,
        options: &GenerationOptions,
        state: Vec<f32>,
        starts: &[f64],
    ) -> Result<Solution> {
        let bins = self.config().output_size;
        let Prepared { rows, conditions, items, held, .. } = prepared;
        let guided = items.len() > rows.len();
        // A constant velocity leads held rows from their start to their end.
        let constant: Vec<(usize, Vec<f32>)> = held
            .iter()
            .map(|(rows, ends)| {
                let first = rows.start * bins;
                (first, ends.iter().zip(&state[first..]).map(|(end, start)| end - start).collect())
            })
            .collect();
        options.solver.solve::<FlowError>(self.config().matching.t_scheduler, state, |state, progress| {
            let state = if guided { [state, state].concat() } else { state.to_vec() };
            let state = Value::from_vec(state, &[items.total(), bins])?;
            let time = |start: &f64| (start + (1.0 - start) * f64::from(progress)) as f32;
            let times: Vec<f32> = starts.iter().map(time).cycle().take(items.len()).collect();
            let velocity = self.velocity(context, &state, &times, conditions, items, options.streaming)?;
            let mut velocity = host::read(velocity.tensor())?;
            if guided {
                let without = velocity.split_off(velocity.len() / 2);
                let rate = options.guidance;
                velocity.iter_mut().zip(without).for_each(|(with, without)| {
                    *with = (1.0 + rate) * *with - rate * without;
                });
            }
            // Progress goes from 0 to 1 over the rest of each item's path.
            for (rows, start) in rows.ranges().iter().zip(starts) {
                let rest = (1.0 - start) as f32;
                velocity[rows.start * bins..rows.end * bins].iter_mut().for_each(|x| *x *= rest);
            }
            for (first, constant) in &constant {
                velocity[*first..first + constant.len()].copy_from_slice(constant);
            }
            Ok(velocity)
        })
    }

    pub(crate) fn check_requests(
        &self,
        requests: &[GenerationRequest],
        options: &GenerationOptions,
        noise: &[Tensor],
    ) -> Result<()> {
        let config = self.config();
        if noise.len() != requests.len() {
            let message = format!("{} noises for {} requests", noise.len(), requests.len());
            return Err(FlowError::Batch { item: 0, message });
        }
        for (item, (request, noise)) in requests.iter().zip(noise).enumerate() {
            let refuse = |message| Err(FlowError::Batch { item, message });
            if request.tokens.is_empty() {
                return refuse("no tokens".to_owned());
            }
            let prompt = request.prompt.as_ref().map_or(0, |prompt| prompt.tokens.len());
            let ids = config.ids_per_token();
            if let Some(count) = [request.tokens.len(), prompt].into_iter().find(|count| !count.is_multiple_of(ids)) {
                return refuse(format!("{count} ids, but every token has {ids}"));
            }
            if request.speaker_embedding.len() != config.spk_embed_dim {
                let (found, wanted) = (request.speaker_embedding.len(), config.spk_embed_dim);
                return refuse(format!("{found} speaker values instead of {wanted}"));
            }
            if let Some(Prompt { tokens, mel }) = &request.prompt
                && mel.dims() != [self.frames_of(tokens.len()), config.output_size]
            {
                return refuse(format!("a prompt of {} ids with a mel of {:?}", tokens.len(), mel.dims()));
            }
            let frames = self.frames(request, options);
            if frames <= self.frames_of(prompt) {
                let ahead = config.pre_lookahead_len;
                return refuse(format!("{} ids, of which the last {ahead} get no frames yet", request.tokens.len()));
            }
            if noise.dims() != [frames, config.output_size] {
                return refuse(format!("noise of {:?} for {frames} frames", noise.dims()));
            }
        }
        Ok(())
    }

    /// Returns the frames of each request, prompt first.
    fn encode_requests(
        &self,
        context: &Context,
        requests: &[GenerationRequest],
        options: &GenerationOptions,
    ) -> Result<Encoded> {
        let extent = if options.unfinished { Extent::Unfinished } else { Extent::Valid };
        let ids = self.config().ids_per_token();
        let (mut frames, mut means, mut lengths) = (Vec::new(), Vec::new(), Vec::with_capacity(requests.len()));
        // One by one: the result of a request must not depend on the padding of its batch.
        for request in requests {
            let prompt = request.prompt.iter().flat_map(|prompt| &prompt.tokens);
            let tokens: Vec<u32> = prompt.chain(&request.tokens).copied().collect();
            let speaker = host::tensor(request.speaker_embedding.clone(), &[1, self.config().spk_embed_dim])?;
            let count = [tokens.len() / ids];
            let encoded = self.encoded_over(context, &tokens, &count, &speaker, options.streaming, extent)?;
            frames.push(encoded.frames.tensor().clone());
            means.push(encoded.means.tensor().clone());
            lengths.push(self.frames(request, options));
        }
        let rows = Ragged::packed(&lengths);
        let joined = |parts: &[Tensor]| Value::plain(Tensor::cat(parts, 0)?);
        let (frames, means) = (joined(&frames)?, joined(&means)?);
        Ok(Encoded { frames, means, rows })
    }

    /// Returns the normalized prompt frames at the start of each item, and zero elsewhere.
    fn prompt_frames(&self, requests: &[GenerationRequest], rows: &Ragged) -> Result<Value> {
        let bins = self.config().output_size;
        let mut frames = vec![0.0; rows.total() * bins];
        for (request, rows) in requests.iter().zip(rows.ranges()) {
            let Some(prompt) = &request.prompt else { continue };
            let mel = host::contiguous(&prompt.mel)?;
            let source = host::slice("prompt", &mel)?;
            let target = &mut frames[rows.start * bins..rows.start * bins + source.len()];
            target.copy_from_slice(&source);
            if let Some(normalization) = &self.config().mel_normalisation {
                normalization.apply(target);
            }
        }
        Ok(Value::from_vec(frames, &[rows.total(), bins])?)
    }

    /// Splits the result into items without their prompts, in the scale of real mels.
    pub(crate) fn cut(&self, solution: Solution, requests: &[GenerationRequest], rows: &Ragged) -> Result<Generated> {
        let Solution { state: mut mel, evaluations } = solution;
        let bins = self.config().output_size;
        if let Some(normalization) = &self.config().mel_normalisation {
            normalization.invert(&mut mel);
        }
        let items = requests.iter().zip(rows.ranges()).map(|(request, rows)| {
            let prompt = request.prompt.as_ref().map_or(0, |prompt| self.frames_of(prompt.tokens.len()));
            let frames = rows.len() - prompt;
            let elements = mel[(rows.start + prompt) * bins..rows.end * bins].to_vec();
            Ok(host::tensor(elements, &[frames, bins])?)
        });
        let mels = items.collect::<Result<_>>()?;
        Ok(Generated { mels, evaluations: vec![evaluations; requests.len()] })
    }
}

/// Returns the items twice: once with their conditions, once without.
fn twice(rows: &Ragged) -> Ragged {
    Ragged::packed(&rows.lengths().repeat(2))
}

fn with_unconditional(conditions: &Conditions) -> Result<Conditions> {
    let padded = |value: &Value| -> Result<Value> {
        let rows = value.rows();
        Ok(value.unpack_rows(&Ragged::padded(&[rows], 2 * rows)?)?)
    };
    Ok(Conditions {
        mu: padded(&conditions.mu)?,
        speaker: padded(&conditions.speaker)?,
        prompt: conditions.prompt.as_ref().map(padded).transpose()?,
        kept: [conditions.kept.clone(), vec![0.0; conditions.kept.len()]].concat(),
    })
}
