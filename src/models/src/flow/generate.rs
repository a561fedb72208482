//! Inference: from tokens and a speaker to mel spectrograms.

use super::estimator::Conditions;
use super::model::Flow;
use super::{FlowError, Result};
use candle_core::Tensor;
use flowmill_nn::random::Draw;
use flowmill_nn::{Context, Sequences, Value, host, solvers};

/// Audio of the wanted voice to continue from.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Its speech tokens.
    pub tokens: Vec<u32>,
    /// Its log-mel frames `[frame, bin]`, `token_mel_ratio` per token.
    pub mel: Tensor,
}

/// What to generate.
#[derive(Debug, Clone)]
pub struct GenerationRequest {
    /// Speech tokens, without those of the prompt.
    pub tokens: Vec<u32>,
    /// Speaker embedding.
    pub speaker_embedding: Vec<f32>,
    /// A prompt, if any.
    pub prompt: Option<Prompt>,
}

/// How to generate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GenerationOptions {
    /// Euler steps; each evaluates the estimator once (on conditions and without).
    pub steps: usize,
    /// Strength of the guidance, 0 for none: (1 + r) conditional - r unconditional.
    pub guidance: f32,
    /// Standard deviation of the starting noise.
    pub temperature: f32,
    /// Chunk-causal masks.
    pub streaming: bool,
}

impl Flow {
    /// The published settings of inference: 10 steps, the configured guidance, full attention.
    pub fn default_options(&self) -> GenerationOptions {
        let guidance = self.config().matching.inference_cfg_rate;
        GenerationOptions { steps: 10, guidance, temperature: 1.0, streaming: false }
    }

    /// Frames of the request's mel with its prompt.
    fn frames(&self, request: &GenerationRequest) -> usize {
        let prompt = request.prompt.as_ref().map_or(0, |prompt| prompt.tokens.len());
        (request.tokens.len() + prompt) * self.config().token_mel_ratio
    }

    /// Generates a batch of mel spectrograms, each `[frame, bin]` without its prompt. The noise of request `i` comes from
    /// `draw.sample(samples[i])`, so it depends on nothing else in the batch.
    ///
    /// # Errors
    /// [`FlowError::Batch`] names the request that does not fit the model.
    pub fn generate(
        &self,
        context: &Context,
        requests: &[GenerationRequest],
        options: &GenerationOptions,
        draw: &Draw,
        samples: &[u64],
    ) -> Result<Vec<Tensor>> {
        if samples.len() != requests.len() {
            let message = format!("{} sample ids for {} requests", samples.len(), requests.len());
            return Err(FlowError::Batch { item: 0, message });
        }
        let bins = self.config().output_size;
        let noise = requests.iter().zip(samples).map(|(request, sample)| {
            let frames = self.frames(request);
            let noise = draw.purpose("generation noise").sample(*sample).normals(frames * bins);
            Ok(host::tensor(noise, &[frames, bins])?)
        });
        self.generate_from(context, requests, options, &noise.collect::<Result<Vec<_>>>()?)
    }

