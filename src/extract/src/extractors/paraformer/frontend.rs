//! Input of the encoder: Kaldi filter banks, seven frames stacked every six, in the chunks in which a stream would bring them.
//!
//! Chunks decide which frames there are: a chunk gives the stacked frames whose seven frames have arrived, only the last one fills
//! up what is missing with its last frame. Where the public implementation gives up on a rest (a recording that ends with a
//! chunk, a few milliseconds without a whole frame), so does this.

use std::ops::Range;

use flowmill_audio::{
    AudioError,
    features::{Features, KaldiConfig, KaldiFbank},
};

/// Samples per unit of a chunk: 60 ms.
pub(super) const SAMPLES_PER_UNIT: usize = 960;

/// The stacking of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stacking {
    /// Frames in a stack.
    pub frames: usize,
    /// Frames from one stack to the next.
    pub shift: usize,
}

impl Default for Stacking {
    fn default() -> Self {
        Self { frames: 7, shift: 6 }
    }
}

/// The stacked frames of a recording, chunk by chunk.
pub(super) struct Stacked {
    /// The stacked frames, `[stack][frame x band]`.
    pub(super) data: Vec<f32>,
    /// Stacks of each chunk; none is empty.
    pub(super) chunks: Vec<usize>,
}

/// Makes stacked frames of recordings at 16 kHz.
pub(super) struct Frontend {
    fbank: KaldiFbank,
    stacking: Stacking,
    samples_per_chunk: usize,
}

impl Frontend {
    /// Creates the front-end for chunks of `units` units.
    pub(super) fn new(stacking: Stacking, units: usize, n_mels: usize) -> Result<Self, AudioError> {
        let fbank = KaldiFbank::new(KaldiConfig { n_mels, ..KaldiConfig::paraformer() })?;
        Ok(Self { fbank, stacking, samples_per_chunk: units * SAMPLES_PER_UNIT })
    }

    /// The stacked frames of a recording.
    pub(super) fn stack(&self, samples: &[f32]) -> Result<Stacked, AudioError> {
        let frames_of = |samples: usize| self.frames_of(samples);
        let mut stacked = Stacked { data: Vec::new(), chunks: Vec::new() };
        if frames_of(samples.len()) == 0 {
            return Ok(stacked);
        }
        let fbank = self.fbank.compute(samples)?;
        // Copies of the first frame stand before it, so that the first stack is centered on it.
        let mut waiting = vec![0; (self.stacking.frames - 1) / 2];
        let mut seen = 0;
        for chunk in self.chunks(samples.len()) {
            let arrived = frames_of(chunk.end).min(fbank.frames);
            let fresh = arrived - seen;
            waiting.extend(seen..arrived);
            seen = arrived;
            let last = chunk.end - chunk.start < self.samples_per_chunk;
            // Too little for one stack waits for more; what the recording ends with in this state is dropped.
            if fresh > 0 && waiting.len() < self.stacking.frames {
                continue;
            }
            let stacks = self.take(&mut waiting, last);
            if !stacks.is_empty() {
                stacked.chunks.push(stacks.len());
                stacks.iter().for_each(|stack| stacked.data.extend(self.gather(&fbank, stack)));
            }
        }
        Ok(stacked)
    }

    /// Returns the number of whole frames in `samples` samples.
    fn frames_of(&self, samples: usize) -> usize {
        let config = self.fbank.config();
        let length = |milliseconds: f64| (f64::from(config.sample_rate) * milliseconds / 1000.0) as usize;
        let (length, shift) = (length(config.frame_length_ms), length(config.frame_shift_ms).max(1));
        if samples < length { 0 } else { (samples - length) / shift + 1 }
    }

    /// The samples of each chunk; only the last is shorter than the others.
    fn chunks(&self, samples: usize) -> impl Iterator<Item = Range<usize>> {
        let length = self.samples_per_chunk;
        (0..samples).step_by(length).map(move |start| start..samples.min(start + length))
    }

    /// Takes stacks, as indices of frames, from those that wait; `last` fills the last ones up.
    fn take(&self, waiting: &mut Vec<usize>, last: bool) -> Vec<Vec<usize>> {
        let Stacking { frames, shift } = self.stacking;
        let wanted = waiting.len().saturating_sub((frames - 1) / 2).div_ceil(shift);
        let mut stacks = Vec::with_capacity(wanted);
        for index in 0..wanted {
            let start = index * shift;
            let Some(rest) = waiting.get(start..).filter(|rest| !rest.is_empty()) else { break };
            if rest.len() < frames && !last {
                break;
            }
            let end = rest.last().copied().unwrap_or(0);
            stacks.push((0..frames).map(|frame| rest.get(frame).copied().unwrap_or(end)).collect());
        }
        let used = (stacks.len() * shift).min(waiting.len().saturating_sub(1));
        waiting.drain(..used);
        stacks
    }

    fn gather<'a>(&self, fbank: &'a Features, stack: &'a [usize]) -> impl Iterator<Item = f32> + 'a {
        stack.iter().flat_map(|frame| fbank.frame(*frame).iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(samples: usize) -> Vec<usize> {
        let frontend = Frontend::new(Stacking::default(), 4, 80).unwrap();
        frontend.stack(&vec![0.1; samples]).unwrap().chunks
    }

    #[test]
    fn a_chunk_gives_the_stacks_that_are_whole() {
        // 3840 samples have 22 frames, 25 with the copies before the first: stacks at 0, 6, 12 and 18.
        assert_eq!(chunks(3840), [4]);
        assert_eq!(chunks(2 * 3840), [4, 4]);
        // The last chunk fills up.
        assert_eq!(chunks(3840 + 1600), [4, 2]);
    }

    #[test]
    fn rests_without_a_stack_are_dropped() {
        assert!(chunks(0).is_empty() && chunks(399).is_empty());
        assert!(chunks(879).is_empty(), "three frames and the copies of the first make six");
        assert_eq!(chunks(880), [1]);
    }
}
