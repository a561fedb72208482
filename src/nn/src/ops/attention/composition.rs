//! Attention as a composition: over a padded batch, with all scores at once.

use crate::device::wide;
use crate::kernels::attention::{Settings, dropout_factors};
use crate::ops::attention::Attention;
use crate::ops::operation::Operation;
use crate::ops::row_map::{Key, matrix, sum_rows, swap};
use crate::{Ragged, Result};
use candle_core::{DType, Device, Tensor};

/// Score below every real one, for keys that a query does not see.
const UNSEEN: f32 = -1e30;

/// Attention; inputs are queries, keys, values and, with relative positions, encodings, content bias and position bias.
pub(super) struct Attend {
    pub(super) settings: Settings,
    pub(super) queries: Ragged,
    pub(super) keys: Ragged,
    pub(super) shape: Vec<usize>,
}

/// Saved state for the backward pass.
pub(super) struct Saved {
    /// `[item x head, time, channel]`: the queries, with the content bias if there is one.
    pub(super) content: Tensor,
    pub(super) keys: Tensor,
    pub(super) values: Tensor,
    /// The softmax of the scores, `[item x head, time, time]`, in single precision or wider.
    pub(super) weights: Tensor,
    /// The dropout factors of the weights.
    pub(super) dropout: Option<Tensor>,
    pub(super) relative: Option<Relative>,
    /// Rows of the keys.
    pub(super) key_shape: Vec<usize>,
    /// True if the CUDA kernels are used.
    #[cfg(feature = "cuda")]
    pub(super) by_kernel: bool,
}

impl Saved {
    /// The gradients of the weights (in single precision or wider) and of the values, from the gradient of their product.
    pub(super) fn of_product(&self, dy: &Tensor) -> Result<[Tensor; 2]> {
        let mut of_weights = wide(&dy.matmul(&self.values.t()?)?)?;
        let mut dropped = self.weights.clone();
        if let Some(factors) = &self.dropout {
            of_weights = (of_weights * factors)?;
            dropped = (dropped * factors)?;
        }
        Ok([of_weights, dropped.to_dtype(self.values.dtype())?.t()?.matmul(dy)?])
    }
}

/// Saved state of relative positions for the backward pass.
pub(super) struct Relative {
    /// The queries with the position bias, `[head, item x time, channel]`.
    pub(super) position: Tensor,
    /// The encodings of the distances that occur, `[head, 2 time - 1, channel]`.
    pub(super) encodings: Tensor,
    /// The number of encodings that were given.
    pub(super) given: usize,
}

impl Attend {
    pub(super) fn new(settings: Settings, attention: &Attention, shape: &[usize]) -> Self {
        let (queries, keys) = (attention.queries.clone(), attention.keys.clone());
        Self { settings, queries, keys, shape: shape.to_vec() }
    }

    pub(super) fn items(&self) -> usize {
        self.queries.len()
    }

    /// The length of the longest item, of queries or keys, to which all are padded.
    pub(super) fn time(&self) -> usize {
        let lengths = self.queries.ranges().iter().chain(self.keys.ranges()).map(|rows| rows.len());
        lengths.max().unwrap_or(0).max(1)
    }

    /// `[row, head x channel]` as `[item x head, time, channel]`.
    fn split(&self, rows: &Tensor, items: &Ragged) -> Result<Tensor> {
        let Settings { heads, head_width, .. } = self.settings;
        let (count, time) = (self.items(), self.time());
        let padded = items.map(Key::Pad(time))?.gather(rows)?.reshape((count, time, heads, head_width))?;
        Ok(padded.transpose(1, 2)?.contiguous()?.reshape((count * heads, time, head_width))?)
    }

    /// The transpose of [`split`](Self::split).
    fn merge(&self, split: &Tensor, items: &Ragged) -> Result<Tensor> {
        let Settings { heads, head_width, .. } = self.settings;
        let (count, time) = (self.items(), self.time());
        let padded = split.reshape((count, heads, time, head_width))?.transpose(1, 2)?.contiguous()?;
        items.map(Key::Pad(time))?.inverse().gather(&padded.reshape((count * time, heads * head_width))?)
    }