    /// As [`generate`](Self::generate) from given standard normal noise `[frame, bin]`, prompt frames first.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn generate_from(
        &self,
        context: &Context,
        requests: &[GenerationRequest],
        options: &GenerationOptions,
        noise: &[Tensor],
    ) -> Result<Vec<Tensor>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        self.check_requests(requests, noise)?;
        let (mu, rows) = self.encode_requests(context, requests, options.streaming)?;
        let speakers: Vec<f32> = requests.iter().flat_map(|request| request.speaker_embedding.clone()).collect();
        let speakers = host::tensor(speakers, &[requests.len(), self.config().spk_embed_dim])?;
        let speaker = self.project_speakers(context, &speakers)?;
        let prompt = self.prompt_frames(requests, &rows)?;
        let guided = options.guidance != 0.0;
        let conditions = Conditions { mu, speaker, prompt };
        let conditions = if guided { with_unconditional(&conditions)? } else { conditions };
        let items = if guided { twice(&rows) } else { rows.clone() };

        let mut start = Vec::with_capacity(rows.total() * self.config().output_size);
        for noise in noise {
            let noise = host::contiguous(noise)?;
            start.extend(host::slice("noise", &noise)?.iter().map(|x| x * options.temperature));
        }
        let times = self.config().matching.t_scheduler.times(options.steps);
        let end = solvers::euler::<FlowError>(start, &times, |state, time| {
            let state = if guided { [state, state].concat() } else { state.to_vec() };
            let state = Value::from_vec(state, &[items.total(), self.config().output_size])?;
            let times = vec![time; items.len()];
            let velocity = self.velocity(context, &state, &times, &conditions, &items, options.streaming)?;
            let velocity = host::slice("velocity", velocity.tensor())?;
            if !guided {
                return Ok(velocity.to_vec());
            }
            let (with, without) = velocity.split_at(velocity.len() / 2);
            let rate = options.guidance;
            Ok(with.iter().zip(without).map(|(with, without)| (1.0 + rate) * with - rate * without).collect())
        })?;
        self.cut(end, requests, &rows)
    }

    fn check_requests(&self, requests: &[GenerationRequest], noise: &[Tensor]) -> Result<()> {
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
            if request.speaker_embedding.len() != config.spk_embed_dim {
                let (found, wanted) = (request.speaker_embedding.len(), config.spk_embed_dim);
                return refuse(format!("{found} speaker values instead of {wanted}"));
            }
            if let Some(Prompt { tokens, mel }) = &request.prompt
                && mel.dims() != [tokens.len() * config.token_mel_ratio, config.output_size]
            {
                return refuse(format!("a prompt of {} tokens with a mel of {:?}", tokens.len(), mel.dims()));
            }
            if noise.dims() != [self.frames(request), config.output_size] {
                return refuse(format!("noise of {:?} for {} frames", noise.dims(), self.frames(request)));
            }
        }
        Ok(())
    }

    /// Mean frames `[row, bin]` of each request, prompt first, and the rows of each.
    fn encode_requests(
        &self,
        context: &Context,
        requests: &[GenerationRequest],
        streaming: bool,
    ) -> Result<(Value, Sequences)> {
        let ratio = self.config().token_mel_ratio;
        let mut frames = Vec::with_capacity(requests.len());
        let mut lengths = Vec::with_capacity(requests.len());
        // One by one: what a request gives must not depend on the padding of its batch.
        for request in requests {
            let prompt = request.prompt.iter().flat_map(|prompt| &prompt.tokens);
            let tokens: Vec<u32> = prompt.chain(&request.tokens).copied().collect();
            let (means, _) = self.means(context, &tokens, &[tokens.len()], streaming)?;
            frames.extend_from_slice(&host::slice("encoder", means.tensor())?);
            lengths.push(tokens.len() * ratio);
        }
        let rows = Sequences::packed(&lengths);
        Ok((Value::from_vec(frames, &[rows.total(), self.config().output_size])?, rows))
    }

    /// Prompt frames, normalised, at the start of each item; zero elsewhere.
    fn prompt_frames(&self, requests: &[GenerationRequest], rows: &Sequences) -> Result<Value> {
        let bins = self.config().output_size;
        let mut frames = vec![0.0; rows.total() * bins];
        for (request, rows) in requests.iter().zip(rows.ranges()) {
            let Some(prompt) = &request.prompt else { continue };
            let mel = host::contiguous(&prompt.mel)?;
            let source = host::slice("prompt", &mel)?;
            let target = &mut frames[rows.start * bins..rows.start * bins + source.len()];
            target.copy_from_slice(&source);
            if let Some(normalisation) = &self.config().mel_normalisation {
                normalisation.apply(target);
            }
        }
        Ok(Value::from_vec(frames, &[rows.total(), bins])?)
    }

    /// Splits the result into items without their prompts, in the scale of real mels.
    fn cut(&self, mut mel: Vec<f32>, requests: &[GenerationRequest], rows: &Sequences) -> Result<Vec<Tensor>> {
        let (bins, ratio) = (self.config().output_size, self.config().token_mel_ratio);
        if let Some(normalisation) = &self.config().mel_normalisation {
            normalisation.invert(&mut mel);
        }
        let items = requests.iter().zip(rows.ranges()).map(|(request, rows)| {
            let prompt = request.prompt.as_ref().map_or(0, |prompt| prompt.tokens.len() * ratio);
            let frames = rows.len() - prompt;
            let elements = mel[(rows.start + prompt) * bins..rows.end * bins].to_vec();
            Ok(host::tensor(elements, &[frames, bins])?)
        });
        items.collect()
    }
}

/// The items twice over: once with their conditions, once without.
fn twice(rows: &Sequences) -> Sequences {
    Sequences::packed(&rows.lengths().repeat(2))
}

fn with_unconditional(conditions: &Conditions) -> Result<Conditions> {
    let padded = |value: &Value| -> Result<Value> {
        let mut elements = host::slice("conditions", value.tensor())?.to_vec();
        let count = elements.len();
        elements.resize(2 * count, 0.0);
        Ok(Value::from_vec(elements, &[2 * value.rows(), value.width()])?)
    };
    Ok(Conditions {
        mu: padded(&conditions.mu)?,
        speaker: padded(&conditions.speaker)?,
        prompt: padded(&conditions.prompt)?,
    })
}
