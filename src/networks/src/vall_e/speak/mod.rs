//! Generation without a tape: speech, lengths and transcripts.

mod autoregressive;
mod guidance;
mod levels;
mod masked;
mod options;
mod sampling;

pub use options::{
    FirstLevel, Guidance, LeftOut, MaskedOptions, Progress, SamplingOptions, SpeakOptions, SpeakRequest, Stage,
    TranscribeRequest,
};

use super::sequence::{Classifier, Conditions, NO_PHONEMES, Sequence, check_codes, check_conditions, check_prompt};
use super::{Codes, Result, Task, VallE, VallEConfig, VallEError};
use crate::llama::{LlamaDecoder, packed};
use autoregressive::{Job, Stream};
use candle_core::Device;
use flowmill_nn::inference::{KeyValueCache, Linear};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Activation, Context, Parameters, Ragged, Value, host};
use std::ops::{ControlFlow, Range};

/// Receives the progress of a generation, and stops it by returning [`ControlFlow::Break`].
pub type OnProgress<'a> = dyn FnMut(&Progress) -> ControlFlow<()> + 'a;

/// A model that generates: its weights are packed once for the host's kernels. Weights on a device are copied to the host.
pub struct Speaker {
    model: VallE,
    /// The embeddings; the other weights are packed.
    parameters: Parameters,
    transformer: LlamaDecoder,
    classifiers: Vec<Linear>,
}

impl Speaker {
    /// Packs the weights of a model; adapters are added to them.
    ///
    /// # Errors
    /// Returns an error if a weight cannot be copied.
    pub fn new(model: &VallE, parameters: &Parameters) -> Result<Self> {
        let mut parameters = parameters.clone();
        parameters.to_device(&Device::Cpu)?;
        let transformer = LlamaDecoder::new(&model.transformer, &parameters)?;
        let classifiers = model.classifiers.iter().map(|layer| packed(&parameters, layer));
        let classifiers = classifiers.collect::<flowmill_nn::Result<_>>()?;
        parameters.keep_values(&model.tables)?;
        Ok(Self { model: model.clone(), parameters, transformer, classifiers })
    }

    /// Returns the settings of the model.
    pub fn config(&self) -> &VallEConfig {
        self.model.config()
    }

    /// Generates the codes of each request, all levels. Random numbers are keyed by each request's `sample`, so a result does not depend
    /// on the other requests. If a request predicts its end at once, its codes have no frames.
    ///
    /// # Errors
    /// [`VallEError::Sample`] names the request that does not match the model; [`VallEError::Stopped`] if `on_progress` stops.
    pub fn speak(
        &self,
        requests: &[SpeakRequest],
        options: &SpeakOptions,
        rng_key: &RngKey,
        on_progress: &mut OnProgress,
    ) -> Result<Vec<Codes>> {
        options.check(self.config())?;
        self.check_requests(requests, options.levels(self.config()))?;
        let first = match &options.first_level {
            FirstLevel::Autoregressive { sampling, guidance } => {
                let mut streams: Vec<Stream> =
                    requests.iter().map(|request| self.speech_stream(request, *guidance)).collect();
                let job = Job {
                    push: Sequence::push_code,
                    stop: self.config().stop_token(),
                    limit: options.max_frames,
                    sampling: *sampling,
                    guidance: *guidance,
                    stage: Stage::FirstLevel,
                };
                self.autoregress(&mut streams, &job, rng_key, on_progress)?;
                streams.into_iter().map(|stream| stream.tokens).collect()
            }
            FirstLevel::Masked(masked) => {
                let frames = self.frames(requests, options)?;
                self.unmask(requests, &frames, masked, rng_key, on_progress)?
            }
        };
        let codes = first.into_iter().map(|level| Codes::from_levels(&[level])).collect::<Result<Vec<_>>>()?;
        self.predict_levels(requests, codes, options, rng_key, on_progress)
    }

