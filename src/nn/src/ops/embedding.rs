//! Rows of a table by index.

use crate::device::wide;
use crate::gradients::{Flow, Gradient};
use crate::kernels::elementwise::add_assign_serial;
use crate::ops::operation::{Operation, apply};
use crate::ops::row_map::matrix;
use crate::tape::record;
use crate::{NnError, Result, Value, host};
use candle_core::Tensor;

impl Value {
    /// The rows of `self` (`[entry, channel]`) at `indices`, as `[.. of shape, channel]`.
    ///
    /// # Errors
    /// When an index is outside of the table or their number is not that of `shape`.
    pub fn embed(&self, indices: &[u32], shape: &[usize]) -> Result<Value> {
        let &[entries, width] = self.dims() else {
            return Err(NnError::shape("embedding", "[entry, channel]", self.dims()));
        };
        if indices.len() != shape.iter().product::<usize>() {
            return Err(NnError::shape("embedding", format!("{} indices", indices.len()), shape));
        }
        if let Some(index) = indices.iter().find(|index| **index as usize >= entries) {
            return Err(NnError::Index { operation: "embedding", index: i64::from(*index), size: entries });
        }
        apply(Embed { indices: indices.to_vec(), shape: [shape, &[width]].concat() }, &[self])
    }
}

/// Rows of a table `[entry, channel]`.
struct Embed {
    indices: Vec<u32>,
    /// Of the output.
    shape: Vec<usize>,
}

impl Operation for Embed {
    /// The number of entries, and the indices on the device.
    type Saved = (usize, Tensor);

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Self::Saved)> {
        let table = &inputs[0];
        let indices = Tensor::from_slice(&self.indices, self.indices.len(), table.device())?;
        if self.indices.is_empty() {
            return Ok((
                Tensor::zeros(self.shape.as_slice(), table.dtype(), table.device())?,
                (table.dim(0)?, indices),
            ));
        }
        Ok((table.index_select(&indices, 0)?.reshape(self.shape.as_slice())?, (table.dim(0)?, indices)))
    }

    fn backward(self, (entries, indices): Self::Saved, gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let gradient = wide(&matrix(gradient)?)?;
        let table = Tensor::zeros((entries, gradient.dim(1)?), gradient.dtype(), gradient.device())?;
        if self.indices.is_empty() {
            return Ok(vec![Some(table)]);
        }
        Ok(vec![Some(table.index_add(&indices, &gradient, 0)?)])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let Self { indices, shape } = self;
        let &[entries, width] = inputs[0].dims() else {
            return Err(NnError::shape("embedding", "[entry, channel]", inputs[0].dims()));
        };
        let table = host::slice("embedding", inputs[0].tensor())?;
        let mut out = vec![0.0; indices.len() * width];
        for (out, index) in out.chunks_exact_mut(width.max(1)).zip(&indices) {
            out.copy_from_slice(&table[*index as usize * width..][..width]);
        }
        let output = host::tensor(out, &shape)?;
        Ok(record(output, inputs, || {
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let dy = host::slice("embedding", gradient.tensor())?;
                let mut table = vec![0.0; entries * width];
                for (dy, index) in dy.chunks_exact(width.max(1)).zip(&indices) {
                    add_assign_serial(&mut table[*index as usize * width..][..width], dy);
                }
                flow.give_vec(0, table, &[entries, width])
            }
        }))
    }
}
