//! Transposed one-dimensional convolution, channels innermost.
//!
//! Each output frame sees a few input frames through every `stride`-th tap. With rearranged taps, one convolution therefore computes all
//! frames that belong to an input frame, next to each other.

use crate::device::wide;
use crate::gradients::{Flow, Gradient};
use crate::ops::Convolution;
use crate::ops::operation::{Operation, apply};
use crate::ops::row_map::RowMap;
use crate::tape::record;
use crate::{NnError, Ragged, Result, Value, host};
use candle_core::Tensor;

impl Value {
    /// Computes the transposed convolution over time of each item of a packed batch `[row, input]`, with `stride` output frames per input
    /// frame: weight `[input, output, tap]` in PyTorch's layout, bias `[output]`; returns `[stride x row, output]`. The taps beyond the
    /// stride are cut from both ends evenly, which equals PyTorch's `padding` of half their number.
    ///
    /// # Errors
    /// When the shapes do not fit or there is an odd number of taps beyond the stride.
    pub fn conv_transpose1d_packed(
        &self,
        weight: &Value,
        bias: &Value,
        stride: usize,
        items: &Ragged,
    ) -> Result<Value> {
        let &[inputs, outputs, kernel] = weight.dims() else {
            return Err(NnError::shape("transposed conv1d weight", "[input, output, tap]", weight.dims()));
        };
        if stride == 0 || kernel < stride || !(kernel - stride).is_multiple_of(2) {
            let message = format!(
                "{kernel} taps with a stride of {stride}: the number of taps must be the stride plus an even number"
            );
            return Err(NnError::invalid("transposed conv1d", message));
        }
        if bias.dims() != [outputs] {
            return Err(NnError::shape("transposed conv1d bias", format!("[{outputs}]"), bias.dims()));
        }
        let cut = (kernel - stride) / 2;
        // Number of input frames on either side that an output frame may see.
        let reach = cut.div_ceil(stride);
        let taps = 2 * reach + 1;
        let place = |index: usize| {
            let (row, tap) = (index / taps, index % taps);
            let (channel, input) = (row / inputs, row % inputs);
            let (phase, output) = (channel / outputs, channel % outputs);
            let tap = (2 * reach - tap) * stride + phase + cut;
            let tap = tap.checked_sub(reach * stride).filter(|tap| *tap < kernel)?;
            Some((input * outputs + output) * kernel + tap)
        };
        let weight = weight.gather(&[stride * outputs, inputs, taps], place)?;
        let bias = bias.gather(&[stride * outputs], |channel| Some(channel % outputs))?;
        let settings = Convolution { padding: [reach, reach], ..Convolution::default() };
        let frames = self.conv1d_packed(&weight, Some(&bias), settings, items)?;
        frames.reshape(&[stride * items.total(), outputs])
    }

    /// Gathers elements by their places in this value; zero where there is none.
    fn gather(&self, shape: &[usize], place: impl Fn(usize) -> Option<usize>) -> Result<Value> {
        let places: Vec<Option<usize>> = (0..shape.iter().product()).map(place).collect();
        apply(Gather { places, shape: shape.to_vec() }, &[self])
    }
}

/// Gathers elements by their places; each may be read several times.
struct Gather {
    places: Vec<Option<usize>>,
    shape: Vec<usize>,
}

impl Operation for Gather {
    type Saved = Vec<usize>;

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Vec<usize>)> {
        let elements = inputs[0].reshape(((), 1))?;
        let map = RowMap::new(self.places.iter().copied(), elements.dim(0)?)?;
        Ok((map.gather(&elements)?.reshape(self.shape.as_slice())?, inputs[0].dims().to_vec()))
    }

    fn backward(self, shape: Vec<usize>, gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        // The readers of each element, padded to the largest number of readers.
        let mut readers = vec![Vec::new(); shape.iter().product()];
        for (reader, place) in self.places.iter().enumerate() {
            if let Some(place) = place {
                readers[*place].push(reader);
            }
        }
        let most = readers.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let rows = readers.iter().flat_map(|readers| (0..most).map(|index| readers.get(index).copied()));
        let gathered = RowMap::new(rows, self.places.len())?.gather(&gradient.reshape(((), 1))?)?;
        Ok(vec![Some(wide(&gathered)?.reshape((readers.len(), most))?.sum(1)?.reshape(shape)?)])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let Self { places, shape } = self;
        let output = {
            let elements = host::slice("gather", inputs[0].tensor())?;
            places.iter().map(|place| place.map_or(0.0, |place| elements[place])).collect()
        };
        Ok(record(host::tensor(output, &shape)?, inputs, || {
            let before = inputs[0].dims().to_vec();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let gradient = host::slice("gather", gradient.tensor())?;
                let mut sums = vec![0.0; before.iter().product()];
                for (place, gradient) in places.iter().zip(gradient.iter()) {
                    if let Some(place) = place {
                        sums[*place] += gradient;
                    }
                }
                flow.give_vec(0, sums, &before)
            }
        }))
    }
}
