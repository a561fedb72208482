//! The use of a model on a portrait and a voice.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use flowmill_audio::Decoder;
use flowmill_extract::extractors::registry;
use flowmill_extract::{Extractor, Media, State};
use flowmill_family::{Audio, BoxError, Input, Loaded, Request, Synthesis, Synthesizer};
use flowmill_image::Limits;
use flowmill_networks::float::MotionRequest;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::emotions::{EMOTION, EMOTIONS, by_name};
use super::network::Network;
use super::rendering::Rendering;
use super::rows::SPEECH_FEATURES;
use super::{Description, Float, MOTION_EXTRACTOR, SPEECH_EXTRACTOR, Sampling};
use crate::image_sheet::frame;

/// The word for the emotion that a classifier hears in the voice.
const AUTO: &str = "auto";
/// Longest voice, in seconds; it bounds the memory of the frames.
const LONGEST: f64 = 600.0;

/// Options of `flowmill talk`; null means the model's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SynthOptions {
    /// Number of steps per window.
    pub nfe: Option<usize>,
    /// Strength of the speech.
    pub audio_guidance: Option<f32>,
    /// Strength of the emotion.
    pub emotion_guidance: Option<f32>,
    /// Factor of the noise that motion starts from.
    pub noise: Option<f32>,
    /// The emotion; without it none is given.
    pub emotion: Option<String>,
}

impl SynthOptions {
    /// Returns the model's sampling with these changes.
    ///
    /// # Errors
    /// Returns the option that cannot be used.
    fn applied(&self, own: Sampling) -> Result<Sampling, BoxError> {
        let sampling = Sampling {
            nfe: self.nfe.unwrap_or(own.nfe),
            audio_guidance: self.audio_guidance.unwrap_or(own.audio_guidance),
            emotion_guidance: self.emotion_guidance.unwrap_or(own.emotion_guidance),
            noise: self.noise.unwrap_or(own.noise),
        };
        sampling.check().map_err(|(key, reason)| format!("{}: {reason}", key.replace('_', "-")))?;
        Ok(sampling)
    }

    /// Returns the condition of the emotion; `None` if it is heard in the voice. `can_hear` says whether the model has a classifier.
    ///
    /// # Errors
    /// Returns an error for an unknown emotion, or without a classifier.
    fn condition(&self, can_hear: bool) -> Result<Option<Vec<f32>>, BoxError> {
        match self.emotion.as_deref() {
            None => Ok(Some(vec![0.0; EMOTIONS.len()])),
            Some(AUTO) if can_hear => Ok(None),
            Some(AUTO) => {
                let known = EMOTIONS.join(", ");
                Err(format!("emotion: this model has no classifier of emotions for `auto`; name one of {known}").into())
            }
            Some(name) => {
                let unknown = || format!("emotion: `{}` is none of {}", name.escape_debug(), EMOTIONS.join(", "));
                Ok(Some(by_name(name).ok_or_else(unknown)?))
            }
        }
    }
}

/// A model with its renderer and its extractor of speech features.
pub struct FaceSynthesizer {
    network: Network,
    parameters: Parameters,
    description: Description,
    rendering: Rendering,
    speech: Box<dyn Extractor>,
    sampling: Sampling,
    /// The condition; `None` if it is heard in the voice.
    emotion: Option<Vec<f32>>,
    rng_key: RngKey,
}

/// A recording as the model hears it.
struct Voice {
    /// Speech features `[frame, feature]`.
    speech: Vec<f32>,
    /// The probability of each emotion, if the extractor has a classifier.
    emotion: Option<Vec<f32>>,
    audio: Audio,
    frames: usize,
}

/// Returns the place of a column among those of an extractor.
fn place(extractor: &dyn Extractor, name: &str) -> Option<usize> {
    extractor.columns().iter().position(|column| column.name() == name)
}

impl FaceSynthesizer {
    /// Opens a model.
    ///
    /// # Errors
    /// Returns an error if its folder lacks an extractor, its motion cannot be rendered, or an option cannot be used.
    pub fn new(loaded: Loaded<Float>, options: SynthOptions, seed: u64) -> Result<Self, BoxError> {
        let Loaded { description, model, parameters, folder, device, .. } = loaded;
        let sampling = options.applied(description.sampling)?;
        let speech = registry().open(&State::load(&folder.join(SPEECH_EXTRACTOR))?, &device)?;
        let emotion = options.condition(place(&*speech, EMOTION).is_some())?;
        let rendering = Rendering::open(&folder.join(MOTION_EXTRACTOR), &device)?;
        rendering.required()?;
        Ok(Self {
            network: model,
            parameters,
            description,
            rendering,
            speech,
            sampling,
            emotion,
            rng_key: RngKey::new(seed).purpose("talk"),
        })
    }

