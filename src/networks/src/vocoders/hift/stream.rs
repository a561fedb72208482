//! HiFT for a mel that arrives in parts. The harmonic source continues from the cycles that it has counted, so it is the source of the
//! whole mel; public inference code keeps its last samples instead and fades the sound over.

use flowmill_audio::features::Features;
use flowmill_nn::random::RngKey;

use super::super::stream::{Frames, VocoderStream, finite};
use super::source::{SourceDraws, SourceState};
use super::{Hift, Result};

/// The stream of a HiFT.
pub(super) struct HiftStream<'a> {
    hift: &'a Hift,
    rng_key: RngKey,
    frames: Frames,
    /// The number of frames whose sound was returned.
    done: usize,
    /// Pitch of the frames whose source is not made yet.
    pitch: Vec<f32>,
    /// The number of frames whose pitch is known.
    pitched: usize,
    source: Vec<f32>,
    /// The number of samples that were dropped from the start of `source`.
    dropped: usize,
    state: SourceState,
}

impl<'a> HiftStream<'a> {
    pub fn new(hift: &'a Hift, rng_key: RngKey) -> Self {
        let frames = Frames::new(hift.form.n_mels);
        let (pitch, source, state) = (Vec::new(), Vec::new(), SourceState::default());
        Self { hift, rng_key, frames, done: 0, pitch, pitched: 0, source, dropped: 0, state }
    }

    /// Adds the source of all frames whose pitch, and that of the next frame, do not depend on frames to come.
    fn extend_source(&mut self, is_last: bool) -> Result<()> {
        let (total, reach) = (self.frames.total(), self.hift.pitch.reach());
        let end = if is_last { total } else { total.saturating_sub(reach) };
        if end > self.pitched {
            let first = self.pitched.saturating_sub(reach);
            let pitch = self.hift.pitch(&self.frames.value(first, total)?)?;
            self.pitch.extend_from_slice(&pitch[self.pitched - first..end - first]);
            self.pitched = end;
        }
        let count = if is_last { self.pitch.len() } else { self.pitch.len().saturating_sub(1) };
        let next = self.pitch.get(count).copied();
        let draws = SourceDraws::Seeded(self.rng_key);
        let made = self.hift.source.continued(&mut self.state, &self.pitch[..count], next, &draws);
        self.source.extend(made);
        self.pitch.drain(..count);
        Ok(())
    }
}

impl VocoderStream for HiftStream<'_> {
    fn push(&mut self, mel: &Features, is_last: bool) -> Result<Vec<f32>> {
        self.hift.form.check_features(mel)?;
        self.frames.push(mel);
        self.extend_source(is_last)?;
        let (hop, context) = (self.hift.form.hop_length, self.hift.context.max(1));
        let sourced = (self.dropped + self.source.len()) / hop;
        let end = if is_last { sourced } else { sourced.saturating_sub(context) };
        if end <= self.done {
            return Ok(Vec::new());
        }
        let first = self.done.saturating_sub(context);
        let source = &self.source[first * hop - self.dropped..sourced * hop - self.dropped];
        let made = self.hift.decode(&self.frames.value(first, sourced)?, source)?;
        let [from, to] = [self.done, end].map(|frame| made.len().min((frame - first) * hop));
        self.done = end;
        let needed = end.saturating_sub(context);
        self.frames.keep_from(needed.min(self.pitched.saturating_sub(self.hift.pitch.reach())));
        let dropped = needed * hop;
        self.source.drain(..dropped - self.dropped);
        self.dropped = dropped;
        finite(made[from..to].to_vec())
    }
}
