//! Muon: matrices move along the orthogonal matrix nearest to their momentum; everything else is trained by AdamW.

use candle_core::{DType, Tensor};
use flowmill_nn::{NnError, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ParameterSettings;
use super::adam::Adam;
use super::composition::{Tensors, Updated, at_least, mix, sum_of_squares};
use super::rule::{StateArray, Step, UpdateRule};
use super::slot::Arrays;

/// Adjustment of a matrix's learning rate to its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdjustLr {
    /// Times √max(1, rows / columns), like Muon's authors.
    Original,
    /// Times 0.2 √max(rows, columns): updates as large as AdamW's, so that one learning rate serves both (Liu et al., arXiv 2502.16982).
    MatchRmsAdamw,
}

/// Muon (Jordan et al., 2024) by PyTorch's formula (`torch.optim.Muon`): with g the scaled gradient of a matrix,
///
/// ```text
/// b ← momentum b + (1 - momentum) g;  Nesterov: u = momentum b + (1 - momentum) g, otherwise u = b
/// w ← w (1 - rate decay) - adjusted rate · orthogonal(u)
/// ```
///
/// where `orthogonal` is a number of Newton-Schulz iterations in bfloat16. An array with more than two axes is treated as a matrix of its
/// first axis by all others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Muon {
    /// Share of the running mean of gradients that each update keeps.
    pub momentum: f64,
    /// Looks ahead by one update of the running mean.
    pub nesterov: bool,
    /// Newton-Schulz iterations.
    pub ns_steps: u32,
    /// Their coefficients.
    pub ns_coefficients: [f64; 3],
    /// Lower bound on the norm that a matrix is divided by.
    pub eps: f64,
    /// Adjustment of the learning rate to the shape.
    pub adjust_lr: AdjustLr,
    /// The optimizer of all parameters that are not matrices.
    pub rest: Adam,
    /// Their learning rate as a multiple.
    pub rest_lr_multiple: f64,
}

impl UpdateRule for Muon {
    fn state(&self, step: &Step<'_>) -> Vec<StateArray> {
        match orthogonalised(step) {
            true => vec![StateArray::new("momentum_buffer", step.dims)],
            false => self.rest.state(step),
        }
    }

    fn update(&self, step: &Step<'_>, arrays: Arrays<'_>) {
        if orthogonalised(step) {
            return self.update_matrix(step, arrays);
        }
        self.rest.update(&Step { settings: self.rest_settings(step), ..*step }, arrays);
    }

    fn compose(&self, step: &Step<'_>, tensors: &Tensors) -> Result<Updated, NnError> {
        if orthogonalised(step) {
            return self.compose_matrix(step, tensors);
        }
        self.rest.compose(&Step { settings: self.rest_settings(step), ..*step }, tensors)
    }
}

fn orthogonalised(step: &Step<'_>) -> bool {
    step.settings.muon && step.dims.len() >= 2
}

impl Muon {
    /// Returns the settings of parameters that are not matrices.
    fn rest_settings(&self, step: &Step<'_>) -> ParameterSettings {
        ParameterSettings { lr_multiple: step.settings.lr_multiple * self.rest_lr_multiple, ..step.settings }
    }

    /// The learning rate of a matrix.
    fn adjusted_rate(&self, rate: f64, rows: usize, columns: usize) -> f64 {
        rate * match self.adjust_lr {
            AdjustLr::Original => (rows as f64 / columns as f64).max(1.0).sqrt(),
            AdjustLr::MatchRmsAdamw => 0.2 * (rows.max(columns) as f64).sqrt(),
        }
    }

    fn update_matrix(&self, step: &Step<'_>, arrays: Arrays<'_>) {
        let Arrays { weights, gradient, mut state } = arrays;
        let (Some(buffer), Some(&rows)) = (state.first_mut(), step.dims.first()) else { return };
        let columns = weights.len() / rows.max(1);
        let (share, momentum) = ((1.0 - self.momentum) as f32, self.momentum as f32);
        let look = |(gradient, buffer): (&f32, &mut f32)| {
            let gradient = step.update.gradient(*gradient);
            *buffer = between(*buffer, gradient, share);
            if self.nesterov { between(gradient, *buffer, momentum) } else { *buffer }
        };
        let update: Vec<f32> = gradient.iter().zip(buffer.iter_mut()).map(look).collect();
        // Shapes are those of one matrix throughout, so no product can fail.
        let Ok(update) = self.orthogonal(update, rows, columns) else { return };
        let rate = step.rate();
        let adjusted = self.adjusted_rate(rate, rows, columns);
        let (keep, adjusted) = ((1.0 - rate * step.settings.weight_decay) as f32, adjusted as f32);
        weights.iter_mut().zip(&update).for_each(|(weight, update)| *weight = *weight * keep - adjusted * update);
    }

    fn compose_matrix(&self, step: &Step<'_>, tensors: &Tensors) -> Result<Updated, NnError> {
        let (Some(buffer), Some(&rows)) = (tensors.state.first(), step.dims.first()) else {
            return Ok(Updated::unchanged(tensors));
        };
        let (weights, rate) = (&tensors.weights, step.rate());
        let columns = weights.elem_count() / rows.max(1);
        let gradient = step.update.tensor(&tensors.gradient)?;
        let buffer = mix(self.momentum, buffer, 1.0 - self.momentum, &gradient)?;
        let ahead = match self.nesterov {
            true => mix(1.0 - self.momentum, &gradient, self.momentum, &buffer)?,
            false => buffer.clone(),
        };
        let update = self.orthogonal_tensor(&ahead.reshape((rows, columns))?)?.reshape(step.dims)?;
        let (keep, adjusted) = (1.0 - rate * step.settings.weight_decay, self.adjusted_rate(rate, rows, columns));
        Ok(Updated::new(mix(keep, weights, -adjusted, &update)?, vec![buffer]))
    }