    fn listen(&self, path: &Path) -> Result<Voice, BoxError> {
        let about = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let audio = Decoder::with_ffmpeg().decode_file(path)?;
        if audio.seconds() > LONGEST {
            let reason = format!("{:.0} s long; at most {LONGEST} s are generated at a time", audio.seconds());
            return Err(about(&reason).into());
        }
        let shared = Arc::new(audio);
        let of_media = Arc::clone(&shared);
        let media = Media::audio(move || Ok::<_, flowmill_audio::AudioError>((*of_media).clone()));
        let extracted = self.speech.extract(&media).map_err(|error| about(&error))?;
        let array = |name: &str| extracted.arrays().get(place(&*self.speech, name)?);
        let features = array(SPEECH_FEATURES).ok_or("the extractor gives no speech features")?;
        let (width, shape) = (self.network.0.config().audio_width(), features.shape());
        let &[frames, found] = shape else {
            return Err(about(&format!("speech features of the shape {shape:?}")).into());
        };
        if found != width || frames == 0 {
            return Err(about(&format!("{frames} frames of {found} speech features; the model reads {width}")).into());
        }
        let emotion = array(EMOTION).map(|values| values.values::<f32>()).transpose()?.map(<[f32]>::to_vec);
        let audio = Audio { samples: shared.mono(), sample_rate: shared.sample_rate };
        Ok(Voice { speech: features.values::<f32>()?.to_vec(), emotion, audio, frames })
    }

    fn talk(&self, portrait: &Path, voice: &Path, name: &str) -> Result<Synthesis, BoxError> {
        let image = flowmill_image::read(portrait, &Limits::default());
        let image = image.map_err(|error| format!("{}: {error}", portrait.display()))?;
        let picture = frame(&image);
        let renderer = self.rendering.required()?;
        let about = |error: flowmill_extract::RenderError| format!("{}: {error}", portrait.display());
        let face = renderer.portrait(&picture).map_err(about)?;
        let Voice { speech, emotion: heard, mut audio, frames } = self.listen(voice)?;
        let started = Instant::now();
        let emotion = self.emotion.clone().or(heard).unwrap_or_else(|| vec![0.0; EMOTIONS.len()]);
        let request = MotionRequest { audio: speech, reference: renderer.reference(&face)?, emotion };
        let context = Context::inference(&self.parameters);
        let motions = self.sampling.sample(&self.network.0, &context, &[request], &self.rng_key)?;
        let motion = motions.into_iter().next().unwrap_or_default();
        let rendered = renderer.render(&face, &motion)?;
        let taken = started.elapsed().as_secs_f64();
        let seconds = frames as f64 / f64::from(self.description.fps);
        audio.samples.resize((seconds * f64::from(audio.sample_rate)).round() as usize, 0.0);
        let figures = vec![
            format!("{seconds:.2} s"),
            format!("{frames} frames"),
            format!("real-time factor {:.2}", taken / seconds.max(1e-9)),
        ];
        let made = self.rendering.video(name, rendered, self.description.fps, Some(audio));
        Ok(Synthesis { made, figures })
    }
}

impl Synthesizer for FaceSynthesizer {
    fn run(&self, request: &Request) -> Result<Synthesis, BoxError> {
        match request.inputs.as_slice() {
            [Input::Image(portrait), Input::Audio(voice)] => self.talk(portrait, voice, &request.name),
            _ => Err(
                "this model moves a portrait as if it spoke: use `flowmill talk --portrait FACE.png --audio VOICE.wav`"
                    .into(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_change_those_of_the_model_and_emotions_have_names() {
        let options = SynthOptions { nfe: Some(4), noise: Some(0.5), ..SynthOptions::default() };
        let sampling = options.applied(Sampling::default()).unwrap();
        assert_eq!((sampling.nfe, sampling.noise, sampling.audio_guidance), (4, 0.5, 2.0));
        assert!(SynthOptions { nfe: Some(0), ..SynthOptions::default() }.applied(Sampling::default()).is_err());
        assert!(
            SynthOptions { audio_guidance: Some(f32::NAN), ..SynthOptions::default() }
                .applied(Sampling::default())
                .is_err()
        );
        let emotion = |name: &str, can_hear| {
            SynthOptions { emotion: Some(name.to_owned()), ..SynthOptions::default() }.condition(can_hear)
        };
        assert_eq!(emotion("happy", false).unwrap().unwrap()[3], 1.0);
        assert!(emotion("bored", true).is_err() && emotion("auto", false).is_err());
        assert_eq!(emotion("auto", true).unwrap(), None);
    }
}
