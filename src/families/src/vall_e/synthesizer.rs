//! The use of a model on a user's text and recording.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use candle_core::Device;
use flowmill_audio::Decoder as AudioDecoder;
use flowmill_extract::extractors::registry;
use flowmill_extract::{Extractor, Media, State};
use flowmill_family::{BoxError, Input, Loaded, Made, Output, Request, Synthesis, Synthesizer};
use flowmill_networks::vall_e::{
    Codes, FirstLevel, Guidance, MaskedOptions, SamplingOptions, SpeakOptions, SpeakRequest, Speaker, Task,
    TranscribeRequest, VallEConfig,
};
use flowmill_nn::random::RngKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::description::Description;
use super::rows::{Symbols, codes_of};
use super::tokenizer::PhonemeTokenizer;
use super::voice::Decoder;
use super::{CODEC, PHONEMES, VallE};

/// Root mean square below which a prompt is silence: -80 dB of full scale.
const SILENCE: f64 = 1e-4;
/// Most phonemes of a transcript, per second of speech and in addition.
const PHONEMES_PER_SECOND: f64 = 50.0;
const MORE_PHONEMES: usize = 20;

/// Options of `flowmill speak` and `synth`; null means the model's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SynthOptions {
    /// The way in which level 0 is generated.
    pub path: Option<FirstLevelPath>,
    /// Number of steps of `nar-len`.
    pub steps: Option<usize>,
    /// Divisor of the logits of level 0; 0 for the most probable codes.
    pub temperature: Option<f32>,
    /// Number of most probable codes that are sampled from; 0 for all.
    pub top_k: Option<usize>,
    /// Probability of the smallest set of most probable codes that is sampled from.
    pub top_p: Option<f32>,
    /// Share of the largest probability that a code needs.
    pub min_p: Option<f32>,
    /// Divisor of the logits of codes that have been generated before.
    pub repetition_penalty: Option<f32>,
    /// Decay of that penalty with the distance.
    pub repetition_decay: Option<f32>,
    /// Longest speech, in seconds.
    pub max_seconds: Option<f64>,
    /// Strength of classifier-free guidance; 1 for none.
    pub guidance: Option<f32>,
    /// Language of the texts, if the phonemes of the model do not fix it.
    pub language: Option<String>,
}

/// A way in which level 0 is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FirstLevelPath {
    /// Code by code.
    Ar,
    /// All frames at once, in a few steps.
    NarLen,
}

impl SynthOptions {
    /// Returns the model's options with these changes; `rate` is the number of frames per second.
    ///
    /// # Errors
    /// Returns the option that cannot be used.
    fn applied(&self, own: SpeakOptions, rate: f64, config: &VallEConfig) -> Result<SpeakOptions, BoxError> {
        let mut options = own;
        match (self.path, &options.first_level) {
            (Some(FirstLevelPath::Ar), FirstLevel::Masked(_)) => options.first_level = FirstLevel::default(),
            (Some(FirstLevelPath::NarLen), FirstLevel::Autoregressive { .. }) => {
                options.first_level = FirstLevel::Masked(MaskedOptions::default());
            }
            _ => {}
        }
        let (sampling, guidance) = match &mut options.first_level {
            FirstLevel::Autoregressive { sampling, guidance } => {
                if self.steps.is_some() {
                    return Err("steps: only `nar-len` has steps".into());
                }
                (sampling, guidance)
            }
            FirstLevel::Masked(masked) => {
                masked.steps = self.steps.unwrap_or(masked.steps);
                (&mut masked.sampling, &mut masked.guidance)
            }
        };
        *sampling = SamplingOptions {
            temperature: self.temperature.unwrap_or(sampling.temperature),
            top_k: self.top_k.unwrap_or(sampling.top_k),
            top_p: self.top_p.unwrap_or(sampling.top_p),
            min_p: self.min_p.unwrap_or(sampling.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(sampling.repetition_penalty),
            repetition_decay: self.repetition_decay.unwrap_or(sampling.repetition_decay),
            ..*sampling
        };
        if let Some(strength) = self.guidance {
            let own = guidance.unwrap_or_default();
            *guidance = (strength != 1.0).then_some(Guidance { strength, ..own });
        }
        if let Some(seconds) = self.max_seconds {
            if !(seconds.is_finite() && seconds > 0.0) {
                return Err(format!("max_seconds: {seconds} is not above 0").into());
            }
            options.max_frames = (seconds * rate).ceil() as usize;
        }
        options.check(config)?;
        Ok(options)
    }
}

/// A model with its codec and its phonemes.
pub struct SpeechSynthesizer {
    speaker: Speaker,
    decoder: Decoder,
    /// The codec's encoder, which only recordings need.
    encoder: OnceLock<Box<dyn Extractor>>,
    codec: PathBuf,
    device: Device,
    phonemes: Box<dyn Extractor>,
    tokenizer: PhonemeTokenizer,
    description: Description,
    options: SpeakOptions,
    language: Option<String>,
    rng_key: RngKey,
}

impl SpeechSynthesizer {
    /// Opens a model.
    ///
    /// # Errors
    /// Returns an error if its folder lacks an extractor, or an option cannot be used.
    pub fn new(loaded: Loaded<VallE>, options: SynthOptions, seed: u64) -> Result<Self, BoxError> {
        let Loaded { config, description, model, parameters, folder, device } = loaded;
        let path = folder.join(CODEC);
        let state = State::load(&path)?;
        let decoder = Decoder::of(&state, &path, &device)?;
        let own = description.sampling.unwrap_or_default();
        let applied = options.applied(own, decoder.rate(), &config)?;
        description.check(&applied)?;
        Ok(Self {
            speaker: Speaker::new(&model.0, &parameters)?,
            options: applied,
            language: options.language,
            encoder: OnceLock::new(),
            codec: path,
            phonemes: registry().open(&State::load(&folder.join(PHONEMES))?, &device)?,
            tokenizer: description.tokenizer()?,
            description,
            decoder,
            device,
            rng_key: RngKey::new(seed).purpose("speak"),
        })
    }

