//! Rows of a table by index.

use crate::gradients::{Flow, Gradient};
use crate::kernels::elementwise::add_assign_serial;
use crate::tape::record;
use crate::{NnError, Result, Value, host};

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
        let table = host::slice("embedding", self.tensor())?;
        let mut out = vec![0.0; indices.len() * width];
        for (out, index) in out.chunks_exact_mut(width.max(1)).zip(indices) {
            out.copy_from_slice(&table[*index as usize * width..][..width]);
        }
        let output = host::tensor(out, &[shape, &[width]].concat())?;
        Ok(record(output, &[self], || {
            let indices = indices.to_vec();
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
