//! Waveforms of generated mels.

use flowmill_audio::AudioError;
use flowmill_audio::features::{Features, MelConfig};
use flowmill_audio::pitch::{PitchConfig, track_pitch};
use flowmill_audio::vocode::{GriffinLimStream, griffin_lim};
use flowmill_family::MelOutput;
use flowmill_networks::vocoders::{Vocoder, VocoderError, VocoderStream};
use flowmill_nn::random::RngKey;

use super::error::UseError;

/// The loudest sample of a written waveform: a generated mel may be louder than a WAV file can represent.
const PEAK: f32 = 0.98;

/// Returns the waveform of a log-mel, no louder than full scale.
///
/// # Errors
/// Returns an error if the mel does not match its settings.
pub fn waveform(mel: &Features, config: &MelConfig, iterations: usize) -> Result<Vec<f32>, AudioError> {
    Ok(limited(griffin_lim(mel, config, iterations)?))
}

/// Scales samples down if they are louder than full scale.
pub(super) fn limited(mut samples: Vec<f32>) -> Vec<f32> {
    let loudest = samples.iter().fold(0f32, |peak, sample| peak.max(sample.abs()));
    if loudest > PEAK {
        samples.iter_mut().for_each(|sample| *sample *= PEAK / loudest);
    }
    samples
}

/// The output of a generated mel.
///
/// # Errors
/// See [`waveform`].
pub fn output(mel: Features, config: &MelConfig, iterations: usize) -> Result<MelOutput, AudioError> {
    let waveform = waveform(&mel, config, iterations)?;
    Ok(MelOutput { mel, config: config.clone(), waveform })
}

/// The output of a generated mel, with the sound of a neural vocoder.
///
/// # Errors
/// Returns an error if the mel does not match the vocoder.
pub fn neural_output(
    mel: Features,
    config: &MelConfig,
    vocoder: &dyn Vocoder,
    rng_key: &RngKey,
) -> Result<MelOutput, VocoderError> {
    let waveform = limited(vocoder.vocode(&mel, rng_key)?);
    Ok(MelOutput { mel, config: config.clone(), waveform })
}

/// The vocoder of a mel that arrives in parts.
pub enum SoundStream<'a> {
    /// Griffin-Lim.
    GriffinLim(GriffinLimStream),
    /// A neural vocoder.
    Neural(Box<dyn VocoderStream + 'a>),
}

impl SoundStream<'_> {
    /// Adds the next frames, and returns the samples that follow those of the calls before, without a limit of their loudness.
    ///
    /// # Errors
    /// Returns an error if the mel does not match the vocoder.
    pub fn push(&mut self, mel: &Features, is_last: bool) -> Result<Vec<f32>, UseError> {
        Ok(match self {
            Self::GriffinLim(stream) => stream.push(mel, is_last)?,
            Self::Neural(stream) => stream.push(mel, is_last)?,
        })
    }
}

/// A limit of the loudness of a sound whose end is not known: a part that is too loud lowers the volume for the rest.
pub struct RunningLimit {
    volume: f32,
}

/// The number of samples over which the volume falls.
const FALL: usize = 240;

impl RunningLimit {
    /// Begins with full volume.
    pub fn new() -> Self {
        Self { volume: 1.0 }
    }

    /// Scales the next samples.
    pub fn apply(&mut self, samples: &mut [f32]) {
        let loudest = samples.iter().fold(0f32, |peak, sample| peak.max(sample.abs()));
        let before = self.volume;
        if loudest * before > PEAK {
            self.volume = PEAK / loudest;
        }
        let fall = samples.len().min(FALL);
        for (at, sample) in samples.iter_mut().enumerate() {
            let share = (at as f32 / fall.max(1) as f32).min(1.0);
            *sample = (*sample * (before + share * (self.volume - before))).clamp(-PEAK, PEAK);
        }
    }
}

/// Returns F0 in Hz per mel frame, `None` if unvoiced.
///
/// # Errors
/// Returns an error if the settings are inconsistent.
pub fn pitch(samples: &[f32], config: &MelConfig) -> Result<Vec<Option<f32>>, AudioError> {
    let settings =
        PitchConfig { sample_rate: config.sample_rate, hop_length: config.hop_length, ..PitchConfig::default() };
    let track = track_pitch(samples, &settings)?;
    Ok(track.f0.iter().zip(&track.voiced).map(|(f0, voiced)| voiced.then_some(*f0)).collect())
}
