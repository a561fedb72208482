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
    /// When an index is outside of the table, or the number of indices does not match `shape`.
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

/// Lookup of rows in a table `[entry, channel]`.
struct Embed {
    indices: Vec<u32>,
    /// Shape of the output.
    shape: Vec<usize>,
}

/// The state saved for the backward pass.
struct Looked {
    entries: usize,
    /// The indices; for the CUDA kernel followed by [`Embed::readers`].
    index: Tensor,
    /// Number of distinct entries that were read, for the CUDA kernel.
    #[cfg(feature = "cuda")]
    read: Option<usize>,
}

impl Embed {
    /// The entries that are read, in rising order; the offsets where the places of each begin, and their end; the places in order of
    /// their entries.
    #[cfg(feature = "cuda")]
    fn readers(&self) -> [Vec<u32>; 3] {
        let mut places: Vec<u32> = (0..self.indices.len() as u32).collect();
        places.sort_by_key(|place| self.indices[*place as usize]);
        let (mut entries, mut starts) = (Vec::new(), Vec::new());
        for (at, place) in (0..).zip(&places) {
            let entry = self.indices[*place as usize];
            if entries.last() != Some(&entry) {
                entries.push(entry);
                starts.push(at);
            }
        }
        starts.push(places.len() as u32);
        [entries, starts, places]
    }
}

impl Operation for Embed {
    type Saved = Looked;

    #[cfg(feature = "cuda")]
    fn cuda(&self, inputs: &[Tensor]) -> Result<Option<(Tensor, Looked)>> {
        use crate::cuda::rows::{gather, serves};
        let (table, count) = (&inputs[0], self.indices.len());
        if count == 0 || u32::try_from(count).is_err() || !serves(table) {
            return Ok(None);
        }
        // Indices and the state of the backward pass go to the device in one copy.
        let readers = self.readers();
        let all = [&self.indices[..], &readers.concat()].concat();
        let index = Tensor::from_slice(&all, all.len(), table.device())?;
        let rows = gather(table, &index.narrow(0, 0, count)?)?.reshape(self.shape.as_slice())?;
        Ok(Some((rows, Looked { entries: table.dim(0)?, index, read: Some(readers[0].len()) })))
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Looked)> {
        let (table, shape) = (&inputs[0], self.shape.as_slice());
        let looked = Looked {
            entries: table.dim(0)?,
            index: Tensor::from_slice(&self.indices, self.indices.len(), table.device())?,
            #[cfg(feature = "cuda")]
            read: None,
        };
        if self.indices.is_empty() {
            return Ok((Tensor::zeros(shape, table.dtype(), table.device())?, looked));
        }
        Ok((table.index_select(&looked.index, 0)?.reshape(shape)?, looked))
    }

    fn backward(self, looked: Looked, gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let gradient = matrix(gradient)?;
        #[cfg(feature = "cuda")]
        if let Some(read) = looked.read {
            let count = self.indices.len();
            let readers = looked.index.narrow(0, count, looked.index.elem_count() - count)?;
            return Ok(vec![Some(crate::cuda::rows::sum_places(&gradient, looked.entries, &readers, read)?)]);
        }
        let gradient = wide(&gradient)?;
        let table = Tensor::zeros((looked.entries, gradient.dim(1)?), gradient.dtype(), gradient.device())?;
        if self.indices.is_empty() {
            return Ok(vec![Some(table)]);
        }
        Ok(vec![Some(table.index_add(&looked.index, &gradient, 0)?)])
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
