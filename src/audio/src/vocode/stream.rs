//! Griffin-Lim for a mel that arrives in parts.

use super::inversion::linear_magnitudes;
use super::transform::{Known, Transform};
use super::{check_shape, griffin_lim};
use crate::error::AudioError;
use crate::features::{Features, MelConfig};

/// The sound of a mel that arrives in parts, without a break between them: the phases of a part continue the samples before it. The sound
/// of a mel in one part is that of [`griffin_lim`].
///
/// The last frames of a part wait for the next one, because their windows reach into it.
#[derive(Debug, Clone)]
pub struct GriffinLimStream {
    config: MelConfig,
    iterations: usize,
    /// Frames that the next part needs: some before the end of the sound, and those that wait.
    mel: Vec<f32>,
    /// The number of frames before them.
    first: usize,
    /// The number of frames whose sound is returned.
    done: usize,
    /// The last samples that were returned, from the start of the first frame of `mel` on.
    known: Vec<f32>,
    /// Samples after them from the part before, into which the next part is faded.
    tail: Vec<f32>,
}

impl GriffinLimStream {
    /// Begins a sound; see [`griffin_lim`].
    ///
    /// # Errors
    /// [`AudioError::Config`] if the configuration contradicts itself.
    pub fn new(config: MelConfig, iterations: usize) -> Result<Self, AudioError> {
        config.check()?;
        let (mel, known, tail) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { config, iterations, mel, first: 0, done: 0, known, tail })
    }

    /// Returns the number of frames that a window reaches over.
    fn overlap(&self) -> usize {
        self.config.n_fft.div_ceil(self.config.hop_length)
    }

    /// Adds the next frames, and returns the samples that follow those of the calls before. After the last part, the samples are as many as
    /// frames times hops.
    ///
    /// # Errors
    /// [`AudioError::Shape`] if the features do not fit the configuration or are not finite.
    pub fn push(&mut self, log_mel: &Features, is_last: bool) -> Result<Vec<f32>, AudioError> {
        check_shape(log_mel, &self.config)?;
        if self.first == 0 && self.mel.is_empty() && is_last {
            return griffin_lim(log_mel, &self.config, self.iterations);
        }
        self.mel.extend_from_slice(&log_mel.data);
        let bins = self.config.n_mels;
        let frames = self.mel.len() / bins;
        let total = self.first + frames;
        let end = if is_last { total } else { total.saturating_sub(2 * self.overlap()) };
        if end <= self.done {
            return Ok(Vec::new());
        }
        let (hop, padding) = (self.config.hop_length, self.config.padding());
        let signal = {
            let features = Features::new(self.mel.clone(), frames, bins)?;
            let magnitudes = linear_magnitudes(&features, &self.config);
            // Sound begins after the padding of its first frame.
            let start = if self.first == 0 { padding } else { 0 };
            let known = Known { start, samples: &self.known, first_frame: self.first };
            Transform::new(&self.config, frames).search_phase(&magnitudes, self.iterations, &known)
        };
        let place = |frame: usize| (padding + (frame - self.first) * hop).min(signal.len());
        let mut samples = signal[place(self.done)..place(end)].to_vec();
        let fade = self.tail.len().min(hop).min(samples.len());
        for (at, (new, old)) in samples.iter_mut().zip(&self.tail[..fade]).enumerate() {
            let share = (at as f32 + 1.0) / (fade as f32 + 1.0);
            *new = share * *new + (1.0 - share) * old;
        }
        self.tail = signal[place(end)..place(total)].to_vec();
        self.keep(&samples, end);
        Ok(samples)
    }

    /// Drops what the next part does not need: everything but some frames before the end of the sound, and the samples of those.
    fn keep(&mut self, samples: &[f32], end: usize) {
        let (hop, padding, bins) = (self.config.hop_length, self.config.padding(), self.config.n_mels);
        let first = end.saturating_sub(2 * self.overlap());
        // The first window of a later part must not begin before the sound.
        let first = if first * hop < padding { 0 } else { first };
        self.known.extend_from_slice(samples);
        let reach = (end - first) * hop + if first == 0 { 0 } else { padding };
        let surplus = self.known.len().saturating_sub(reach);
        self.known.drain(..surplus);
        self.mel.drain(..(first - self.first) * bins);
        (self.first, self.done) = (first, end);
    }
}
