//! Waveforms of generated mels.

use flowmill_audio::AudioError;
use flowmill_audio::features::{Features, MelConfig};
use flowmill_audio::pitch::{PitchConfig, track_pitch};
use flowmill_audio::vocode::griffin_lim;
use flowmill_family::MelOutput;

/// The loudest sample of a written waveform: a generated mel may be louder than a WAV file can represent.
const PEAK: f32 = 0.98;

/// Returns the waveform of a log-mel, no louder than full scale.
///
/// # Errors
/// Returns an error if the mel does not match its settings.
pub fn waveform(mel: &Features, config: &MelConfig, iterations: usize) -> Result<Vec<f32>, AudioError> {
    let mut samples = griffin_lim(mel, config, iterations)?;
    let loudest = samples.iter().fold(0f32, |peak, sample| peak.max(sample.abs()));
    if loudest > PEAK {
        samples.iter_mut().for_each(|sample| *sample *= PEAK / loudest);
    }
    Ok(samples)
}

/// The output of a generated mel.
///
/// # Errors
/// See [`waveform`].
pub fn output(mel: Features, config: &MelConfig, iterations: usize) -> Result<MelOutput, AudioError> {
    let waveform = waveform(&mel, config, iterations)?;
    Ok(MelOutput { mel, config: config.clone(), waveform })
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
