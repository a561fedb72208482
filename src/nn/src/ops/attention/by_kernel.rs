//! Attention with CUDA kernels between its products: the same steps as the composition in fewer launches.

use super::composition::{Attend, Relative, Saved};
use crate::cuda::attention::{Layout, merge, of_biases, serves, split};
use crate::cuda::softmax;
use crate::ops::row_map::{Key, matrix};
use crate::{Ragged, Result};
use candle_core::{Device, Tensor};

impl Attend {
    /// Row maps of queries and of keys: the row of each position, or with `back` the position of each row. `None` where nothing moves.
    fn maps(&self, device: &Device, back: bool) -> Result<[Option<Tensor>; 2]> {
        let on_device = |items: &Ragged| {
            let rows = items.map(Key::Pad(self.time()))?;
            if back { rows.inverse().moves(device) } else { rows.moves(device) }
        };
        Ok([on_device(&self.queries)?, on_device(&self.keys)?])
    }

    fn layout<'a>(&self, maps: &'a [Option<Tensor>; 2]) -> Layout<'a> {
        let maps = maps.each_ref().map(Option::as_ref);
        let (heads, channels) = (self.settings.heads, self.settings.head_width);
        Layout { items: self.items(), heads, time: self.time(), channels, maps }
    }

    /// The forward pass; `None` if the kernels do not support the inputs.
    pub(super) fn forward_by_kernel(&self, inputs: &[Tensor]) -> Result<Option<(Tensor, Saved)>> {
        let (like, dtype, device) = (&inputs[0], inputs[0].dtype(), inputs[0].device());
        if !serves(like) {
            return Ok(None);
        }
        let maps = self.maps(device, false)?;
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
        let maps = self.maps(device, true)?;
        let output =
            merge(&self.layout(&maps), &[&output], None, [self.queries.total(), self.keys.total()])?.swap_remove(0);
        let key_shape = inputs[1].dims().to_vec();
        let saved = Saved { content, keys, values, weights, dropout, relative, key_shape, by_kernel: true };
        Ok(Some((output.reshape(self.shape.as_slice())?, saved)))
    }

    /// The backward pass after a forward pass by kernels.
    pub(super) fn backward_by_kernel(&self, saved: Saved, gradient: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let (device, heads) = (saved.content.device().clone(), self.settings.heads);
        let maps = self.maps(&device, false)?;
        let dy = split(&self.layout(&maps), &[&matrix(gradient)?], None)?.0.swap_remove(0);
        let [of_weights, of_values] = saved.of_product(&dy)?;
        let Saved { content, keys, weights, relative, key_shape, .. } = saved;
        let (slopes, of_distances) =
            softmax::backward(&of_weights, &weights, self.settings.scale, heads, relative.is_some(), &content)?;
        let of_content = slopes.matmul(&keys)?;
        let of_keys = slopes.t()?.matmul(&content)?;
        let of_position = match (&of_distances, &relative) {
            (Some(of_distances), Some(relative)) => Some(of_distances.matmul(&relative.encodings)?),
            _ => None,
        };
        let maps = self.maps(&device, true)?;
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
}
