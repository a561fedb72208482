//! Resynthesis through an exported model: the units of a recording or of a file, a speaker embedding, a new mel, a waveform.

use std::path::Path;

use candle_core::Device;
use flowmill_audio::Decoder;
use flowmill_audio::features::{Features, MelSpectrogram};
use flowmill_audio::measure::log_spectral_distance;
use flowmill_audio::vocode::GriffinLimStream;
use flowmill_extract::extractors::registry;
use flowmill_extract::{ExtractError, Extractor, Media, State};
use flowmill_family::{BoxError, Input, Made, MelOutput, Output, Play, Request, Synthesis, Synthesizer};
use flowmill_networks::flow::GenerationOptions;
use flowmill_networks::vocoders::{self, Vocoder};
use flowmill_nn::random::RngKey;
use flowmill_nn::solvers::Method;

use super::error::UseError;
use super::exported::{ExportedModel, Part};
use super::options::VOCODER_ITERATIONS;
use super::waveform::{RunningLimit, SoundStream};
use super::{SPEAKER_EXTRACTOR, SynthOptions, TOKEN_EXTRACTOR, waveform};

/// Longest part that is generated at once, in seconds.
const WINDOW: f64 = 30.0;

/// The tokens and the voice of a request.
struct Source {
    tokens: Vec<i64>,
    voice: Vec<f32>,
    /// The log-mel of a recording.
    real: Option<Features>,
}

/// A model opened for resynthesis.
pub struct Resynthesizer {
    model: ExportedModel,
    speaker: Box<dyn Extractor>,
    tokens: Box<dyn Extractor>,
    /// A neural vocoder; without one, Griffin-Lim.
    vocoder: Option<Box<dyn Vocoder>>,
    options: SynthOptions,
    seed: u64,
}

impl Resynthesizer {
    /// Opens a model for a device. Its extractors are in `folder`.
    ///
    /// # Errors
    /// [`UseError::Extractor`]; [`UseError::Option`] for a strength or streaming if the model has none; [`UseError::Vocoder`] if the vocoder cannot be opened or needs
    /// another mel.
    pub fn open(
        model: ExportedModel,
        folder: &Path,
        device: &Device,
        options: SynthOptions,
        seed: u64,
    ) -> Result<Self, UseError> {
        if options.strength.is_some() && !model.has_strength() {
            let reason = "it is not a shallow flow and has no strength".to_owned();
            return Err(UseError::Option { option: "strength", reason });
        }
        if options.streaming {
            model.check_streaming().map_err(|reason| UseError::Option { option: "streaming", reason })?;
        }
        let vocoder = options.vocoder.as_ref().map(|asked| {
            let vocoder = vocoders::open(asked.kind, &asked.weights, &asked.config, device)?;
            vocoder.mel_form().check(&model.mel)?;
            Ok::<_, UseError>(vocoder)
        });
        let vocoder = vocoder.transpose()?;
        let speaker = load_extractor(&folder.join(SPEAKER_EXTRACTOR), device)?;
        let tokens = load_extractor(&folder.join(TOKEN_EXTRACTOR), device)?;
        Ok(Self { model, speaker, tokens, vocoder, options, seed })
    }

    fn generation(&self) -> GenerationOptions {
        let (mut options, asked) = (self.model.options, &self.options);
        if let Some(method) = asked.solver.or(asked.steps.map(|_| Method::Euler)) {
            options.solver.method = method;
        }
        options.strength = asked.strength;
        options.solver.steps = asked.steps.unwrap_or(options.solver.steps);
        options.guidance = asked.guidance.unwrap_or(options.guidance);
        options
    }

    /// Reads the tokens and the voice of a request, and the real mel where there is a recording.
    fn source(&self, inputs: &[Input]) -> Result<Source, UseError> {
        let (input, given) = match inputs {
            [input] => (input, None),
            [input, Input::Voice(voice)] => (input, Some(voice)),
            _ => return Err(needs_one()),
        };
        if let Some(voice) = given {
            self.model.check_speaker(voice)?;
        }
        match input {
            Input::Audio(recording) => self.heard(recording, given),
            Input::Row(row) => {
                let tokens = self.model.speech_tokens(row)?;
                let own = || self.model.speaker_of(row).map(<[f32]>::to_vec);
                let voice = given.cloned().or_else(own).ok_or_else(|| UseError::Request {
                    reason: format!(
                        "it has no `{}`: name the voice with --speaker FILE[:ID] or --speaker RECORDING",
                        self.model.speaker_embedding.column()
                    ),
                })?;
                self.model.check_speaker(&voice)?;
                Ok(Source { tokens, voice, real: None })
            }
            _ => Err(needs_one()),
        }
    }

    /// Extracts the tokens of a recording, and its voice unless another one is given.
    fn heard(&self, recording: &Path, given: Option<&Vec<f32>>) -> Result<Source, UseError> {
        let rejected = |source: ExtractError| UseError::Recording { path: recording.to_owned(), source };
        let media = media(recording)?;
        let tokens = self.tokens.extract(&media).map_err(rejected)?;
        let tokens = tokens.as_tokens().ok_or_else(wrong_kind)?.to_vec();
        let voice = match given {
            Some(voice) => voice.clone(),
            None => self.embedding(recording, &media)?,
        };
        let mel = &self.model.mel;
        let samples = media.as_audio("synth").and_then(|a| a.mono_at(mel.sample_rate)).map_err(rejected)?;
        let real = MelSpectrogram::new(mel.clone())?.compute(&samples)?;
        Ok(Source { tokens, voice, real: Some(real) })
    }

