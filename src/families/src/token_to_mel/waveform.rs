//! Waveforms of generated mels.

use flowmill_audio::AudioError;
use flowmill_audio::features::{Features, MelConfig};
use flowmill_audio::pitch::{PitchConfig, track_pitch};
use flowmill_audio::vocode::griffin_lim;
use flowmill_family::MelOutput;

/// The loudest sample of a written waveform: a generated mel may ask for more than a WAV file can hold.
const PEAK: f32 = 0.98;

/// The waveform of a log-mel, no louder than full scale.
///
/// # Errors
/// When the mel does not fit its settings.
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
/// As [`waveform`].
pub fn output(mel: Features, config: &MelConfig, iterations: usize) -> Result<MelOutput, AudioError> {
    let waveform = waveform(&mel, config, iterations)?;
    Ok(MelOutput { mel, config: config.clone(), waveform })
}

/// F0 in Hz per mel frame, `None` where unvoiced.
///
/// # Errors
/// When the settings do not fit together.
pub fn pitch(samples: &[f32], config: &MelConfig) -> Result<Vec<Option<f32>>, AudioError> {
    let settings =
        PitchConfig { sample_rate: config.sample_rate, hop_length: config.hop_length, ..PitchConfig::default() };
    let track = track_pitch(samples, &settings)?;
    Ok(track.f0.iter().zip(&track.voiced).map(|(f0, voiced)| voiced.then_some(*f0)).collect())
}