    /// Generates the levels above those that are given, up to the number in the options.
    ///
    /// # Errors
    /// Those of [`speak`](Self::speak); also if the numbers of requests and codes differ, or codes are not in the vocabulary.
    pub fn add_levels(
        &self,
        requests: &[SpeakRequest],
        codes: Vec<Codes>,
        options: &SpeakOptions,
        rng_key: &RngKey,
        on_progress: &mut OnProgress,
    ) -> Result<Vec<Codes>> {
        options.check(self.config())?;
        self.check_requests(requests, options.levels(self.config()))?;
        if requests.len() != codes.len() {
            let message = format!("{} codes for {} requests", codes.len(), requests.len());
            return Err(VallEError::Sample { item: 0, message });
        }
        for (item, codes) in codes.iter().enumerate() {
            let refuse = |message: String| VallEError::Sample { item, message };
            if codes.levels() == 0 {
                return Err(refuse("codes without a level".to_owned()));
            }
            check_codes("response", codes, self.config()).map_err(refuse)?;
        }
        self.predict_levels(requests, codes, options, rng_key, on_progress)
    }

    /// Predicts the number of frames of each request (task `len`): the most probable digits.
    ///
    /// # Errors
    /// [`VallEError::Sample`] names the request that does not match the model.
    pub fn predict_lengths(&self, requests: &[SpeakRequest]) -> Result<Vec<u64>> {
        self.check_requests(requests, 1)?;
        let levels = self.config().levels;
        let stream = |request: &SpeakRequest| {
            let mut sequence = Sequence::before_length(&request.conditions(), levels);
            sequence.push_digit(0);
            Stream::new(sequence, None, request.sample)
        };
        let mut streams: Vec<Stream> = requests.iter().map(stream).collect();
        let job = Job {
            push: Sequence::push_digit,
            stop: super::sequence::LENGTH_END,
            limit: super::sequence::LONGEST_LENGTH,
            sampling: SamplingOptions::greedy(),
            guidance: None,
            stage: Stage::Length,
        };
        self.autoregress(&mut streams, &job, &RngKey::new(0), &mut |_| ControlFlow::Continue(()))?;
        let number = |stream: &Stream| stream.tokens.iter().fold(0, |number, digit| 10 * number + u64::from(*digit));
        Ok(streams.iter().map(number).collect())
    }

    /// Transcribes speech to phonemes (task `stt`), without those that mark begin and end.
    ///
    /// # Errors
    /// [`VallEError::Sample`] names the request that does not match the model.
    pub fn transcribe(
        &self,
        requests: &[TranscribeRequest],
        sampling: &SamplingOptions,
        max_phonemes: usize,
        rng_key: &RngKey,
    ) -> Result<Vec<Vec<u32>>> {
        sampling.check()?;
        let [begin, end] = NO_PHONEMES;
        let mut streams = Vec::with_capacity(requests.len());
        for (item, request) in requests.iter().enumerate() {
            let refuse = |message: String| VallEError::Sample { item, message };
            if request.speech.frames() == 0 || request.speech.levels() == 0 {
                return Err(refuse("no speech to transcribe".to_owned()));
            }
            check_conditions(&[begin], request.language, None, self.config()).map_err(refuse)?;
            check_codes("speech", &request.speech, self.config()).map_err(refuse)?;
            let mut sequence = Sequence::before_transcript(&request.speech, request.language, self.config().levels);
            sequence.push_phoneme(begin);
            streams.push(Stream::new(sequence, None, request.sample));
        }
        let job = Job {
            push: Sequence::push_phoneme,
            stop: end,
            limit: max_phonemes,
            sampling: *sampling,
            guidance: None,
            stage: Stage::Transcript,
        };
        self.autoregress(&mut streams, &job, rng_key, &mut |_| ControlFlow::Continue(()))?;
        Ok(streams.into_iter().map(|stream| stream.tokens).collect())
    }

    fn speech_stream(&self, request: &SpeakRequest, guidance: Option<Guidance>) -> Stream {
        let levels = self.config().levels;
        let sequence = |conditions: &Conditions| Sequence::before_response(conditions, Classifier::Level(0), levels);
        let unconditional = guidance.map(|guidance| sequence(&request.without(guidance.without)));
        Stream::new(sequence(&request.conditions()), unconditional, request.sample)
    }

