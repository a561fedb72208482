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
        self.mean_error("mean square error", Measure::Square, target, rows)
    }

    /// The mean over valid rows and channels of `|self - target|`; 0 without valid rows. No gradient flows into the target, nor
    /// where both are equal.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn mean_absolute_error(&self, target: &Value, rows: &Ragged) -> Result<Value> {
        self.mean_error("mean absolute error", Measure::Absolute, target, rows)
    }

    fn mean_error(&self, name: &'static str, measure: Measure, target: &Value, rows: &Ragged) -> Result<Value> {
        if self.dims() != target.dims() || self.rows() != rows.total() {
            return Err(NnError::shape(name, format!("{:?}", self.dims()), target.dims()));
        }
        apply(MeanError { rows: rows.clone(), measure }, &[self, &target.detach()])
    }
}

/// The function of a difference whose mean is the loss.
#[derive(Clone, Copy)]
enum Measure {
    Square,
    Absolute,
}

/// The slope of `|x|`, 0 at 0.
fn sign(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

/// The mean error over valid rows; inputs are the estimate and the target, which gets no gradient.
struct MeanError {
    rows: Ragged,
    measure: Measure,
}

impl MeanError {
    fn count(&self, width: usize) -> f64 {
        (self.rows.valid() * width).max(1) as f64
    }
}

impl Operation for MeanError {
    const IN_SINGLE_PRECISION: bool = true;

    /// The difference of the valid rows, and the shape of the estimate.
    type Saved = (Tensor, Vec<usize>);

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Self::Saved)> {
        let valid = |tensor: &Tensor| self.rows.map(Key::Pack)?.gather(&wide(&matrix(tensor)?)?);
        let difference = (valid(&inputs[0])? - valid(&inputs[1])?)?;
        let errors = match self.measure {
            Measure::Square => difference.sqr()?,
            Measure::Absolute => difference.abs()?,
        };
        let error = (errors.sum_all()? * (1.0 / self.count(difference.dim(1)?)))?;
        Ok((error, (difference, inputs[0].dims().to_vec())))
    }

    fn backward(self, saved: Self::Saved, gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (difference, shape) = saved;
        let (slope, factor) = match self.measure {
            Measure::Square => (difference, 2.0),
            Measure::Absolute => (difference.sign()?, 1.0),
        };
        let factor = (gradient * (factor / self.count(slope.dim(1)?)))?;
        let slope = slope.broadcast_mul(&factor.to_dtype(slope.dtype())?)?;
        Ok(vec![Some(self.rows.map(Key::Unpack)?.gather(&slope)?.reshape(shape)?), None])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let (input, target, rows, measure) = (inputs[0], inputs[1], &self.rows, self.measure);
        let width = input.width();
        let count = self.count(width);
        let (a, b) = (host::slice("loss", input.tensor())?, host::slice("loss", target.tensor())?);
        let error = |rows: &std::ops::Range<usize>| {
            let elements = rows.start * width..rows.end * width;
            let (a, b) = (&a[elements.clone()], &b[elements]);
            match measure {
                Measure::Square => sum_pairs_serial(a, b, |a, b| (a - b) * (a - b)),
                Measure::Absolute => sum_pairs_serial(a, b, |a, b| (a - b).abs()),
            }
        };
        let errors: Vec<f64> = rows.ranges().par_iter().map(error).collect();
        let output = host::tensor(vec![(errors.iter().sum::<f64>() / count) as f32], &[])?;
        drop((a, b));
        Ok(record(output, &inputs[..1], || {
            let (input, target, rows) = (input.tensor().clone(), target.tensor().clone(), rows.clone());
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let upstream = host::slice("loss", gradient.tensor())?[0];
                let factor = (f64::from(upstream) / count) as f32;
                let (a, b) = (host::slice("loss", &input)?, host::slice("loss", &target)?);
                let mut out = vec![0.0; a.len()];
                for rows in rows.ranges() {
                    let elements = rows.start * width..rows.end * width;
                    let out = &mut out[elements.clone()];
                    out.copy_from_slice(&a[elements.clone()]);
                    match measure {
                        Measure::Square => zip_assign_serial(out, &b[elements], &|a, b| 2.0 * factor * (a - b)),
                        Measure::Absolute => zip_assign_serial(out, &b[elements], &|a, b| factor * sign(a - b)),
                    }
                }
                flow.give_vec(0, out, input.dims())
            }
        }))
    }
}
