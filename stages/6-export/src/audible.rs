//! Makes a mel audible and visible.

use std::fs::File;
use std::path::Path;

use flowmill_audio::features::{Features, MelConfig};
use flowmill_audio::pitch::{PitchConfig, track_pitch};
use flowmill_audio::spectrogram_image::{Panel, write_png};
use flowmill_audio::vocode::griffin_lim;

use crate::ExportError;

/// The loudest sample of a written waveform: a generated mel may ask for more than a WAV file can hold.
const PEAK: f32 = 0.98;

/// The waveform of a log-mel, no louder than full scale.
///
/// # Errors
/// [`ExportError::Audio`] when the mel does not fit its settings.
pub fn waveform(mel: &Features, config: &MelConfig, iterations: usize) -> Result<Vec<f32>, ExportError> {
    let mut samples = griffin_lim(mel, config, iterations)?;
    let loudest = samples.iter().fold(0f32, |peak, sample| peak.max(sample.abs()));
    if loudest > PEAK {
        samples.iter_mut().for_each(|sample| *sample *= PEAK / loudest);
    }
    Ok(samples)
}

/// Writes a waveform as 16-bit WAV.
///
/// # Errors
/// [`ExportError::File`], [`ExportError::Audio`].
pub fn write_wav(path: &Path, samples: &[f32], sample_rate: u32) -> Result<(), ExportError> {
    let file = File::create(path).map_err(|source| ExportError::file(path, source))?;
    flowmill_audio::write_wav(file, samples, sample_rate)?;
    Ok(())
}

/// Writes a picture of the generated mel under the real one.
///
/// # Errors
/// [`ExportError::File`], [`ExportError::Audio`].
pub fn write_picture(
    path: &Path,
    title: &str,
    real: &Features,
    generated: &Features,
    config: &MelConfig,
) -> Result<(), ExportError> {
    let file = File::create(path).map_err(|source| ExportError::file(path, source))?;
    let panels = [Panel { title: "real", log_mel: real }, Panel { title: "generated", log_mel: generated }];
    write_png(std::io::BufWriter::new(file), title, &panels, config)?;
    Ok(())
}

/// F0 in Hz per mel frame, `None` where unvoiced.
///
/// # Errors
/// [`ExportError::Audio`].
pub fn pitch(samples: &[f32], config: &MelConfig) -> Result<Vec<Option<f32>>, ExportError> {
    let settings =
        PitchConfig { sample_rate: config.sample_rate, hop_length: config.hop_length, ..PitchConfig::default() };
    let track = track_pitch(samples, &settings)?;
    Ok(track.f0.iter().zip(&track.voiced).map(|(f0, voiced)| voiced.then_some(*f0)).collect())
}
