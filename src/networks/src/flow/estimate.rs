//! The estimator alone, on given states and conditions, as other runtimes call it.

use super::estimator::Conditions;
use super::rows::Rows;
use super::{Flow, FlowError, Result};
use candle_core::Tensor;
use flowmill_nn::{Context, Ragged, Value};

/// The inputs of an estimator for a batch whose items are padded to the same number of frames.
#[derive(Debug, Clone, Copy)]
pub struct EstimatorInputs<'a> {
    /// The state, `[item, frame, bin]`.
    pub state: &'a Tensor,
    /// The encoder's mel, `[item, frame, bin]`.
    pub mu: &'a Tensor,
    /// The time of each item.
    pub times: &'a [f32],
    /// The speaker: `[item, bin]` if it is projected, otherwise `[item, value]`.
    pub speaker: &'a Tensor,
    /// Prompt frames `[item, frame, bin]`, zero elsewhere; none if the estimator has no prompt.
    pub prompt: Option<&'a Tensor>,
    /// The number of valid frames of each item.
    pub lengths: &'a [usize],
}

impl Flow {
    /// Returns the output of the estimator, `[item, frame, bin]`, without chunk-causal masks. Frames beyond the end of an item are
    /// those of the public implementation: computed by a DiT, zero for a U-Net. The settings `gaussian_skip` and
    /// `mel_normalisation`, which work around the estimator, have no effect.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn estimate(&self, context: &Context, inputs: &EstimatorInputs<'_>) -> Result<Tensor> {
        let (items, frames, bins) = inputs.state.dims3()?;
        if inputs.lengths.len() != items || inputs.times.len() != items {
            let message =
                format!("{} lengths and {} times for {items} items", inputs.lengths.len(), inputs.times.len());
            return Err(FlowError::Batch { item: 0, message });
        }
        let computed = if self.estimator.computes_padding() { vec![frames; items] } else { inputs.lengths.to_vec() };
        let padded = Ragged::padded(&computed, frames)?;
        let packed = |tensor: &Tensor| -> Result<Value> {
            let rows = tensor.reshape((items * frames, tensor.elem_count() / (items * frames).max(1)))?;
            Ok(Value::plain(rows)?.pack_rows(&padded)?)
        };
        let conditions = Conditions {
            mu: packed(inputs.mu)?,
            speaker: Value::plain(inputs.speaker.clone())?,
            prompt: inputs.prompt.map(packed).transpose()?,
            kept: vec![1.0; items],
        };
        let all = Ragged::packed(&computed);
        let rows = Rows { valid: all.shortened(inputs.lengths)?, all };
        let state = packed(inputs.state)?;
        let velocity = self.estimator.forward(context, &state, inputs.times, &conditions, &rows, false)?;
        Ok(velocity.unpack_rows(&padded)?.tensor().reshape((items, frames, bins))?)
    }
}