    fn embedding(&self, recording: &Path, media: &Media) -> Result<Vec<f32>, UseError> {
        let rejected = |source: ExtractError| UseError::Recording { path: recording.to_owned(), source };
        let embedding = self.speaker.extract(media).map_err(rejected)?;
        Ok(embedding.as_embedding().ok_or_else(wrong_kind)?.to_vec())
    }

    fn sound(&self) -> Result<SoundStream<'_>, UseError> {
        Ok(match &self.vocoder {
            Some(vocoder) => SoundStream::Neural(vocoder.stream(&self.vocoder_key())),
            None => SoundStream::GriffinLim(GriffinLimStream::new(self.model.mel.clone(), self.iterations())?),
        })
    }

    fn iterations(&self) -> usize {
        self.options.vocoder_iterations.unwrap_or(VOCODER_ITERATIONS)
    }

    fn vocoder_key(&self) -> RngKey {
        RngKey::new(self.seed).purpose("vocoder")
    }

    /// Does a request. The sound is made when the mel is whole, or with `play` part by part.
    fn synthesize(&self, request: &Request, mut play: Option<&mut Play<'_>>) -> Result<Synthesis, UseError> {
        let Source { tokens, voice, real } = self.source(&request.inputs)?;
        let mel = &self.model.mel;
        let ids = self.model.token_ids(&tokens)?;
        let rng_key = RngKey::new(self.seed).purpose("synth");
        let window = self.options.window.unwrap_or(WINDOW);
        let (mut sound, mut limit) = (self.sound()?, RunningLimit::new());
        let (mut frames, mut samples, mut evaluations) = (Vec::new(), Vec::new(), 0);
        let mut is_short = false;
        let mut take = |part: Part| -> Result<(), UseError> {
            evaluations += part.evaluations;
            is_short = frames.is_empty() && part.is_last;
            frames.extend_from_slice(&part.mel.data);
            match &mut play {
                Some(play) => {
                    let mut made = sound.push(&part.mel, part.is_last)?;
                    limit.apply(&mut made);
                    play(&made, mel.sample_rate).map_err(UseError::Play)?;
                    samples.extend(made);
                }
                // Of a long mel, Griffin-Lim would need gigabytes at once.
                None if self.vocoder.is_none() && !is_short => samples.extend(sound.push(&part.mel, part.is_last)?),
                None => {}
            }
            Ok(())
        };
        match self.options.streaming {
            true => {
                let mut made = self.model.stream(&ids, &voice, &self.generation(), &rng_key)?;
                let mel = made.mels.pop().ok_or_else(wrong_kind)?;
                take(Part { mel, evaluations: made.evaluations.iter().sum(), is_last: true })?;
            }
            false => {
                self.model.generate_in_windows(&ids, &voice, &self.generation(), &rng_key, window, take)?;
            }
        }
        let count = frames.len() / mel.n_mels.max(1);
        let generated = Features::new(frames, count, mel.n_mels)?;
        let distance = real.as_ref().map(|real| log_spectral_distance(&generated, real)).transpose()?;
        let output = match &self.vocoder {
            _ if play.is_some() => MelOutput { mel: generated, config: mel.clone(), waveform: samples },
            Some(vocoder) => waveform::neural_output(generated, mel, vocoder.as_ref(), &self.vocoder_key())?,
            None if is_short => waveform::output(generated, mel, self.iterations())?,
            None => MelOutput { mel: generated, config: mel.clone(), waveform: waveform::limited(samples) },
        };
        let mut figures = vec![
            format!("{:.2} s", output.waveform.len() as f64 / f64::from(mel.sample_rate)),
            format!("{} units", tokens.len()),
            format!("{evaluations} evaluations"),
        ];
        figures.extend(distance.map(|distance| format!("{distance:.1} dB from the recording")));
        let (name, title) = (request.name.clone(), request.name.clone());
        Ok(Synthesis { made: Made { name, title, output: Output::Mel(output), real }, figures })
    }
}

impl Synthesizer for Resynthesizer {
    fn run(&self, request: &Request) -> Result<Synthesis, BoxError> {
        Ok(self.synthesize(request, None)?)
    }

    fn stream(&self, request: &Request, play: &mut Play<'_>) -> Result<Synthesis, BoxError> {
        Ok(self.synthesize(request, Some(play))?)
    }

    fn voice(&self, recording: &Path) -> Result<Vec<f32>, BoxError> {
        Ok(self.embedding(recording, &media(recording)?)?)
    }

    fn check_voice(&self, embedding: &[f32]) -> Result<(), BoxError> {
        Ok(self.model.check_speaker(embedding)?)
    }
}

/// Decodes a recording.
fn media(recording: &Path) -> Result<Media, UseError> {
    let audio = Decoder::with_ffmpeg().decode_file(recording)?;
    Ok(Media::audio(move || Ok::<_, flowmill_audio::AudioError>(audio.clone())))
}

fn needs_one() -> UseError {
    UseError::Request { reason: "this model needs exactly one recording, or the tokens of one".to_owned() }
}

fn wrong_kind() -> UseError {
    UseError::Generate { reason: "the extractors give values of another kind".to_owned() }
}

/// Loads the fitted extractor in `path` for a device.
fn load_extractor(path: &Path, device: &Device) -> Result<Box<dyn Extractor>, UseError> {
    let state = State::load(path)?;
    Ok(registry().open(&state, device)?)
}
