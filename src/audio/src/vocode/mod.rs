//! Sound from log-mel spectrograms without a network: the linear spectrum by non-negative least squares, the phase
//! by the fast Griffin-Lim algorithm.

mod inversion;
mod stream;
mod transform;

use crate::error::AudioError;
use crate::features::{Features, MelConfig};
use inversion::linear_magnitudes;
pub use stream::GriffinLimStream;
use transform::{Known, Transform};

/// Magnitude below which a spectrum counts as zero.
const TINY: f32 = 1e-12;

/// Reconstructs the waveform of a log-mel spectrogram made by [`crate::features::MelSpectrogram`]: `frames * hop_length` samples at
/// `config.sample_rate`.
///
/// `iterations` of the phase search, 30 to 60 for speech; more is better and slower. Nothing is random: the initial phases
/// are a fixed function of frame and bin.
///
/// # Errors
/// [`AudioError::Config`] if the configuration contradicts itself, [`AudioError::Shape`] if the features do not fit
/// it or are not finite.
pub fn griffin_lim(log_mel: &Features, config: &MelConfig, iterations: usize) -> Result<Vec<f32>, AudioError> {
    config.check()?;
    check_shape(log_mel, config)?;
    if log_mel.frames == 0 {
        return Ok(Vec::new());
    }
    let magnitudes = linear_magnitudes(log_mel, config);
    let mut transform = Transform::new(config, log_mel.frames);
    let signal = transform.search_phase(&magnitudes, iterations, &Known::default());
    let end = (config.padding() + log_mel.frames * config.hop_length).min(signal.len());
    Ok(signal[config.padding().min(end)..end].to_vec())
}

fn check_shape(log_mel: &Features, config: &MelConfig) -> Result<(), AudioError> {
    let fault = |problem| AudioError::Shape { frames: log_mel.frames, bins: log_mel.bins, problem };
    if log_mel.bins != config.n_mels || log_mel.data.len() != log_mel.frames * log_mel.bins {
        return Err(fault(format!("the configuration has {} bands", config.n_mels)));
    }
    if log_mel.data.iter().any(|value| !value.is_finite() || *value > MAX_LOG) {
        return Err(fault(format!("all values must be finite and at most {MAX_LOG}")));
    }
    Ok(())
}

/// Largest log-mel value for which sums fit into 32-bit float.
const MAX_LOG: f32 = 40.0;
