//! The principal components of a sample of frames, without their covariance matrix, which would not fit into memory.

use flowmill_nn::random::RngKey;
use rayon::prelude::*;

use crate::Matrix;
use crate::linear_algebra::{dot, symmetric_eigen};

/// Directions that are iterated in addition to the wanted ones; they make the last wanted ones converge.
const EXTRA: usize = 8;
/// Iterations; components whose variances differ by a tenth are separated by then to a thousandth.
const ITERATIONS: usize = 30;

/// The principal components, the one of the largest variance first.
pub(super) struct Components {
    /// Orthonormal directions, `[component][dimension]`.
    pub(super) directions: Vec<Vec<f64>>,
    /// The variance along each.
    pub(super) variances: Vec<f64>,
    /// The variance of the sample, all dimensions together.
    pub(super) total: f64,
}

impl Components {
    /// Returns the `count` first components of rows whose mean is zero, by orthogonal iteration (Halko, Martinsson and Tropp 2011)
    /// from random directions. There are fewer if the rows span fewer dimensions. `None` if a value is not finite.
    pub(super) fn of(rows: &Matrix, count: usize, rng_key: RngKey) -> Option<Self> {
        let (samples, dimensions) = (rows.rows().max(1) as f64, rows.columns());
        let width = (count + EXTRA).min(rows.rows()).min(dimensions);
        let mut basis: Vec<Vec<f64>> = (0..width)
            .map(|at| rng_key.sample(at as u64).normals(dimensions).into_iter().map(f64::from).collect())
            .collect();
        orthonormalize(&mut basis);
        for _ in 0..ITERATIONS {
            basis = covariance_times(rows, &basis);
            basis.iter_mut().flatten().for_each(|value| *value /= samples);
            orthonormalize(&mut basis);
        }
        // Rayleigh and Ritz: the components within the span.
        let images = covariance_times(rows, &basis);
        let size = basis.len();
        let projected: Vec<f64> = basis
            .iter()
            .flat_map(|one| images.iter().map(|other| dot(one, other) / samples).collect::<Vec<_>>())
            .collect();
        let total = rows.as_slice().iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / samples;
        if !total.is_finite() {
            return None;
        }
        let mut pairs = symmetric_eigen(&projected, size)?;
        pairs.retain(|(variance, _)| *variance > 1e-9 * total);
        pairs.truncate(count);
        let direction = |vector: &Vec<f64>| {
            let mut direction = vec![0.0; dimensions];
            for (weight, basis) in vector.iter().zip(&basis) {
                direction.iter_mut().zip(basis).for_each(|(value, basis)| *value += weight * basis);
            }
            signed(direction)
        };
        let directions = pairs.iter().map(|(_, vector)| direction(vector)).collect();
        Some(Self { directions, variances: pairs.iter().map(|(variance, _)| *variance).collect(), total })
    }
}

/// Returns a direction with the sign that makes its largest element positive, because components have none of their own.
pub(super) fn signed(mut direction: Vec<f64>) -> Vec<f64> {
    let largest =
        direction.iter().copied().fold(0.0f64, |best, value| if value.abs() > best.abs() { value } else { best });
    if largest < 0.0 {
        direction.iter_mut().for_each(|value| *value = -*value);
    }
    direction
}

/// Returns the sum over the rows `x` of `x (x · v)` for each direction `v`.
fn covariance_times(rows: &Matrix, basis: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let times = |direction: &Vec<f64>| {
        let mut image = vec![0.0; rows.columns()];
        let mut wide = vec![0.0; rows.columns()];
        for row in rows.iter() {
            wide.iter_mut().zip(row).for_each(|(wide, value)| *wide = f64::from(*value));
            let weight = dot(&wide, direction);
            image.iter_mut().zip(&wide).for_each(|(sum, value)| *sum += weight * value);
        }
        image
    };
    basis.par_iter().map(times).collect()
}

/// Makes the directions orthonormal (modified Gram-Schmidt, twice); those that depend on earlier ones are dropped.
fn orthonormalize(basis: &mut Vec<Vec<f64>>) {
    let mut kept: Vec<Vec<f64>> = Vec::with_capacity(basis.len());
    for mut direction in basis.drain(..) {
        let before = dot(&direction, &direction).sqrt();
        for _ in 0..2 {
            for other in &kept {
                let shared = dot(&direction, other);
                direction.iter_mut().zip(other).for_each(|(value, other)| *value -= shared * other);
            }
        }
        let length = dot(&direction, &direction).sqrt();
        if length.is_finite() && length > 1e-10 * before {
            direction.iter_mut().for_each(|value| *value /= length);
            kept.push(direction);
        }
    }
    *basis = kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_those_of_the_covariance() {
        // Three independent directions with the deviations 3, 2 and 1 in 40 dimensions.
        let rng_key = RngKey::new(4);
        let mut directions: Vec<Vec<f64>> =
            (0..3).map(|at| rng_key.sample(at).normals(40).into_iter().map(f64::from).collect()).collect();
        orthonormalize(&mut directions);
        let rows: Vec<f32> = (0..2000u64)
            .flat_map(|row| {
                let draws = rng_key.purpose("row").sample(row).normals(3);
                let value =
                    |at: usize| (0..3).map(|k| (3 - k) as f64 * f64::from(draws[k]) * directions[k][at]).sum::<f64>();
                (0..40).map(|at| value(at) as f32).collect::<Vec<_>>()
            })
            .collect();
        let found = Components::of(&Matrix::new(rows, 40), 5, RngKey::new(1)).unwrap();
        assert_eq!(found.directions.len(), 3);
        for (at, expected) in directions.iter().enumerate() {
            assert!(dot(&found.directions[at], expected).abs() > 0.995);
            let wanted = (3.0 - at as f64).powi(2);
            assert!((found.variances[at] / wanted - 1.0).abs() < 0.1);
        }
        assert!((found.total - found.variances.iter().sum::<f64>()).abs() < 1e-3 * found.total);
    }

    #[test]
    fn rows_without_variance_have_no_component() {
        let found = Components::of(&Matrix::new(vec![0.0; 50], 5), 2, RngKey::new(1)).unwrap();
        assert!(found.directions.is_empty());
        assert!(Components::of(&Matrix::new(vec![f32::NAN; 50], 5), 2, RngKey::new(1)).is_none());
    }
}
