//! Resynthesis of any recording through an exported model: its units and its speaker embedding, a new mel, a
//! waveform.

use std::path::Path;

use candle_core::Device;
use flowmill_audio::Decoder;
use flowmill_audio::features::MelSpectrogram;
use flowmill_audio::measure::log_spectral_distance;
use flowmill_extract::extractors::registry;
use flowmill_extract::{ExtractError, Extractor, Media, State};
use flowmill_family::{BoxError, Input, Made, Output, Request, Synthesis, Synthesizer};
use flowmill_networks::flow::GenerationOptions;
use flowmill_networks::vocoders::{self, Vocoder};
use flowmill_nn::random::RngKey;
use flowmill_nn::solvers::Method;

use super::error::UseError;
use super::exported::ExportedModel;
use super::options::VOCODER_ITERATIONS;
use super::{SPEAKER_EXTRACTOR, SynthOptions, TOKEN_EXTRACTOR, waveform};

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

    fn resynthesize(&self, recording: &Path, name: &str) -> Result<Synthesis, UseError> {
        let rejected = |source: ExtractError| UseError::Recording { path: recording.to_owned(), source };
        let audio = Decoder::with_ffmpeg().decode_file(recording)?;
        let media = Media::audio(move || Ok::<_, flowmill_audio::AudioError>(audio.clone()));
        let tokens = self.tokens.extract(&media).map_err(rejected)?;
        let embedding = self.speaker.extract(&media).map_err(rejected)?;
        let wrong = || UseError::Generate { reason: "the extractors give values of another kind".to_owned() };
        let (tokens, embedding) = tokens.as_tokens().zip(embedding.as_embedding()).ok_or_else(wrong)?;
        let mel = &self.model.mel;
        let samples = media.as_audio("synth").and_then(|a| a.mono_at(mel.sample_rate)).map_err(rejected)?;
        let real = MelSpectrogram::new(mel.clone())?.compute(&samples)?;
        let rng_key = RngKey::new(self.seed).purpose("synth");
        let ids = self.model.token_ids(tokens)?;
        let options = self.generation();
        let mut samples = match self.options.streaming {
            true => self.model.stream(&ids, embedding, &options, &rng_key)?,
            false => self.model.generate(&ids, embedding, &options, &rng_key, 1)?,
        };
        let generated = samples.mels.pop().ok_or_else(wrong)?;
        let distance = log_spectral_distance(&generated, &real)?;
        let output = match &self.vocoder {
            Some(vocoder) => {
                let rng_key = RngKey::new(self.seed).purpose("vocoder");
                waveform::neural_output(generated, mel, vocoder.as_ref(), &rng_key)?
            }
            None => {
                let iterations = self.options.vocoder_iterations.unwrap_or(VOCODER_ITERATIONS);
                waveform::output(generated, mel, iterations)?
            }
        };
        let figures = vec![
            format!("{:.2} s", output.waveform.len() as f64 / f64::from(mel.sample_rate)),
            format!("{} units", tokens.len()),
            format!("{} evaluations", samples.evaluations.into_iter().sum::<usize>()),
            format!("{distance:.1} dB from the recording"),
        ];
        let (name, title) = (name.to_owned(), name.to_owned());
        Ok(Synthesis { made: Made { name, title, output: Output::Mel(output), real: Some(real) }, figures })
    }
}

impl Synthesizer for Resynthesizer {
    fn run(&self, request: &Request) -> Result<Synthesis, BoxError> {
        match request.inputs.as_slice() {
            [Input::Audio(recording)] => Ok(self.resynthesize(recording, &request.name)?),
            _ => Err("this model needs exactly one recording".into()),
        }
    }
}

/// Loads the fitted extractor in `path` for a device.
fn load_extractor(path: &Path, device: &Device) -> Result<Box<dyn Extractor>, UseError> {
    let state = State::load(path)?;
    Ok(registry().open(&state, device)?)
}
