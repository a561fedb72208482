//! Windows of clips, and batches of them.

use super::{FloatConfig, FloatError, Result};
use candle_core::{Device, Tensor};

/// One window of a clip: its previous and its current frames.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Motion `[frame, channel]`: first all previous frames (zero where the clip has none), then 1 to `num_frames` current ones.
    pub motion: Vec<f32>,
    /// Speech features `[frame, feature]` of the same frames, zero where the clip has none.
    pub audio: Vec<f32>,
    /// The number of previous frames that the clip does not have: all for the first window. They are not part of the loss.
    pub missing: usize,
    /// Motion of the reference picture `[channel]`.
    pub reference: Vec<f32>,
    /// Probability of each emotion `[emotion]`.
    pub emotion: Vec<f32>,
    /// Identifies the window in the random draws.
    pub sample: u64,
}

/// A batch of windows. Windows with fewer frames are not padded.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Motion `[row, channel]`: the frames of all windows, one after the other.
    pub motion: Tensor,
    /// Speech features `[row, feature]` of the same frames.
    pub audio: Tensor,
    /// References `[item, channel]`.
    pub reference: Tensor,
    /// Emotions `[item, emotion]`.
    pub emotion: Tensor,
    /// The number of current frames of each window.
    pub lengths: Vec<usize>,
    /// The number of previous frames of each window that its clip does not have.
    pub missing: Vec<usize>,
    /// Identifiers of the windows in the random draws, so that the draws for a window do not depend on its batch.
    pub samples: Vec<u64>,
}

impl Batch {
    /// Collects windows into a batch.
    ///
    /// # Errors
    /// [`FloatError::Item`] names the window with wrong sizes.
    pub fn collate(windows: &[Window], config: &FloatConfig) -> Result<Self> {
        let FloatConfig { dim_w, dim_e, num_prev_frames: previous, .. } = *config;
        for (item, window) in windows.iter().enumerate() {
            let frames = window.motion.len() / dim_w.max(1);
            let fits = window.motion.len() == frames * dim_w
                && (previous + 1..=config.window()).contains(&frames)
                && window.audio.len() == frames * config.audio_width()
                && window.missing <= previous
                && window.reference.len() == dim_w
                && window.emotion.len() == dim_e;
            if !fits {
                let message = format!(
                    "{} motion values, {} speech values, {} reference values and {} emotions are no window of up to {} \
                     frames of {dim_w} channels and {} speech features",
                    window.motion.len(),
                    window.audio.len(),
                    window.reference.len(),
                    window.emotion.len(),
                    config.window(),
                    config.audio_width()
                );
                return Err(FloatError::Item { item, message });
            }
        }
        let rows: Vec<usize> = windows.iter().map(|window| window.motion.len() / dim_w.max(1)).collect();
        let (items, total) = (windows.len(), rows.iter().sum::<usize>());
        let joined = |part: fn(&Window) -> &Vec<f32>, rows: usize, width: usize| {
            let elements: Vec<f32> = windows.iter().flat_map(part).copied().collect();
            Tensor::from_vec(elements, (rows, width), &Device::Cpu)
        };
        Ok(Self {
            motion: joined(|window| &window.motion, total, dim_w)?,
            audio: joined(|window| &window.audio, total, config.audio_width())?,
            reference: joined(|window| &window.reference, items, dim_w)?,
            emotion: joined(|window| &window.emotion, items, dim_e)?,
            lengths: rows.iter().map(|rows| rows - previous).collect(),
            missing: windows.iter().map(|window| window.missing).collect(),
            samples: windows.iter().map(|window| window.sample).collect(),
        })
    }

    /// Returns the number of windows.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Returns whether there are no windows.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Returns an error unless the batch matches the model.
    pub(super) fn check(&self, config: &FloatConfig) -> Result<()> {
        let items = self.len();
        let rows = self.lengths.iter().sum::<usize>() + items * config.num_prev_frames;
        let refuse = |item, message| Err(FloatError::Item { item, message });
        if let Some(item) = self.lengths.iter().position(|length| !(1..=config.num_frames).contains(length)) {
            return refuse(item, format!("{} frames instead of 1 to {}", self.lengths[item], config.num_frames));
        }
        if let Some(item) = self.missing.iter().position(|missing| *missing > config.num_prev_frames) {
            return refuse(
                item,
                format!("{} of {} previous frames are missing", self.missing[item], config.num_prev_frames),
            );
        }
        let fits = items > 0
            && self.motion.dims() == [rows, config.dim_w]
            && self.audio.dims() == [rows, config.audio_width()]
            && self.reference.dims() == [items, config.dim_w]
            && self.emotion.dims() == [items, config.dim_e]
            && [self.missing.len(), self.samples.len()] == [items; 2];
        if !fits {
            let shapes =
                [&self.motion, &self.audio, &self.reference, &self.emotion].map(|tensor| tensor.dims().to_vec());
            return refuse(0, format!("tensors of {shapes:?} do not match {items} windows of {rows} frames together"));
        }
        Ok(())
    }
}