    /// Returns the number of frames of each request: the given one, or the predicted one within the options' limit.
    fn frames(&self, requests: &[SpeakRequest], options: &SpeakOptions) -> Result<Vec<usize>> {
        let predicted = match requests.iter().all(|request| request.frames.is_some()) {
            true => vec![0; requests.len()],
            false => self.predict_lengths(requests)?,
        };
        let limit = options.max_frames.max(1);
        let frames = |(request, predicted): (&SpeakRequest, u64)| {
            let predicted = usize::try_from(predicted).unwrap_or(limit);
            request.frames.unwrap_or(predicted).clamp(1, limit)
        };
        Ok(requests.iter().zip(predicted).map(frames).collect())
    }

    fn check_requests(&self, requests: &[SpeakRequest], levels: usize) -> Result<()> {
        for (item, request) in requests.iter().enumerate() {
            let refuse = |message: String| VallEError::Sample { item, message };
            let SpeakRequest { task, phonemes, language, tone, prompt, .. } = request;
            if !task.is_audio() {
                return Err(refuse(format!("task {task} generates no speech")));
            }
            check_conditions(phonemes, *language, *tone, self.config()).map_err(refuse)?;
            if let Some(prompt) = prompt {
                check_prompt(prompt, *task, levels - 1, self.config()).map_err(refuse)?;
            }
        }
        Ok(())
    }

    /// Returns the residual stream of some rows of sequences, which continue their caches if there are any.
    fn states(
        &self,
        sequences: &[(&Sequence, Range<usize>)],
        caches: Option<&mut [&mut KeyValueCache]>,
    ) -> Result<(Value, Ragged)> {
        let (embeddings, positions, items) = self.model.embed(&Context::inference(&self.parameters), sequences)?;
        Ok((self.transformer.forward(&embeddings, &positions, &items, caches)?, items))
    }

    /// Computes rows like [`states`](Self::states). Returns the logits `[row, class]` of the last rows of each sequence, whose numbers
    /// are `counts`.
    fn last_logits(
        &self,
        sequences: &[(&Sequence, Range<usize>)],
        caches: Option<&mut [&mut KeyValueCache]>,
        counts: &[usize],
        classifier: Classifier,
    ) -> Result<Vec<Vec<f32>>> {
        let (states, items) = self.states(sequences, caches)?;
        let last = items.ranges().iter().zip(counts).flat_map(|(item, count)| item.end - count..item.end);
        let states = self.transformer.normalize(&states.select_rows(&last.collect::<Vec<_>>())?)?;
        let layer = &self.classifiers[classifier.number(self.config().levels)];
        let logits = host::read(layer.forward(&states, Activation::Identity)?.tensor())?;
        let mut rest = logits.as_slice();
        let split = |count: &usize| {
            let (own, others) = rest.split_at(count * layer.outputs());
            rest = others;
            own.to_vec()
        };
        Ok(counts.iter().map(split).collect())
    }

    /// Returns the number of classes of a classifier.
    fn classes(&self, classifier: Classifier) -> usize {
        self.classifiers[classifier.number(self.config().levels)].outputs()
    }
}

impl SpeakRequest {
    fn conditions(&self) -> Conditions<'_> {
        Conditions {
            task: self.task,
            phonemes: &self.phonemes,
            language: self.language,
            tone: self.tone,
            prompt: self.prompt.as_ref(),
        }
    }

    /// Returns the conditions of classifier-free guidance.
    fn without(&self, left_out: LeftOut) -> Conditions<'_> {
        match left_out {
            LeftOut::All => Conditions {
                task: Task::Speech,
                phonemes: &NO_PHONEMES,
                language: self.language,
                tone: self.tone,
                prompt: None,
            },
            LeftOut::Prompt => Conditions { prompt: None, ..self.conditions() },
        }
    }
}