    /// `[item x head, time, _]` as `[head, item x time, _]`.
    fn by_head(&self, tensor: &Tensor) -> Result<Tensor> {
        let (count, heads, time) = (self.items(), self.settings.heads, self.time());
        let swapped = tensor.reshape((count, heads, time, ()))?.transpose(0, 1)?.contiguous()?;
        Ok(swapped.reshape((heads, count * time, ()))?)
    }

    /// The transpose of [`by_head`](Self::by_head).
    fn by_item(&self, tensor: &Tensor) -> Result<Tensor> {
        let (count, heads, time) = (self.items(), self.settings.heads, self.time());
        let swapped = tensor.reshape((heads, count, time, ()))?.transpose(0, 1)?.contiguous()?;
        Ok(swapped.reshape((count * heads, time, ()))?)
    }

    /// Adds a bias `[head, channel]` to `[item x head, time, channel]`.
    fn biased(&self, split: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let Settings { heads, head_width, .. } = self.settings;
        let (count, time) = (self.items(), self.time());
        let bias = bias.reshape((1, heads, 1, head_width))?;
        let sum = split.reshape((count, heads, time, head_width))?.broadcast_add(&bias)?;
        Ok(sum.reshape((count * heads, time, head_width))?)
    }

    /// The gradient of a bias from the gradient of the sum.
    fn of_bias(&self, split: &Tensor) -> Result<Tensor> {
        let Settings { heads, head_width, .. } = self.settings;
        let (count, time) = (self.items(), self.time());
        let rows = split.reshape((count, heads, time, head_width))?.transpose(1, 2)?.contiguous()?;
        Ok(sum_rows(&rows.reshape((count * time, heads * head_width))?)?.reshape((heads, head_width))?)
    }

    /// Mask added to the scores: 0 where a query sees a key, far below every score elsewhere; `[item, 1, time, time]`.
    pub(super) fn mask(&self, device: &Device, dtype: DType) -> Result<Tensor> {
        let time = self.time();
        let make = || {
            let mut mask = vec![UNSEEN; self.items() * time * time];
            let items = self.queries.ranges().iter().zip(self.keys.ranges());
            for ((queries, keys), mask) in items.zip(mask.chunks_exact_mut(time * time)) {
                for (query, mask) in mask.chunks_exact_mut(time).take(queries.len()).enumerate() {
                    mask[self.settings.attention_mask.keys(query, keys.len())].fill(0.0);
                }
            }
            Ok(Tensor::from_vec(mask, (self.items(), 1, time, time), &Device::Cpu)?)
        };
        if self.queries != self.keys {
            return Ok(make()?.to_device(device)?.to_dtype(dtype)?);
        }
        self.keys.cache().mask(Key::Mask(self.settings.attention_mask, time), device, dtype, make)
    }

    /// Returns whether a query sees no key at all. (Rows of padding see none either, but their results are not read.)
    fn has_blind_queries(&self) -> bool {
        let mut items = self.queries.ranges().iter().zip(self.keys.ranges());
        items.any(|(queries, keys)| {
            (0..queries.len()).any(|query| self.settings.attention_mask.keys(query, keys.len()).is_empty())
        })
    }

    /// The softmax, in single precision or wider, `[item x head, time, time]`, of the scores plus the contributions of the distances
    /// `[item x head, time, 2 time - 1]`.
    fn weights(&self, scores: Tensor, distances: Option<Tensor>) -> Result<Tensor> {
        let Settings { heads, scale, .. } = self.settings;
        let (count, time) = (self.items(), self.time());
        let scores = match distances {
            Some(distances) => (scores + shift(&distances)?)?,
            None => scores,
        };
        let scores = (wide(&scores)? * f64::from(scale))?.reshape((count, heads, time, time))?;
        let mask = self.mask(scores.device(), scores.dtype())?;
        let scores = scores.broadcast_add(&mask)?;
        let mut exponentials = scores.broadcast_sub(&scores.max_keepdim(3)?)?.exp()?;
        if self.has_blind_queries() {
            // Queries that see no key have zeros.
            exponentials = exponentials.broadcast_mul(&mask.ge(0.0)?.to_dtype(scores.dtype())?)?;
        }
        let sums = exponentials.sum_keepdim(3)?.maximum(f64::from(f32::MIN_POSITIVE))?;
        Ok(exponentials.broadcast_div(&sums)?.reshape((count * heads, time, time))?)
    }