    /// Returns the model's number of a language, such as `en`; for `en-gb` that of `en` if the model has no other.
    fn language_number(&self, language: &str) -> Result<usize, BoxError> {
        let languages = &self.description.languages;
        let number_of = |name: &str| languages.iter().position(|own| own == name);
        let base = language.split('-').next().unwrap_or(language);
        let number = number_of(language).or_else(|| number_of(base));
        Ok(number.ok_or_else(|| format!("language: the model has {}, not `{language}`", languages.join(", ")))?)
    }

    /// Returns the symbols of a text.
    fn symbols(&self, text: &str) -> Result<Symbols, BoxError> {
        if let Some(language) = &self.language {
            self.language_number(language)?;
        }
        let media = Media::default().with_text(text, self.language.clone());
        let extracted = self.phonemes.extract(&media).map_err(|error| format!("the text: {error}"))?;
        let [phonemes, language] = extracted.arrays() else { return Err("the extractor gives no phonemes".into()) };
        let (phonemes, language) = (phonemes.value::<String>()?, language.value::<String>()?);
        Ok(Symbols::new(phonemes, language, &self.tokenizer, &self.description.languages)?)
    }

    /// Returns the codec's encoder.
    fn encoder(&self) -> Result<&dyn Extractor, BoxError> {
        if self.encoder.get().is_none() {
            // Of two threads that come first, one wins with the same encoder.
            let _lost = self.encoder.set(registry().open(&State::load(&self.codec)?, &self.device)?);
        }
        Ok(self.encoder.get().ok_or("the codec was not opened")?.as_ref())
    }

    /// Returns the codes of a recording.
    fn codes(&self, recording: &Path) -> Result<Codes, BoxError> {
        let about = |error: &dyn std::fmt::Display| format!("{}: {error}", recording.display());
        let audio = AudioDecoder::with_ffmpeg().decode_file(recording)?;
        let mono = audio.mono();
        let power = mono.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / mono.len().max(1) as f64;
        if power.sqrt() < SILENCE {
            return Err(about(&"it is silent, so it has no voice; name a recording of speech").into());
        }
        let audio = Arc::new(audio);
        let media = Media::audio(move || Ok::<_, flowmill_audio::AudioError>((*audio).clone()));
        let extracted = self.encoder()?.extract(&media).map_err(|error| about(&error))?;
        let codes = extracted.arrays().first().map(codes_of).ok_or("the extractor gives no codes")?;
        Ok(codes.map_err(|error| about(&error))?)
    }

    /// Returns the codes of a prompt, at most as long as in training.
    fn prompt(&self, recording: &Path) -> Result<Codes, BoxError> {
        let most = (self.description.prompt_seconds[1] * self.decoder.rate()).round() as usize;
        Ok(self.codes(recording)?.cut(0..most.max(1)))
    }

