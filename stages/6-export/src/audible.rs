//! Makes a mel audible and visible.

use std::fs::File;
use std::path::Path;

use flowmill_audio::features::{Features, MelConfig};
use flowmill_audio::pitch::{PitchConfig, track_pitch};

use crate::ExportError;

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
    let file = std::io::BufWriter::new(file);
    Ok(flowmill_stage_train::audible::write_picture(file, title, real, generated, config)?)
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
