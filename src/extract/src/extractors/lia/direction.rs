//! The directions of motion.

use crate::{Matrix, UnusableWeights};

use super::Checkpoint;

/// The addend to the learned matrix before it is factored, as in the public implementation.
const TINY: f64 = 1e-8;

/// Orthogonal directions of motion.
#[derive(Debug, Clone, PartialEq)]
pub struct Directions {
    /// The factor Q, `[number, direction]`.
    factor: Vec<f32>,
    directions: usize,
}

impl Directions {
    /// Computes the directions of a checkpoint.
    ///
    /// # Errors
    /// When the weight is missing, or its columns are not independent.
    pub fn new(checkpoint: &Checkpoint) -> Result<Self, UnusableWeights> {
        let weight = checkpoint.elements("direction.weight")?;
        Self::of(&weight, checkpoint.dimensions().directions)
    }

    /// Factors a matrix `[number, direction]`.
    fn of(weight: &[f32], directions: usize) -> Result<Self, UnusableWeights> {
        let weight: Vec<f64> = weight.iter().map(|value| f64::from(*value) + TINY).collect();
        let factor = orthogonal_factor(weight, directions);
        if factor.iter().any(|value| !value.is_finite()) {
            return Err(UnusableWeights("the directions of motion are not independent".to_owned()));
        }
        Ok(Self { factor: factor.into_iter().map(|value| value as f32).collect(), directions })
    }

    /// Returns the number of directions.
    pub fn count(&self) -> usize {
        self.directions
    }

    /// Returns the numbers of a motion.
    pub fn width(&self) -> usize {
        self.factor.len() / self.directions.max(1)
    }

    /// Returns the factor Q, `[number, direction]`.
    pub fn factor(&self) -> Matrix {
        Matrix::new(self.factor.clone(), self.directions)
    }

    /// Returns the motion `Q lambda` of coefficients `[direction]`.
    pub fn motion(&self, coefficients: &[f32]) -> Vec<f32> {
        let row = |row: &[f32]| row.iter().zip(coefficients).map(|(q, lambda)| q * lambda).sum();
        self.factor.chunks_exact(self.directions).map(row).collect()
    }
}

/// Returns the factor Q `[row, column]` of the QR factorization of a tall matrix by Householder's reflections, with the signs of LAPACK:
/// the diagonal of R has the sign opposite to that of the column's first remaining number.
fn orthogonal_factor(mut matrix: Vec<f64>, columns: usize) -> Vec<f64> {
    let rows = matrix.len() / columns.max(1);
    let mut reflections: Vec<Vec<f64>> = Vec::with_capacity(columns);
    for column in 0..columns.min(rows) {
        let mut vector: Vec<f64> = (column..rows).map(|row| matrix[row * columns + column]).collect();
        let norm = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
        vector[0] += norm.copysign(vector[0]);
        let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
        vector.iter_mut().for_each(|x| *x /= length);
        reflect(&mut matrix, columns, column, &vector);
        reflections.push(vector);
    }
    let mut factor = vec![0.0; rows * columns];
    (0..columns.min(rows)).for_each(|place| factor[place * columns + place] = 1.0);
    for (column, vector) in reflections.iter().enumerate().rev() {
        reflect(&mut factor, columns, column, vector);
    }
    factor
}

/// Reflects the rows from `first` on of all columns: `x - 2 v (v x)`.
fn reflect(matrix: &mut [f64], columns: usize, first: usize, vector: &[f64]) {
    for column in 0..columns {
        let rows = vector.iter().enumerate();
        let product: f64 = rows.map(|(row, v)| v * matrix[(first + row) * columns + column]).sum();
        for (row, v) in vector.iter().enumerate() {
            matrix[(first + row) * columns + column] -= 2.0 * v * product;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowmill_nn::random::RngKey;

    #[test]
    fn directions_are_orthogonal_and_span_the_matrix() {
        let (rows, columns) = (30, 4);
        let weight = RngKey::new(1).normals(rows * columns);
        let directions = Directions::of(&weight, columns).unwrap();
        let factor = directions.factor();
        assert_eq!((directions.count(), directions.width(), factor.rows()), (columns, rows, rows));
        let product = |a: usize, b: usize| factor.iter().map(|row| f64::from(row[a] * row[b])).sum::<f64>();
        for (a, b) in (0..columns).flat_map(|a| (0..columns).map(move |b| (a, b))) {
            assert!((product(a, b) - f64::from(u8::from(a == b))).abs() < 1e-6);
        }
        // The first column is the matrix's own, with the opposite sign of its first number.
        let norm = weight.iter().step_by(columns).map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let expected = -f64::from(weight[columns]) * f64::from(weight[0]).signum() / norm;
        assert!((f64::from(factor.row(1)[0]) - expected).abs() < 1e-6);
        let motion = directions.motion(&[0.0, 1.0, 0.0, 0.0]);
        assert!(motion.iter().zip(factor.iter()).all(|(a, row)| *a == row[1]));
    }
}