    /// The composition of [`orthogonal`](Self::orthogonal). Products of bfloat16 numbers are summed in single precision.
    fn orthogonal_tensor(&self, matrix: &Tensor) -> Result<Tensor, NnError> {
        let rounded = |tensor: &Tensor| tensor.to_dtype(DType::BF16)?.to_dtype(DType::F32);
        let (rows, columns) = matrix.dims2()?;
        let wide = if rows > columns { matrix.t()?.contiguous()? } else { matrix.clone() };
        let mut matrix = rounded(&wide)?;
        let norm = sum_of_squares(&matrix)?.sqrt()?.to_dtype(DType::F32)?;
        matrix = rounded(&matrix.broadcast_div(&at_least(&rounded(&norm)?, self.eps)?)?)?;
        let [a, b, c] = self.ns_coefficients;
        for _ in 0..self.ns_steps {
            let gram = rounded(&matrix.matmul(&matrix.t()?)?)?;
            // The Gram matrix is its own transpose.
            let polynomial = rounded(&mix(b, &gram, c, &gram.matmul(&gram)?)?)?;
            matrix = rounded(&mix(a, &matrix, 1.0, &polynomial.matmul(&matrix)?)?)?;
        }
        Ok(if rows > columns { matrix.t()?.contiguous()? } else { matrix })
    }

    /// Approximates the orthogonal matrix nearest to a matrix `[rows, columns]`: `U Vᵀ` of its singular value decomposition, with
    /// singular values near 1. Every product is rounded to bfloat16, like in PyTorch.
    fn orthogonal(&self, mut matrix: Vec<f32>, rows: usize, columns: usize) -> Result<Vec<f32>, NnError> {
        if rows > columns {
            matrix = transposed(&matrix, columns);
        }
        let (short, long) = (rows.min(columns), rows.max(columns));
        round(&mut matrix);
        let norm = rounded(super::norm::sum_of_squares(&matrix).sqrt() as f32).max(self.eps as f32);
        matrix.iter_mut().for_each(|value| *value = rounded(*value / norm));
        let [a, b, c] = self.ns_coefficients.map(|coefficient| coefficient as f32);
        for _ in 0..self.ns_steps {
            let mut gram = product(&matrix, &matrix, [short, long, short])?;
            round(&mut gram);
            let mut polynomial = product(&gram, &gram, [short, short, short])?;
            polynomial
                .iter_mut()
                .zip(&gram)
                .for_each(|(square, gram)| *square = rounded(b.mul_add(*gram, c * *square)));
            let turned = product(&polynomial, &transposed(&matrix, long), [short, short, long])?;
            matrix.iter_mut().zip(&turned).for_each(|(value, turned)| *value = rounded(a.mul_add(*value, *turned)));
        }
        Ok(if rows > columns { transposed(&matrix, long) } else { matrix })
    }
}

/// `left rightᵀ` for `left` `[m, k]` and `right` `[n, k]`; the sizes are m, k, n.
fn product(left: &[f32], right: &[f32], [m, k, n]: [usize; 3]) -> Result<Vec<f32>, NnError> {
    let product = Value::from_vec(left.to_vec(), &[m, k])?.linear(&Value::from_vec(right.to_vec(), &[n, k])?, None)?;
    Ok(flowmill_nn::host::slice("Muon", product.tensor())?.to_vec())
}

fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    let rows = matrix.len() / columns.max(1);
    (0..columns).flat_map(|column| (0..rows).map(move |row| matrix[row * columns + column])).collect()
}

/// Interpolates between two numbers, starting from the nearer end. The last bit matters here like in the products: a value that is
/// rounded to bfloat16 next may round the other way, which is a difference of one part in 256.
fn between(start: f32, end: f32, share: f32) -> f32 {
    let way = end - start;
    if share < 0.5 { share.mul_add(way, start) } else { (share - 1.0).mul_add(way, end) }
}

/// Rounds to the nearest bfloat16, ties to even.
fn rounded(value: f32) -> f32 {
    half::bf16::from_f32(value).to_f32()
}

fn round(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = rounded(*value));
}

#[cfg(test)]
mod tests {
    use super::super::adam::Decay;
    use super::*;

    fn muon(ns_steps: u32) -> Muon {
        Muon {
            momentum: 0.95,
            nesterov: true,
            ns_steps,
            ns_coefficients: [3.4445, -4.775, 2.0315],
            eps: 1e-7,
            adjust_lr: AdjustLr::Original,
            rest: Adam { betas: [0.9, 0.999], eps: 1e-8, decay: Decay::Weights },
            rest_lr_multiple: 1.0,
        }
    }

    /// Rows of a wide result are close to orthonormal, and so are the columns of a tall one.
    #[test]
    fn the_result_is_nearly_orthogonal() {
        for (rows, columns) in [(5, 12), (12, 5)] {
            let rng_key = flowmill_nn::random::RngKey::new(3).normals(rows * columns);
            let found = muon(10).orthogonal(rng_key, rows, columns).unwrap();
            let (wide, long) = if rows < columns { (found, columns) } else { (transposed(&found, columns), rows) };
            let gram = product(&wide, &wide, [5, long, 5]).unwrap();
            for (index, value) in gram.iter().enumerate() {
                let expected = if index % 6 == 0 { 1.0 } else { 0.0 };
                assert!((value - expected).abs() < 0.5, "{rows} x {columns}: {gram:?}");
            }
        }
    }

    #[test]
    fn a_matrix_of_zeros_stays() {
        assert_eq!(muon(5).orthogonal(vec![0.0; 6], 2, 3).unwrap(), vec![0.0; 6]);
    }
}