    /// The gradient of the scores in an element type, from the gradient of the weights; and the gradient of the distances, if any.
    fn slopes(
        &self,
        gradient: &Tensor,
        weights: &Tensor,
        relative: bool,
        dtype: DType,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let scale = self.settings.scale;
        let along = (gradient * weights)?.sum_keepdim(2)?;
        let slopes = (weights * gradient.broadcast_sub(&along)?)?;
        let slopes = (slopes * f64::from(scale))?.to_dtype(dtype)?;
        let of_distances = relative.then(|| shift_back(&slopes)).transpose()?;
        Ok((slopes, of_distances))
    }

    /// The dropout factors of the weights, `[item x head, time, time]`, drawn on the host so that they are the same on every device.
    pub(super) fn dropout(&self, like: &Tensor) -> Result<Option<Tensor>> {
        let Some((rate, rng_key)) = self.settings.dropout else { return Ok(None) };
        let (time, heads) = (self.time(), self.settings.heads);
        let mut factors = vec![0.0; self.items() * heads * time * time];
        for (index, factors) in factors.chunks_exact_mut(time).enumerate() {
            let (query, head, item) = (index % time, index / time % heads, index / time / heads);
            dropout_factors(rng_key, [item, head, query], rate, 0, factors);
        }
        let factors = Tensor::from_vec(factors, (self.items() * heads, time, time), like.device())?;
        Ok(Some(factors.to_dtype(like.dtype())?))
    }

    /// The encodings of the distances within `time` positions, `[head, 2 time - 1, channel]`.
    pub(super) fn distances(&self, encodings: &Tensor) -> Result<Tensor> {
        let Settings { heads, head_width, .. } = self.settings;
        let (given, time) = (encodings.dim(0)?, self.time());
        let near = encodings.narrow(0, given / 2 + 1 - time, 2 * time - 1)?;
        swap(&near, [2 * time - 1, heads, head_width], &[heads, 2 * time - 1, head_width])
    }

    /// The gradient of all `given` encodings, from the gradient of [`distances`](Self::distances).
    pub(super) fn of_encodings(&self, near: &Tensor, given: usize) -> Result<Tensor> {
        let Settings { heads, head_width, .. } = self.settings;
        let time = self.time();
        let rows = swap(near, [heads, 2 * time - 1, head_width], &[2 * time - 1, heads * head_width])?;
        let outside = given / 2 + 1 - time;
        Ok(rows.pad_with_zeros(0, outside, outside)?)
    }
}

/// `[_, time, 2 time - 1]` to `[_, time, time]`: `out[i, j] = x[i, time - 1 - i + j]`, by reading the rows at another pitch.
fn shift(x: &Tensor) -> Result<Tensor> {
    let (count, time, width) = x.dims3()?;
    if time == 1 {
        return Ok(x.clone());
    }
    let flat = x.reshape((count, time * width))?.narrow(1, time - 1, time * (width - 1))?.contiguous()?;
    Ok(flat.reshape((count, time, width - 1))?.narrow(2, 0, time)?.contiguous()?)
}

/// The transpose of [`shift`].
fn shift_back(x: &Tensor) -> Result<Tensor> {
    let (count, time, _) = x.dims3()?;
    if time == 1 {
        return Ok(x.clone());
    }
    let wide = x.pad_with_zeros(2, 0, time - 2)?.contiguous()?.reshape((count, time * (2 * time - 2)))?;
    Ok(wide.pad_with_zeros(1, time - 1, 1)?.contiguous()?.reshape((count, time, 2 * time - 1))?)
}