    fn speak(
        &self,
        text: &str,
        recording: Option<&Path>,
        name: &str,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Synthesis, BoxError> {
        let Symbols { phonemes, language } = self.symbols(text)?;
        let prompt = recording.map(|recording| self.prompt(recording)).transpose()?;
        let request = SpeakRequest { phonemes, language, prompt, ..SpeakRequest::default() };
        let started = Instant::now();
        let spoken = self.speaker.speak(&[request], &self.options, &self.rng_key, &mut |step| {
            progress(step.done, step.limit);
            ControlFlow::Continue(())
        })?;
        let codes = spoken.into_iter().next().unwrap_or_default();
        if codes.frames() == 0 {
            return Err("the model ended at once; try another seed, temperature or prompt".into());
        }
        let audio = self.decoder.sound(&codes)?;
        let taken = started.elapsed().as_secs_f64();
        let seconds = audio.samples.len() as f64 / f64::from(audio.sample_rate.max(1));
        let mut figures = vec![
            format!("{seconds:.2} s"),
            format!("{} frames", codes.frames()),
            format!("real-time factor {:.2}", taken / seconds.max(1e-9)),
        ];
        if codes.frames() >= self.options.max_frames {
            figures.push("cut at the length limit".to_owned());
        }
        let (name, title) = (name.to_owned(), name.to_owned());
        Ok(Synthesis { made: Made { name, title, output: Output::Audio(audio), real: None }, figures })
    }
}

impl Synthesizer for SpeechSynthesizer {
    fn run(&self, request: &Request) -> Result<Synthesis, BoxError> {
        self.run_observed(request, &mut |_, _| {})
    }

    fn run_observed(&self, request: &Request, progress: &mut dyn FnMut(usize, usize)) -> Result<Synthesis, BoxError> {
        match request.inputs.as_slice() {
            [Input::Text(text)] => self.speak(text, None, &request.name, progress),
            [Input::Text(text), Input::Audio(prompt)] => self.speak(text, Some(prompt), &request.name, progress),
            _ => Err("this model speaks a text in the voice of a recording: use `flowmill speak --text TEXT --prompt RECORDING`".into()),
        }
    }

    fn transcribe(&self, recording: &Path) -> Result<String, BoxError> {
        if !self.description.tasks.has(Task::Transcription) {
            return Err("this model was not trained to transcribe, which needs train.tasks.stt above 0".into());
        }
        let speech = self.codes(recording)?;
        let seconds = speech.frames() as f64 / self.decoder.rate();
        let most = (seconds * PHONEMES_PER_SECOND) as usize + MORE_PHONEMES;
        let language = match &self.language {
            None => 0,
            Some(language) => self.language_number(language)?,
        };
        let request = TranscribeRequest { speech, language: language as u32, sample: 0 };
        let sampling = SamplingOptions::greedy();
        let transcripts = self.speaker.transcribe(&[request], &sampling, most, &self.rng_key)?;
        Ok(self.tokenizer.decode(transcripts.first().map_or(&[][..], Vec::as_slice)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_change_those_of_the_model() {
        let config = VallEConfig::default();
        let applied = |options: SynthOptions| options.applied(SpeakOptions::default(), 75.0, &config);
        let options = SynthOptions {
            temperature: Some(0.5),
            guidance: Some(2.0),
            max_seconds: Some(2.0),
            ..SynthOptions::default()
        };
        let options = applied(options).unwrap();
        let FirstLevel::Autoregressive { sampling, guidance } = options.first_level else { panic!("{options:?}") };
        assert_eq!((sampling.temperature, sampling.top_p, options.max_frames), (0.5, 1.0, 150));
        assert_eq!(guidance.map(|guidance| guidance.strength), Some(2.0));
        let masked = SynthOptions {
            path: Some(FirstLevelPath::NarLen),
            steps: Some(7),
            guidance: Some(1.0),
            ..SynthOptions::default()
        };
        let FirstLevel::Masked(masked) = applied(masked).unwrap().first_level else { panic!("not masked") };
        assert_eq!((masked.steps, masked.guidance), (7, None));
        for bad in [
            SynthOptions { steps: Some(3), ..SynthOptions::default() },
            SynthOptions { max_seconds: Some(0.0), ..SynthOptions::default() },
            SynthOptions { top_p: Some(0.0), ..SynthOptions::default() },
            SynthOptions { max_seconds: Some(1e9), ..SynthOptions::default() },
        ] {
            assert!(applied(bad.clone()).is_err(), "{bad:?}");
        }
    }
}
