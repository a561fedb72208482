//! Rows of a matrix by their numbers.

use crate::gradients::{Flow, Gradient};
use crate::kernels::elementwise::add_assign_serial;
use crate::ops::operation::{Operation, apply};
use crate::ops::row_map::RowMap;
use crate::tape::record;
use crate::{NnError, Result, Value, host};
use candle_core::Tensor;

impl Value {
    /// The given rows of `[row, channel]`, each at most once, in their order.
    ///
    /// # Errors
    /// When a row does not exist or is given twice.
    pub fn select_rows(&self, rows: &[usize]) -> Result<Value> {
        let &[total, _] = self.dims() else {
            return Err(NnError::shape("select rows", "[row, channel]", self.dims()));
        };
        let mut given = vec![false; total];
        for row in rows {
            match given.get_mut(*row) {
                None => return Err(NnError::Index { operation: "select rows", index: *row as i64, size: total }),
                Some(true) => return Err(NnError::invalid("select rows", format!("row {row} is given twice"))),
                Some(given) => *given = true,
            }
        }
        let map = RowMap::new(rows.iter().copied().map(Some), total)?;
        apply(SelectRows { rows: rows.to_vec(), map }, &[self])
    }
}

/// The selection of rows.
struct SelectRows {
    rows: Vec<usize>,
    map: RowMap,
}

impl Operation for SelectRows {
    type Saved = ();

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, ())> {
        Ok((self.map.gather(&inputs[0])?, ()))
    }

    fn backward(self, (): (), gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(self.map.inverse().gather(gradient)?)])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let (rows, width) = (self.rows, inputs[0].width());
        let x = host::slice("select rows", inputs[0].tensor())?;
        let selected: Vec<&[f32]> = rows.iter().map(|row| &x[row * width..(row + 1) * width]).collect();
        let output = host::tensor(selected.concat(), &[rows.len(), width])?;
        drop(x);
        Ok(record(output, inputs, || {
            let shape = inputs[0].dims().to_vec();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let dy = host::slice("select rows", gradient.tensor())?;
                flow.add_to(0, &shape, |dx| {
                    for (dy, row) in dy.chunks_exact(width.max(1)).zip(&rows) {
                        add_assign_serial(&mut dx[row * width..(row + 1) * width], dy);
                    }
                })
            }
        }))
    }
}
