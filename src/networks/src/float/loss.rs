//! The training loss: rectified flow on the current frames, reconstruction of the previous ones.

use super::model::{Conditions, elements};
use super::{Batch, Draws, Float, FloatError, Result};
use flowmill_nn::objectives::FlowMatching;
use flowmill_nn::{Context, Ragged, Value, host};

/// Straight paths from noise to data.
const RECTIFIED: FlowMatching = FlowMatching { sigma_min: 0.0 };

/// The loss of a batch.
#[derive(Debug, Clone)]
pub struct TrainLoss {
    /// The sum of both parts.
    pub total: Value,
    /// The mean absolute error of the velocity on the current frames.
    pub current: f64,
    /// The mean absolute error of the output on the previous frames, against their motion; 0 if no window has previous frames.
    pub previous: f64,
    /// The number of current frames times channels, which is the weight in averages over batches.
    pub weight: f64,
}

impl Float {
    /// Returns the loss of a batch: the mean over current frames of `|output - (x1 - noise)|`, plus the mean over previous frames of
    /// `|output - motion|`. Dropped conditions are zero in the input only; the target is always the real motion.
    ///
    /// # Errors
    /// [`FloatError::Item`] if the batch or the draws do not match the model.
    pub fn loss(&self, context: &Context, batch: &Batch, draws: &Draws) -> Result<TrainLoss> {
        let (output, targets) = self.output(context, batch, draws)?;
        let width = self.config().dim_w;
        let (mut current, mut previous) = (Vec::new(), Vec::new());
        for (range, missing) in self.windows(batch).ranges().iter().zip(&batch.missing) {
            let first = range.start + self.config().num_prev_frames;
            previous.extend(range.start + missing..first);
            current.extend(first..range.end);
        }
        let error = |rows: &[usize]| -> Result<Value> {
            if rows.is_empty() {
                return Ok(Value::from_vec(vec![0.0], &[])?);
            }
            let selected = rows.iter().flat_map(|row| &targets[row * width..(row + 1) * width]).copied().collect();
            let target = Value::from_vec(selected, &[rows.len(), width])?;
            Ok(output.select_rows(rows)?.mean_absolute_error(&target, &Ragged::packed(&[rows.len()]))?)
        };
        let parts = [error(&current)?, error(&previous)?];
        let numbers = host::scalars(&[&parts[0], &parts[1]])?;
        let total = if previous.is_empty() { parts[0].clone() } else { parts[0].add(&parts[1])? };
        let weight = (current.len() * width) as f64;
        Ok(TrainLoss { total, current: f64::from(numbers[0]), previous: f64::from(numbers[1]), weight })
    }

    /// Returns the output of the network at the point of the loss, `[row, channel]`, for previous and current frames.
    ///
    /// # Errors
    /// Like [`loss`](Self::loss).
    pub fn predict(&self, context: &Context, batch: &Batch, draws: &Draws) -> Result<Value> {
        Ok(self.output(context, batch, draws)?.0)
    }

    fn windows(&self, batch: &Batch) -> Ragged {
        let frames = batch.lengths.iter().map(|length| length + self.config().num_prev_frames);
        Ragged::packed(&frames.collect::<Vec<_>>())
    }

    /// Returns the output and its targets, both `[row, channel]`: the motion of previous frames, the velocity of current ones.
    fn output(&self, context: &Context, batch: &Batch, draws: &Draws) -> Result<(Value, Vec<f32>)> {
        batch.check(self.config())?;
        let (width, previous) = (self.config().dim_w, self.config().num_prev_frames);
        let frames: usize = batch.lengths.iter().sum();
        if draws.noise.dims() != [frames, width] || [draws.times.len(), draws.kept.len()] != [batch.len(); 2] {
            let message = format!("noise of {:?} for {frames} frames of {width} channels", draws.noise.dims());
            return Err(FloatError::Item { item: 0, message });
        }
        let windows = self.windows(batch);
        let mut motion = elements(&batch.motion)?;
        let rows = |range: &std::ops::Range<usize>| (range.start + previous) * width..range.end * width;
        let data = windows.ranges().iter().flat_map(|range| &motion[rows(range)]).copied().collect();
        let data = host::tensor(data, &[frames, width])?;
        let noise = host::contiguous(&draws.noise)?;
        let point = RECTIFIED.point(&data, &noise, &draws.times, &Ragged::packed(&batch.lengths))?;
        let mut targets = motion.clone();
        let (positions, velocities) = (elements(point.position.tensor())?, elements(point.velocity.tensor())?);
        let mut first = 0;
        for range in windows.ranges() {
            let to = rows(range);
            let from = first..first + to.len();
            motion[to.clone()].copy_from_slice(&positions[from.clone()]);
            targets[to].copy_from_slice(&velocities[from.clone()]);
            first = from.end;
        }
        let speech = self.project_audio(context, &batch.audio)?;
        let (reference, emotion) = (elements(&batch.reference)?, elements(&batch.emotion)?);
        let (kept, missing) = (&draws.kept, &batch.missing);
        let conditions = Conditions { speech: &speech, reference: &reference, emotion: &emotion, kept, missing };
        let output = self.velocity(context, &motion, &conditions, &draws.times, &batch.lengths)?;
        Ok((output, targets))
    }
}
