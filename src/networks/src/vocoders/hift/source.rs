//! The harmonic source: sines of the pitch and its multiples with noise, merged into one signal.

use std::borrow::Cow;
use std::f64::consts::{PI, TAU};

use flowmill_nn::NnError;
use flowmill_nn::random::RngKey;

use super::super::weights::{Loaded, Tensors};
use super::super::{Result, VocoderError};
use super::HiftSettings;

/// The sampling rate of the models that sum up the cycles of every sample.
const RATE_OF_SAMPLES: u32 = 22_050;

/// The random numbers of a source.
#[derive(Debug, Clone, Copy)]
pub enum SourceDraws<'a> {
    /// Given ones.
    Given {
        /// Phase of each harmonic at the start, in radians. Only models of 22.05 kHz use them; the first harmonic always starts at 0.
        phases: &'a [f32],
        /// Standard normal numbers `[sample][harmonic]`.
        noise: &'a [f32],
    },
    /// Drawn for each harmonic and mel frame.
    Seeded(RngKey),
}

impl SourceDraws<'_> {
    fn check(&self, harmonics: usize, samples: usize) -> Result<()> {
        match self {
            Self::Given { phases, noise }
                if phases.len() != harmonics || noise.len() != samples.saturating_mul(harmonics) =>
            {
                let expected = format!("{harmonics} phases and noise for {samples} samples");
                Err(NnError::shape("harmonic source", expected, &[phases.len(), noise.len()]).into())
            }
            _ => Ok(()),
        }
    }

    /// Returns the phase of each harmonic at the start, which is 0 for the first one.
    fn phases(&self, harmonics: usize) -> Vec<f64> {
        let drawn: Vec<f64> = match self {
            Self::Given { phases, .. } => phases.iter().map(|phase| f64::from(*phase)).collect(),
            Self::Seeded(rng_key) => {
                let uniforms = rng_key.purpose("phases").uniforms(harmonics);
                uniforms.into_iter().map(|uniform| (2.0 * f64::from(uniform) - 1.0) * PI).collect()
            }
        };
        std::iter::once(0.0).chain(drawn.into_iter().skip(1)).collect()
    }

    /// Returns the noise of a mel frame with this many numbers.
    fn noise(&self, frame: usize, count: usize) -> Cow<'_, [f32]> {
        match self {
            Self::Given { noise, .. } => Cow::Borrowed(&noise[frame * count..(frame + 1) * count]),
            Self::Seeded(rng_key) => Cow::Owned(rng_key.purpose("noise").sample(frame as u64).normals(count)),
        }
    }
}

/// The way in which the pitch becomes phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cycles {
    /// Summed up sample by sample, with a random phase for each harmonic but the first (`SineGen`).
    OfSamples,
    /// Summed up frame by frame, and interpolated between the middles of frames (`SineGen2`). The public code adds a random phase to the
    /// first sample only, which its reduction to frames drops.
    OfFrames,
}

/// The end of a signal, from which the next frames continue.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceState {
    /// The cycles of each harmonic.
    cycles: Vec<f64>,
    /// The number of frames before.
    frames: usize,
}

/// The source of a model.
#[derive(Debug, Clone)]
pub struct Source {
    weights: Vec<f32>,
    bias: f32,
    settings: HiftSettings,
    sample_rate: f64,
    /// Samples per mel frame.
    scale: usize,
    cycles: Cycles,
}