impl Operation for Attend {
    type Saved = Saved;

    #[cfg(feature = "cuda")]
    fn cuda(&self, inputs: &[Tensor]) -> Result<Option<(Tensor, Saved)>> {
        self.forward_by_kernel(inputs)
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Saved)> {
        let dtype = inputs[0].dtype();
        let [queries, keys, values] = [(0, &self.queries), (1, &self.keys), (2, &self.keys)]
            .map(|(input, rows)| matrix(&inputs[input]).and_then(|tensor| self.split(&tensor, rows)));
        let (queries, keys, values) = (queries?, keys?, values?);
        let (content, relative) = match inputs.get(3..6) {
            Some([encodings, content_bias, position_bias]) => {
                let position = self.by_head(&self.biased(&queries, position_bias)?)?;
                let given = encodings.dim(0)?;
                let encodings = self.distances(encodings)?;
                (self.biased(&queries, content_bias)?, Some(Relative { position, encodings, given }))
            }
            _ => (queries, None),
        };
        let scores = content.matmul(&keys.t()?)?;
        let of_distances =
            |Relative { position, encodings, .. }: &Relative| self.by_item(&position.matmul(&encodings.t()?)?);
        let distances = relative.as_ref().map(of_distances).transpose()?;
        let weights = self.weights(scores, distances)?;
        let dropout = self.dropout(&weights)?;
        let dropped = match &dropout {
            Some(factors) => (&weights * factors)?,
            None => weights.clone(),
        };
        let output = self.merge(&dropped.to_dtype(dtype)?.matmul(&values)?, &self.queries)?;
        let key_shape = inputs[1].dims().to_vec();
        let saved = Saved {
            content,
            keys,
            values,
            weights,
            dropout,
            relative,
            key_shape,
            #[cfg(feature = "cuda")]
            by_kernel: false,
        };
        Ok((output.reshape(self.shape.as_slice())?, saved))
    }

    fn backward(self, saved: Saved, gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        #[cfg(feature = "cuda")]
        if saved.by_kernel {
            return self.backward_by_kernel(saved, gradient);
        }
        let dy = self.split(&matrix(gradient)?, &self.queries)?;
        let [of_weights, of_values] = saved.of_product(&dy)?;
        let Saved { content, keys, weights, relative, key_shape, .. } = saved;
        let (slopes, of_distances) = self.slopes(&of_weights, &weights, relative.is_some(), content.dtype())?;
        let of_content = slopes.matmul(&keys)?;
        let of_keys = slopes.t()?.matmul(&content)?;
        let to_keys =
            |split: &Tensor| Ok::<_, crate::NnError>(self.merge(split, &self.keys)?.reshape(key_shape.as_slice())?);
        let to_queries =
            |split: &Tensor| Ok::<_, crate::NnError>(self.merge(split, &self.queries)?.reshape(self.shape.as_slice())?);
        let (of_keys, of_values) = (to_keys(&of_keys)?, to_keys(&of_values)?);
        let (Some(Relative { position, encodings, given }), Some(of_distances)) = (relative, of_distances) else {
            return Ok(vec![Some(to_queries(&of_content)?), Some(of_keys), Some(of_values)]);
        };
        let of_distances = self.by_head(&of_distances)?;
        let of_position = self.by_item(&of_distances.matmul(&encodings)?)?;
        let of_encodings = self.of_encodings(&of_distances.t()?.matmul(&position)?, given)?;
        let of_queries = to_queries(&(&of_content + &of_position)?)?;
        let biases = [self.of_bias(&of_content)?, self.of_bias(&of_position)?];
        let [content_bias, position_bias] = biases.map(Some);
        Ok(vec![Some(of_queries), Some(of_keys), Some(of_values), Some(of_encodings), content_bias, position_bias])
    }
}
