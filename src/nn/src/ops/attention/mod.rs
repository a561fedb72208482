//! Multi-head scaled dot-product attention.

#[cfg(feature = "cuda")]
mod by_kernel;
mod composition;

use crate::gradients::{Flow, Gradient};
use crate::kernels::attention::{self as kernel, AttentionMask, Inputs, Item, Relative, Settings};
use crate::ops::operation::{apply, composed};
use crate::random::RngKey;
use crate::saved_tensor::SavedTensor;
use crate::tape::record;
use crate::{NnError, Ragged, Result, Value, host};
use candle_core::Tensor;

/// Settings of an attention operation.
#[derive(Debug, Clone)]
pub struct Attention<'a> {
    /// Number of heads; the channels of the inputs are divided among them, head by head.
    pub heads: usize,
    /// Keys that a query sees, by position.
    pub attention_mask: AttentionMask,
    /// The rows of the queries of each item.
    pub queries: &'a Ragged,
    /// The visible rows of the keys and values of each item, without padding.
    pub keys: &'a Ragged,
    /// Rate and random stream of the dropout on the weights.
    pub dropout: Option<(f32, RngKey)>,
}

/// Relative positions as in the conformer (Transformer-XL, appendix B; ESPnet's form): a query i scores a key j by
/// `(q_i + u) k_j + (q_i + v) p_(i-j)`.
#[derive(Debug, Clone, Copy)]
pub struct RelativePositions<'a> {
    /// Projected encodings `[2 time - 1, head x channel]`, from distance `time - 1` (the key in the past) to `1 - time`.
    pub encodings: &'a Value,
    /// `u`, `[head, channel]`.
    pub content_bias: &'a Value,
    /// `v`, `[head, channel]`.
    pub position_bias: &'a Value,
}

fn settings(queries: &Value, keys: &Value, values: &Value, attention: &Attention) -> Result<(Settings, Vec<Item>)> {
    let width = queries.width();
    if attention.heads == 0 || !width.is_multiple_of(attention.heads) {
        return Err(NnError::invalid("attention", format!("{width} channels in {} heads", attention.heads)));
    }
    if keys.width() != width || values.dims() != keys.dims() {
        return Err(NnError::shape("attention", format!("keys and values [.., {width}]"), values.dims()));
    }
    if queries.rows() != attention.queries.total() || keys.rows() != attention.keys.total() {
        return Err(NnError::shape("attention", format!("{} query rows", attention.queries.total()), queries.dims()));
    }
    if attention.queries.len() != attention.keys.len() {
        return Err(NnError::invalid("attention", "queries and keys have different numbers of items"));
    }
    if let AttentionMask::Chunk(0) | AttentionMask::Chunks { size: 0, .. } = attention.attention_mask {
        return Err(NnError::invalid("attention", "a chunk must have at least one position"));
    }
    if let Some((rate, _)) = attention.dropout.filter(|(rate, _)| !(0.0..1.0).contains(rate)) {
        return Err(NnError::invalid("attention dropout", format!("{rate} is not in [0, 1)")));
    }
    let ranges = attention.queries.ranges().iter().zip(attention.keys.ranges());
    let items = ranges.map(|(queries, keys)| Item { queries: queries.clone(), keys: keys.clone() }).collect();
    let head_width = width / attention.heads;
    let settings = Settings {
        heads: attention.heads,
        head_width,
        scale: 1.0 / (head_width as f32).sqrt(),
        attention_mask: attention.attention_mask,
        dropout: attention.dropout.filter(|(rate, _)| *rate > 0.0),
    };
    Ok((settings, items))
}

fn check_relative(relative: &RelativePositions, settings: &Settings, items: &[Item]) -> Result<()> {
    let bias = [settings.heads, settings.head_width];
    for value in [relative.content_bias, relative.position_bias] {
        if value.dims() != bias {
            return Err(NnError::shape("attention position bias", format!("{bias:?}"), value.dims()));
        }
    }
    let longest = items.iter().map(|item| item.queries.len().max(item.keys.len())).max().unwrap_or(0);
    let &[rows, width] = relative.encodings.dims() else {
        return Err(NnError::shape("attention encodings", "[2 time - 1, channel]", relative.encodings.dims()));
    };
    if width != settings.heads * settings.head_width || rows % 2 == 0 || rows.div_ceil(2) < longest {
        let expected = format!("[2 time - 1, {}] with time >= {longest}", settings.heads * settings.head_width);
        return Err(NnError::shape("attention encodings", expected, relative.encodings.dims()));
    }
    Ok(())
}

impl Value {
    /// Computes attention with `self` as queries `[.., head x channel]` over `keys` and `values` of the same width; returns the weighted
    /// sums of the values, shaped like the queries. Scores are divided by the square root of the channels per head. The result is zero
    /// for a query that sees no key. Rows that belong to no item are zero in the result and get no gradient.
    ///
    /// # Errors
    /// When shapes or settings do not fit.
    pub fn attend(
        &self,
        keys: &Value,
        values: &Value,
        attention: &Attention,
        relative: Option<RelativePositions>,
    ) -> Result<Value> {
        let (settings, items) = settings(self, keys, values, attention)?;
        let mut tensors = vec![self, keys, values];
        if let Some(relative) = &relative {
            check_relative(relative, &settings, &items)?;
            tensors.extend([relative.encodings, relative.content_bias, relative.position_bias]);
        }
        if composed(&tensors) {
            return apply(composition::Attend::new(settings, attention, self.dims()), &tensors);
        }
        let inputs: Vec<Tensor> = tensors.iter().map(|value| value.tensor().clone()).collect();
        let (out, log_sums) = with_inputs(&inputs, |inputs| kernel::forward(inputs, &items, &settings, self.rows()))?;
        let output = host::tensor(out, self.dims())?;
        Ok(record(output, &tensors, || {
            let kept: Vec<SavedTensor> = tensors.iter().map(|value| value.save()).collect();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let inputs = kept.iter().map(SavedTensor::tensor).collect::<Result<Vec<_>>>()?;
                let dy = host::slice("attention", gradient.tensor())?;
                let gradients =
                    with_inputs(&inputs, |inputs| kernel::backward(&dy, &log_sums, inputs, &items, &settings))?;
                let all = [
                    gradients.queries,
                    gradients.keys,
                    gradients.values,
                    gradients.encodings,
                    gradients.content_bias,
                    gradients.position_bias,
                ];
                for (input, (gradient, tensor)) in all.into_iter().zip(&inputs).enumerate() {
                    flow.give_vec(input, gradient, tensor.dims())?;
                }
                Ok(())
            }
        }))
    }
}

fn with_inputs<R>(tensors: &[Tensor], work: impl FnOnce(Inputs) -> R) -> Result<R> {
    let slices = tensors.iter().map(|tensor| host::slice("attention", tensor)).collect::<Result<Vec<_>>>()?;
    let relative = match slices.get(3..6) {
        Some([encodings, content_bias, position_bias]) => Some(Relative { encodings, content_bias, position_bias }),
        _ => None,
    };
    Ok(work(Inputs { queries: &slices[0], keys: &slices[1], values: &slices[2], relative }))
}