impl Source {
    pub(super) fn new(tensors: &mut Tensors<'_>, settings: &HiftSettings, scale: usize) -> Result<Self> {
        let load = |tensors: &mut Tensors<'_>| -> Loaded<(Vec<f32>, Vec<f32>)> {
            let name = "m_source.l_linear";
            let harmonics = tensors.needed_axis(&format!("{name}.weight"), 1)?;
            let weights = tensors.elements(&format!("{name}.weight"), &[1, harmonics])?;
            Ok((weights, tensors.elements(&format!("{name}.bias"), &[1])?))
        };
        let (weights, bias) = load(tensors)?;
        let sample_rate = settings.sample_rate(scale)?;
        let cycles = if sample_rate == RATE_OF_SAMPLES { Cycles::OfSamples } else { Cycles::OfFrames };
        if cycles == Cycles::OfFrames && scale <= 2 {
            return Err(VocoderError::Config(format!("{scale} samples per frame, expected at least 3")));
        }
        let bias = bias.iter().sum();
        let (settings, sample_rate) = (settings.clone(), f64::from(sample_rate));
        Ok(Self { weights, bias, settings, sample_rate, scale, cycles })
    }

    /// Returns the number of sines.
    pub fn harmonics(&self) -> usize {
        self.weights.len()
    }

    /// Returns the sines with noise, `[sample][harmonic]`, for a pitch in hertz per mel frame.
    ///
    /// # Errors
    /// When there are fewer or more given numbers than the source needs.
    pub fn sines(&self, pitch: &[f32], draws: &SourceDraws<'_>) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        draws.check(self.weights.len(), pitch.len().saturating_mul(self.scale))?;
        self.for_each_frame(&mut SourceState::default(), pitch, None, draws, |sines| all.extend_from_slice(sines));
        Ok(all)
    }

    /// Returns the merged signal for a pitch in hertz per mel frame.
    ///
    /// # Errors
    /// When there are fewer or more given numbers than the source needs.
    pub fn signal(&self, pitch: &[f32], draws: &SourceDraws<'_>) -> Result<Vec<f32>> {
        draws.check(self.weights.len(), pitch.len().saturating_mul(self.scale))?;
        Ok(self.continued(&mut SourceState::default(), pitch, None, draws))
    }

    /// Returns the merged signal of frames that continue those of `state`; `next` is the pitch of the frame after them, if there is one.
    pub(super) fn continued(
        &self,
        state: &mut SourceState,
        pitch: &[f32],
        next: Option<f32>,
        draws: &SourceDraws<'_>,
    ) -> Vec<f32> {
        let mut signal = Vec::with_capacity(pitch.len().saturating_mul(self.scale));
        self.for_each_frame(state, pitch, next, draws, |sines| {
            let samples = sines.chunks_exact(self.weights.len().max(1));
            let merged = samples.map(|sample| sample.iter().zip(&self.weights).map(|(a, b)| a * b).sum::<f32>());
            signal.extend(merged.map(|sample| (sample + self.bias).tanh()));
        });
        signal
    }

    /// Passes the sines of each mel frame to `sink`.
    fn for_each_frame(
        &self,
        state: &mut SourceState,
        pitch: &[f32],
        next: Option<f32>,
        draws: &SourceDraws<'_>,
        mut sink: impl FnMut(&[f32]),
    ) {
        let (harmonics, scale) = (self.weights.len(), self.scale);
        let phases = match self.cycles {
            Cycles::OfSamples => draws.phases(harmonics),
            Cycles::OfFrames => vec![0.0; harmonics],
        };
        let HiftSettings { nsf_alpha, nsf_sigma, nsf_voiced_threshold, .. } = self.settings;
        state.cycles.resize(harmonics, 0.0);
        let mut turns = vec![0.0f64; scale];
        let mut sines = vec![0.0f32; scale * harmonics];
        for (frame, hertz) in pitch.iter().enumerate() {
            let is_voiced = *hertz > nsf_voiced_threshold;
            // Without a pitch, the noise is about as loud as the sines.
            let amplitude = if is_voiced { nsf_sigma } else { nsf_alpha / 3.0 };
            let noise = draws.noise(state.frames, scale * harmonics);
            let is_first = state.frames == 0;
            state.frames += 1;
            let next = pitch.get(frame + 1).or(next.as_ref());
            for (harmonic, cycles) in state.cycles.iter_mut().enumerate() {
                let rate = |hertz: &f32| f64::from(*hertz) * (harmonic + 1) as f64 / self.sample_rate;
                match self.cycles {
                    Cycles::OfSamples => count_samples(cycles, rate(hertz), &mut turns),
                    Cycles::OfFrames => count_frames(cycles, rate(hertz), is_first, next.map(rate), &mut turns),
                }
                for (sample, turn) in turns.iter().enumerate() {
                    let place = sample * harmonics + harmonic;
                    let angle = TAU * turn + phases[harmonic];
                    let sine = if is_voiced { nsf_alpha * angle.sin() as f32 } else { 0.0 };
                    sines[place] = sine + amplitude * noise[place];
                }
            }
            sink(&sines);
        }
    }
}

/// Counts the cycles up to each sample of a frame.
fn count_samples(cycles: &mut f64, rate: f64, turns: &mut [f64]) {
    for turn in turns {
        *cycles = (*cycles + rate).fract();
        *turn = *cycles;
    }
}

/// Counts the cycles up to the middle of a frame, and interpolates them linearly between the middles of the frames; before the first and
/// after the last middle they stay.
fn count_frames(cycles: &mut f64, rate: f64, is_first: bool, next: Option<f64>, turns: &mut [f64]) {
    let count = turns.len() as f64;
    let per_frame = |rate: f64| rate.fract() * count;
    *cycles = (*cycles + per_frame(rate)).fract();
    let (before, after) = (if is_first { 0.0 } else { per_frame(rate) }, next.map_or(0.0, per_frame));
    for (sample, turn) in turns.iter_mut().enumerate() {
        let distance = (sample as f64 + 0.5) / count - 0.5;
        *turn = (*cycles + distance * if distance < 0.0 { before } else { after }).fract();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_are_counted_by_samples_or_interpolated_between_frames() {
        let (mut cycles, mut turns) = (0.5, [0.0; 4]);
        count_samples(&mut cycles, 0.25, &mut turns);
        assert_eq!((cycles, turns), (0.5, [0.75, 0.0, 0.25, 0.5]));
        let (mut cycles, mut turns) = (0.0, [0.0; 4]);
        count_frames(&mut cycles, 0.125, true, Some(0.0625), &mut turns);
        assert_eq!((cycles, turns), (0.5, [0.5, 0.5, 0.53125, 0.59375]));
        count_frames(&mut cycles, 0.0625, false, None, &mut turns);
        assert_eq!((cycles, turns), (0.75, [0.65625, 0.71875, 0.75, 0.75]));
    }
}
