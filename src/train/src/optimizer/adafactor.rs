//! Adafactor: stores second moments of matrices as the product of one row and one column.

use candle_core::{D, Tensor};
use flowmill_nn::NnError;

use super::composition::{Tensors, Updated, at_least, mix, sum_of_squares};
use super::rule::{StateArray, Step, UpdateRule};
use super::slot::Arrays;

/// Adafactor (Shazeer and Stern, arXiv 1804.04235) by PyTorch's formula (`torch.optim.Adafactor`): with g the scaled gradient and t the
/// number of the update,
///
/// ```text
/// β = 1 - t^decay_rate;  R ← β R + (1 - β) mean of g² over columns;  C likewise over rows;  V = R C / mean R
/// u = g / √V;  α = max(parameter_eps, RMS w) · min(rate, 1/√t)
/// w ← w (1 - rate decay) - α u / max(1, RMS u / clip_threshold)
/// ```
///
/// Vectors keep V whole. In arrays with more than two axes the last two are factored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adafactor {
    /// Exponent of the decay of the moments; negative.
    pub decay_rate: f64,
    /// Lower bound on the root of V.
    pub eps: f64,
    /// Lower bound on a parameter's size.
    pub parameter_eps: f64,
    /// Updates larger than this (root mean square) are scaled down to it.
    pub clip_threshold: f64,
}

impl UpdateRule for Adafactor {
    fn state(&self, step: &Step<'_>) -> Vec<StateArray> {
        let &[ref outer @ .., rows, columns] = step.dims else {
            return vec![StateArray::new("variance", step.dims)];
        };
        let with = |last: [usize; 2]| [outer, &last].concat();
        vec![StateArray::new("row_var", &with([rows, 1])), StateArray::new("col_var", &with([1, columns]))]
    }

    fn update(&self, step: &Step<'_>, arrays: Arrays<'_>) {
        let Arrays { weights, gradient, mut state } = arrays;
        let number = step.number as f64;
        let share = number.powf(self.decay_rate) as f32;
        let mut change: Vec<f32> = gradient.iter().map(|gradient| step.update.gradient(*gradient)).collect();
        match (state.as_mut_slice(), step.dims) {
            ([rows, columns], &[.., height, width]) => {
                let matrices = change.chunks_exact_mut((height * width).max(1));
                let factors = rows.chunks_exact_mut(height.max(1)).zip(columns.chunks_exact_mut(width.max(1)));
                matrices.zip(factors).for_each(|(change, (rows, columns))| self.factored(change, rows, columns, share));
            }
            ([variance], _) => self.whole(&mut change, variance, share),
            _ => {}
        }
        let rate = step.rate();
        let size = root_mean_square(weights).max(self.parameter_eps) * rate.min(number.powf(-0.5));
        let size = (size / (root_mean_square(&change) / self.clip_threshold).max(1.0)) as f32;
        let keep = (1.0 - rate * step.settings.weight_decay) as f32;
        weights.iter_mut().zip(&change).for_each(|(weight, change)| *weight = *weight * keep - size * change);
    }

    fn compose(&self, step: &Step<'_>, tensors: &Tensors) -> Result<Updated, NnError> {
        let number = step.number as f64;
        let share = number.powf(self.decay_rate);
        let gradient = step.update.tensor(&tensors.gradient)?;
        let square = gradient.sqr()?;
        let (variance, state) = match tensors.state.as_slice() {
            [rows, columns] => {
                let rows = mix(1.0 - share, rows, share, &square.mean_keepdim(D::Minus1)?)?;
                let columns = mix(1.0 - share, columns, share, &square.mean_keepdim(D::Minus2)?)?;
                let mean = at_least(&rows.mean_keepdim(D::Minus2)?, self.eps)?;
                (rows.broadcast_div(&mean)?.broadcast_mul(&columns)?, vec![rows, columns])
            }
            [variance] => {
                let variance = mix(1.0 - share, variance, share, &square)?;
                (variance.clone(), vec![variance])
            }
            _ => return Ok(Updated::unchanged(tensors)),
        };
        let change = gradient.div(&at_least(&variance, self.eps * self.eps)?.sqrt()?)?;
        let (weights, rate) = (&tensors.weights, step.rate());
        let size = at_least(&root_mean_square_of(weights)?, self.parameter_eps)?;
        let size = size.affine(rate.min(number.powf(-0.5)), 0.0)?;
        let excess = at_least(&root_mean_square_of(&change)?.affine(self.clip_threshold.recip(), 0.0)?, 1.0)?;
        let change = change.broadcast_mul(&size.div(&excess)?)?;
        Ok(Updated::new(mix(1.0 - rate * step.settings.weight_decay, weights, -1.0, &change)?, state))
    }
}

impl Adafactor {
    /// Divides the gradient of a matrix by the root of its factored moments, after updating them with it.
    fn factored(&self, gradient: &mut [f32], rows: &mut [f32], columns: &mut [f32], share: f32) {
        let (height, width) = (rows.len(), columns.len());
        let mut sums = vec![0f64; width];
        for (row, values) in rows.iter_mut().zip(gradient.chunks_exact(width)) {
            let mut sum = 0.0;
            for (column, value) in sums.iter_mut().zip(values) {
                let square = f64::from(*value) * f64::from(*value);
                sum += square;
                *column += square;
            }
            *row += share * ((sum / width as f64) as f32 - *row);
        }
        for (column, sum) in columns.iter_mut().zip(&sums) {
            *column += share * ((sum / height as f64) as f32 - *column);
        }
        let mean = rows.iter().map(|row| f64::from(*row)).sum::<f64>() / height as f64;
        let mean = mean.max(self.eps) as f32;
        let least = (self.eps * self.eps) as f32;
        for (row, values) in rows.iter().zip(gradient.chunks_exact_mut(width)) {
            values.iter_mut().zip(columns.iter()).for_each(|(value, column)| {
                *value /= (row * column / mean).max(least).sqrt();
            });
        }
    }

    fn whole(&self, gradient: &mut [f32], variance: &mut [f32], share: f32) {
        let least = (self.eps * self.eps) as f32;
        for (value, variance) in gradient.iter_mut().zip(variance) {
            *variance += share * (*value * *value - *variance);
            *value /= variance.max(least).sqrt();
        }
    }
}

/// Returns the root mean square of all elements as a scalar on the tensor's device, in its type.
fn root_mean_square_of(tensor: &Tensor) -> Result<Tensor, NnError> {
    let mean = sum_of_squares(tensor)?.affine((tensor.elem_count().max(1) as f64).recip(), 0.0)?;
    Ok(mean.sqrt()?.to_dtype(tensor.dtype())?)
}

fn root_mean_square(values: &[f32]) -> f64 {
    (super::norm::sum_of_squares(values) / values.len().max(1) as f64).sqrt()
}
