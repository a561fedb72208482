//! Attention by CUDA kernels between its products: the steps of the composition, fewer launches.

use super::composition::{Attend, Relative, Saved};
use crate::Result;
use crate::cuda::attention::{Layout, merge, of_biases, serves, split};
use crate::cuda::softmax;
use crate::device::wide;
use crate::ops::row_map::{Key, RowMap, matrix, swap};
use candle_core::{Device, Tensor};
use std::sync::Arc;

/// The maps between rows and positions of queries and of keys.
struct Maps([Arc<RowMap>; 2]);

impl Maps {
    /// On a device; nothing where nothing moves.
    fn on(&self, device: &Device) -> Result<[Option<Tensor>; 2]> {
        let Self([queries, keys]) = self;
        Ok([queries.moves(device)?, keys.moves(device)?])
    }
}

impl Attend {
    /// The row of each position.
    fn rows_of_positions(&self) -> Result<Maps> {
        let key = || Key::Pad(self.time());
        Ok(Maps([self.queries.map(key())?, self.keys.map(key())?]))
    }

    /// The position of each row.
    fn positions_of_rows(&self) -> Result<Maps> {
        let Maps([queries, keys]) = self.rows_of_positions()?;
        Ok(Maps([queries.inverse(), keys.inverse()]))
    }

    fn layout<'a>(&self, maps: &'a [Option<Tensor>; 2]) -> Layout<'a> {
        let maps = maps.each_ref().map(Option::as_ref);
        let (heads, channels) = (self.settings.heads, self.settings.head_width);
        Layout { items: self.items(), heads, time: self.time(), channels, maps }
    }

    /// The forward pass; nothing where the kernels do not serve.
    pub(super) fn forward_by_kernel(&self, inputs: &[Tensor]) -> Result<Option<(Tensor, Saved)>> {
        let (like, dtype, device) = (&inputs[0], inputs[0].dtype(), inputs[0].device());
        if !serves(like) {
            return Ok(None);
        }
        let maps = self.rows_of_positions()?.on(device)?;
        let layout = self.layout(&maps);
        let rows = inputs[..3].iter().map(matrix).collect::<Result<Vec<_>>>()?;
        let biases = inputs.get(4..6).map(|biases| [&biases[0], &biases[1]]);
        let (mut parts, position) = split(&layout, &rows.iter().collect::<Vec<_>>(), biases)?;
        let (values, keys, content) = (parts.swap_remove(2), parts.swap_remove(1), parts.swap_remove(0));
        let relative = match (inputs.get(3), position) {
            (Some(encodings), Some(position)) => {
                let given = encodings.dim(0)?;
                Some(Relative { position, encodings: self.distances(encodings)?, given })
            }
            _ => None,
        };
        let scores = content.matmul(&keys.t()?)?;
        let of_distances = |Relative { position, encodings, .. }: &Relative| position.matmul(&encodings.t()?);
        let distances = relative.as_ref().map(of_distances).transpose()?;
        let mask = self.mask(device, candle_core::DType::F32)?;
        let weights = softmax::forward(&scores, distances.as_ref(), &mask, self.settings.scale, self.settings.heads)?;
        drop((scores, distances));
        let dropout = self.dropout(&weights)?;
        let dropped = dropout.as_ref().map_or_else(|| Ok(weights.clone()), |factors| &weights * factors)?;
        let output = dropped.to_dtype(dtype)?.matmul(&values)?;
        let maps = self.positions_of_rows()?.on(device)?;
        let output =
            merge(&self.layout(&maps), &[&output], None, [self.queries.total(), self.keys.total()])?.swap_remove(0);
        let key_shape = inputs[1].dims().to_vec();
        let saved = Saved { content, keys, values, weights, dropout, relative, key_shape, by_kernel: true };
        Ok(Some((output.reshape(self.shape.as_slice())?, saved)))
    }

    /// The backward pass of a forward pass by kernels.
    pub(super) fn backward_by_kernel(&self, saved: Saved, gradient: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let Saved { content, keys, values, weights, dropout, relative, key_shape, .. } = saved;
        let (dtype, device, heads) = (content.dtype(), content.device().clone(), self.settings.heads);
        let maps = self.rows_of_positions()?.on(&device)?;
        let dy = split(&self.layout(&maps), &[&matrix(gradient)?], None)?.0.swap_remove(0);
        let mut slopes = wide(&dy.matmul(&values.t()?)?)?;
        let mut dropped = weights.clone();
        if let Some(factors) = &dropout {
            slopes = (slopes * factors)?;
            dropped = (dropped * factors)?;
        }
        let of_values = dropped.to_dtype(dtype)?.t()?.matmul(&dy)?;
        let (slopes, of_distances) =
            softmax::backward(&slopes, &weights, self.settings.scale, heads, relative.is_some(), &content)?;
        let of_content = slopes.matmul(&keys)?;
        let of_keys = slopes.t()?.matmul(&content)?;
        let of_position = match (&of_distances, &relative) {
            (Some(of_distances), Some(relative)) => Some(of_distances.matmul(&relative.encodings)?),
            _ => None,
        };
        let maps = self.positions_of_rows()?.on(&device)?;
        let layout = self.layout(&maps);
        let rows = [self.queries.total(), self.keys.total()];
        let merged = merge(&layout, &[&of_content, &of_keys, &of_values], of_position.as_ref(), rows)?;
        let shapes = [&self.shape, &key_shape, &key_shape];
        let reshape = |(merged, shape): (&Tensor, &Vec<usize>)| Ok(Some(merged.reshape(shape.as_slice())?));
        let mut gradients = merged.iter().zip(shapes).map(reshape).collect::<Result<Vec<_>>>()?;
        if let (Some(of_distances), Some(of_position), Some(relative)) = (of_distances, of_position, relative) {
            let of_encodings = of_distances.t()?.matmul(&relative.position)?;
            gradients.push(Some(self.of_encodings(&of_encodings, relative.given)?));
            gradients.extend(of_biases(&layout, &of_content, &of_position)?.map(Some));
        }
        Ok(gradients)
    }

    /// The gradient of the encodings as they were given, from that of those of the distances that occur.
    fn of_encodings(&self, near: &Tensor, given: usize) -> Result<Tensor> {
        let (heads, channels, time) = (self.settings.heads, self.settings.head_width, self.time());
        let distances = 2 * time - 1;
        let rows = swap(near, [heads, distances, channels], &[distances, heads * channels])?;
        let outside = given / 2 + 1 - time;
        Ok(rows.pad_with_zeros(0, outside, outside)?)
    }
}
