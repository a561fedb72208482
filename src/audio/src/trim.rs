//! Silence at the ends of a recording, detected like in `librosa.effects.trim`.

use crate::error::AudioError;
use crate::features::require;

/// Settings that define silence.
#[derive(Debug, Clone, PartialEq)]
pub struct TrimConfig {
    /// Distance below the loudest frame from which a frame is silent, in decibels.
    pub top_db: f64,
    /// Number of samples per frame.
    pub frame_length: usize,
    /// Samples from one frame to the next.
    pub hop_length: usize,
}

impl Default for TrimConfig {
    fn default() -> Self {
        Self { top_db: 20.0, frame_length: 2048, hop_length: 512 }
    }
}

/// Power below which librosa does not distinguish levels.
const POWER_FLOOR: f64 = 1e-10;

/// Returns the range of samples, first and one past the last, between the silence at both ends; `(0, 0)` if everything is
/// silent.
///
/// A frame's level is its mean square over `frame_length` samples centered on it (zeros beyond the ends), relative to the
/// loudest frame.
///
/// # Errors
/// [`AudioError::Config`] if a length is 0 or the threshold is not positive.
pub fn trim_silence(samples: &[f32], config: &TrimConfig) -> Result<(usize, usize), AudioError> {
    require(config.frame_length > 0, "frame_length", config.frame_length, || "at least 1".into())?;
    require(config.hop_length > 0, "hop_length", config.hop_length, || "at least 1".into())?;
    require(config.top_db > 0.0, "top_db", config.top_db, || "above 0".into())?;
    let power = frame_powers(samples, config);
    let loudest = power.iter().copied().fold(0.0, f64::max);
    if loudest == 0.0 {
        return Ok((0, 0));
    }
    let level = |power: f64| 10.0 * (power.max(POWER_FLOOR) / loudest.max(POWER_FLOOR)).log10();
    let sounds = |power: &f64| level(*power) > -config.top_db;
    let Some(first) = power.iter().position(sounds) else { return Ok((0, 0)) };
    let last = power.iter().rposition(sounds).unwrap_or(first);
    Ok((first * config.hop_length, ((last + 1) * config.hop_length).min(samples.len())))
}

/// Returns the mean square of every frame; frame `i` is centered on sample `i * hop_length`.
fn frame_powers(samples: &[f32], config: &TrimConfig) -> Vec<f64> {
    let half = config.frame_length / 2;
    let padded = samples.len() + 2 * half;
    if padded < config.frame_length {
        return Vec::new();
    }
    let frames = 1 + (padded - config.frame_length) / config.hop_length;
    let square = |start: usize| {
        // Positions are in the padded signal; only the overlap with the samples counts.
        let from = start.saturating_sub(half).min(samples.len());
        let to = (start + config.frame_length).saturating_sub(half).min(samples.len());
        let sum: f64 = samples[from..to].iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        sum / config.frame_length as f64
    };
    (0..frames).map(|frame| square(frame * config.hop_length)).collect()
}
