//! Losses over the valid rows of a batch.

use crate::device::wide;
use crate::gradients::{Flow, Gradient};
use crate::kernels::elementwise::zip_assign_serial;
use crate::kernels::reduce::sum_pairs_serial;
use crate::ops::operation::{Operation, apply};
use crate::ops::row_map::{Key, matrix};
use crate::tape::record;
use crate::{NnError, Ragged, Result, Value, host};
use candle_core::Tensor;
use rayon::prelude::*;

impl Value {
    /// The mean over valid rows and channels of `(self - target)^2`; 0 without valid rows. No gradient flows into the target.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn mean_square_error(&self, target: &Value, rows: &Ragged) -> Result<Value> {
        if self.dims() != target.dims() || self.rows() != rows.total() {
            return Err(NnError::shape("mean square error", format!("{:?}", self.dims()), target.dims()));
        }
        apply(MeanSquareError { rows: rows.clone() }, &[self, &target.detach()])
    }
}

/// The mean square error over valid rows; inputs are the estimate and the target, which gets no gradient.
struct MeanSquareError {
    rows: Ragged,
}

impl MeanSquareError {
    fn count(&self, width: usize) -> f64 {
        (self.rows.valid() * width).max(1) as f64
    }
}

impl Operation for MeanSquareError {
    const IN_SINGLE_PRECISION: bool = true;

    /// The difference of the valid rows, and the shape of the estimate.
    type Saved = (Tensor, Vec<usize>);

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Self::Saved)> {
        let valid = |tensor: &Tensor| self.rows.map(Key::Pack)?.gather(&wide(&matrix(tensor)?)?);
        let difference = (valid(&inputs[0])? - valid(&inputs[1])?)?;
        let error = (difference.sqr()?.sum_all()? * (1.0 / self.count(difference.dim(1)?)))?;
        Ok((error, (difference, inputs[0].dims().to_vec())))
    }

    fn backward(self, saved: Self::Saved, gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (difference, shape) = saved;
        let factor = (gradient * (2.0 / self.count(difference.dim(1)?)))?;
        let slope = difference.broadcast_mul(&factor.to_dtype(difference.dtype())?)?;
        Ok(vec![Some(self.rows.map(Key::Unpack)?.gather(&slope)?.reshape(shape)?), None])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let (input, target, rows) = (inputs[0], inputs[1], &self.rows);
        let width = input.width();
        let count = self.count(width);
        let (a, b) = (host::slice("loss", input.tensor())?, host::slice("loss", target.tensor())?);
        let error = |rows: &std::ops::Range<usize>| {
            let elements = rows.start * width..rows.end * width;
            sum_pairs_serial(&a[elements.clone()], &b[elements], |a, b| (a - b) * (a - b))
        };
        let errors: Vec<f64> = rows.ranges().par_iter().map(error).collect();
        let output = host::tensor(vec![(errors.iter().sum::<f64>() / count) as f32], &[])?;
        drop((a, b));
        Ok(record(output, &inputs[..1], || {
            let (input, target, rows) = (input.tensor().clone(), target.tensor().clone(), rows.clone());
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let upstream = host::slice("loss", gradient.tensor())?[0];
                let factor = (2.0 * f64::from(upstream) / count) as f32;
                let (a, b) = (host::slice("loss", &input)?, host::slice("loss", &target)?);
                let mut out = vec![0.0; a.len()];
                for rows in rows.ranges() {
                    let elements = rows.start * width..rows.end * width;
                    let out = &mut out[elements.clone()];
                    out.copy_from_slice(&a[elements.clone()]);
                    zip_assign_serial(out, &b[elements], &|a, b| factor * (a - b));
                }
                flow.give_vec(0, out, input.dims())
            }
        }))
    }
}
