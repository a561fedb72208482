//! Sound of mels that arrive in parts.

use flowmill_audio::features::Features;
use flowmill_nn::Value;

use super::{MelForm, Result, VocoderError};

/// The sound of a mel that arrives in parts.
pub trait VocoderStream {
    /// Adds the next frames, and returns the samples that follow those of the calls before. The last frames of a part wait for the next one,
    /// as far as their sound depends on it.
    ///
    /// # Errors
    /// See [`Vocoder::vocode`](super::Vocoder::vocode).
    fn push(&mut self, mel: &Features, is_last: bool) -> Result<Vec<f32>>;
}

/// Frames of a mel, of which the first ones are dropped when nothing needs them any more.
pub(super) struct Frames {
    rows: Vec<f32>,
    bands: usize,
    /// The number of dropped frames.
    first: usize,
}

impl Frames {
    pub fn new(bands: usize) -> Self {
        Self { rows: Vec::new(), bands, first: 0 }
    }

    /// Returns the number of frames so far.
    pub fn total(&self) -> usize {
        self.first + self.rows.len() / self.bands.max(1)
    }

    pub fn push(&mut self, mel: &Features) {
        self.rows.extend_from_slice(&mel.data);
    }

    /// Returns frames `[frame, band]`, which were not dropped.
    pub fn value(&self, from: usize, to: usize) -> flowmill_nn::Result<Value> {
        let rows = &self.rows[(from - self.first) * self.bands..(to - self.first) * self.bands];
        Value::from_vec(rows.to_vec(), &[to - from, self.bands])
    }

    /// Drops the frames before `frame`.
    pub fn keep_from(&mut self, frame: usize) {
        let frame = frame.clamp(self.first, self.total());
        self.rows.drain(..(frame - self.first) * self.bands);
        self.first = frame;
    }
}

/// Returns samples if all are finite.
pub(super) fn finite(samples: Vec<f32>) -> Result<Vec<f32>> {
    match samples.iter().all(|sample| sample.is_finite()) {
        true => Ok(samples),
        false => Err(VocoderError::NotFinite),
    }
}

/// The stream of a vocoder whose samples depend only on the frames around them.
pub(super) struct PieceStream<'a, D> {
    form: &'a MelForm,
    context: usize,
    frames: Frames,
    /// The number of frames whose sound was returned.
    done: usize,
    decode: D,
}

impl<'a, D: FnMut(&Value) -> Result<Vec<f32>>> PieceStream<'a, D> {
    /// Begins a stream: `decode` returns the sound of a mel `[frame, band]`, whose samples depend on `context` frames before and after them.
    pub fn new(form: &'a MelForm, context: usize, decode: D) -> Self {
        Self { form, context: context.max(1), frames: Frames::new(form.n_mels), done: 0, decode }
    }
}

impl<D: FnMut(&Value) -> Result<Vec<f32>>> VocoderStream for PieceStream<'_, D> {
    fn push(&mut self, mel: &Features, is_last: bool) -> Result<Vec<f32>> {
        self.form.check_features(mel)?;
        self.frames.push(mel);
        let total = self.frames.total();
        let end = if is_last { total } else { total.saturating_sub(self.context) };
        if end <= self.done {
            return Ok(Vec::new());
        }
        let first = self.done.saturating_sub(self.context);
        let made = (self.decode)(&self.frames.value(first, total)?)?;
        let hop = self.form.hop_length;
        // The last frames of a mel may have fewer samples.
        let [from, to] = [self.done, end].map(|frame| made.len().min((frame - first) * hop));
        self.done = end;
        self.frames.keep_from(end.saturating_sub(self.context));
        finite(made[from..to].to_vec())
    }
}
