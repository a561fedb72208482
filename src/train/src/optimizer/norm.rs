//! The gradient's norm, per parameter and over all: the input of clipping, the coverage check and the dumps.

use flowmill_nn::{Gradients, NnError, ParameterId, Parameters, device, host};
use rayon::prelude::*;

use super::composition;
use crate::TrainError;

/// Number of values summed as one unit. It is fixed, and sums are joined in order, so the norm does not depend on the thread count.
const CHUNK: usize = 1 << 16;
/// Running sums within a chunk, added up at its end.
const LANES: usize = 8;

/// Euclidean norms of the gradients of the trainable parameters.
#[derive(Debug, Clone)]
pub struct GradientNorms {
    /// Over all parameters; NaN or infinite if any value is.
    pub total: f64,
    /// Per trainable parameter in order; `None` where there is no gradient.
    pub each: Vec<(ParameterId, Option<f64>)>,
}

impl GradientNorms {
    /// Returns the factor that limits the total to `limit`: `limit / (total + 1e-6)` if that is below 1, like PyTorch's
    /// `clip_grad_norm_`.
    pub fn clip_factor(&self, limit: Option<f64>) -> f64 {
        limit.map_or(1.0, |limit| (limit / (self.total + 1e-6)).min(1.0))
    }

    /// Returns the names of the parameters whose gradient is not finite, in order.
    pub fn not_finite(&self, parameters: &Parameters) -> Vec<String> {
        let bad = self.each.iter().filter(|(_, norm)| norm.is_some_and(|norm| !norm.is_finite()));
        bad.map(|(id, _)| parameters.name(*id).to_owned()).collect()
    }
}

/// Measures the gradients times `scale`. From a device the norms of all parameters are read in one copy.
pub fn gradient_norms(parameters: &Parameters, gradients: &Gradients, scale: f64) -> Result<GradientNorms, TrainError> {
    let ids: Vec<ParameterId> = parameters.trainable_ids().collect();
    let squares = if gradients.iter().all(|(_, gradient)| device::is_fused(gradient)) {
        squares(&ids, parameters, gradients)?
    } else {
        composed_squares(&ids, gradients).map_err(TrainError::tensor("measuring the gradients"))?
    };
    let total = squares.iter().flatten().sum::<f64>().sqrt() * scale;
    let each =
        ids.into_iter().zip(squares).map(|(id, square)| (id, square.map(|square| square.sqrt() * scale))).collect();
    Ok(GradientNorms { total, each })
}

/// The sums of squares of gradients on the CPU; `None` if there is no gradient.
fn squares(
    ids: &[ParameterId],
    parameters: &Parameters,
    gradients: &Gradients,
) -> Result<Vec<Option<f64>>, TrainError> {
    ids.par_iter()
        .map(|&id| {
            let Some(gradient) = gradients.get(id) else {
                return Ok(None);
            };
            let square = host::slice("gradient norm", gradient).map(|values| sum_of_squares(&values));
            square.map(Some).map_err(TrainError::tensor(format!("gradient of {}", parameters.name(id))))
        })
        .collect()
}

/// The sums of squares of gradients on any device.
fn composed_squares(ids: &[ParameterId], gradients: &Gradients) -> Result<Vec<Option<f64>>, NnError> {
    let there: Vec<_> = ids.iter().filter_map(|id| gradients.get(*id)).collect();
    let mut found = composition::sums_of_squares(&there)?.into_iter();
    Ok(ids.iter().map(|id| gradients.get(*id).and_then(|_| found.next())).collect())
}

pub(super) fn sum_of_squares(values: &[f32]) -> f64 {
    let sums: Vec<f64> = values.par_chunks(CHUNK).map(chunk_sum_of_squares).collect();
    sums.iter().sum()
}

fn chunk_sum_of_squares(values: &[f32]) -> f64 {
    let mut lanes = [0f64; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for eight in whole {
        for (lane, &value) in lanes.iter_mut().zip(eight) {
            *lane += f64::from(value) * f64::from(value);
        }
    }
    let rest: f64 = rest.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    lanes.iter().sum::<f64>() + rest
}
