//! Losses over the valid rows of a batch.

use crate::gradients::{Flow, Gradient};
use crate::kernels::elementwise::zip_assign_serial;
use crate::kernels::reduce::sum_pairs_serial;
use crate::tape::record;
use crate::{NnError, Result, Sequences, Value, host};
use rayon::prelude::*;

impl Value {
    /// The mean over valid rows and channels of `(self - target)^2`; 0 without valid rows. No gradient flows into the target.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn mean_square_error(&self, target: &Value, rows: &Sequences) -> Result<Value> {
        if self.dims() != target.dims() || self.rows() != rows.total() {
            return Err(NnError::shape("mean square error", format!("{:?}", self.dims()), target.dims()));
        }
        let width = self.width();
        let count = (rows.valid() * width).max(1) as f64;
        let (a, b) = (host::slice("loss", self.tensor())?, host::slice("loss", target.tensor())?);
        let error = |rows: &std::ops::Range<usize>| {
            let elements = rows.start * width..rows.end * width;
            sum_pairs_serial(&a[elements.clone()], &b[elements], |a, b| (a - b) * (a - b))
        };
        let errors: Vec<f64> = rows.ranges().par_iter().map(error).collect();
        let output = host::tensor(vec![(errors.iter().sum::<f64>() / count) as f32], &[])?;
        drop((a, b));
        Ok(record(output, &[self], || {
            let (input, target, rows) = (self.tensor().clone(), target.tensor().clone(), rows.clone());
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
