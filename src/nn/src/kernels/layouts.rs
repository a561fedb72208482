//! Operands of a product in every layout that kernels tell apart, for their tests.

use super::gemm::Matrix;
use crate::random::RngKey;

/// Two operands, their transposes in memory, and the left one with gaps.
pub(super) struct Layouts {
    /// Rows, inner size and columns.
    sizes: [usize; 3],
    /// The left side, row-major.
    pub a: Vec<f32>,
    /// The right side, row-major.
    pub b: Vec<f32>,
    a_flipped: Vec<f32>,
    b_flipped: Vec<f32>,
    a_spread: Vec<f32>,
}

impl Layouts {
    /// Draws operands of a product.
    pub fn new(sizes: [usize; 3]) -> Self {
        let rng_key = RngKey::new(3);
        let [rows, inner, columns] = sizes;
        let a: Vec<f32> = rng_key.purpose("a").normals(rows * inner);
        let b: Vec<f32> = rng_key.purpose("b").normals(inner * columns);
        let (a_flipped, b_flipped) = (flipped(&a, rows, inner), flipped(&b, inner, columns));
        // Every other number of a line: no axis is contiguous.
        let a_spread = a.iter().flat_map(|x| [*x, f32::NAN]).collect();
        Self { sizes, a, b, a_flipped, b_flipped, a_spread }
    }

    /// Every layout of the left side with every layout of the right side.
    pub fn pairs(&self) -> Vec<[Matrix<'_>; 2]> {
        let [rows, inner, columns] = self.sizes;
        let lefts = [
            Matrix::row_major(&self.a, rows, inner),
            Matrix::row_major(&self.a_flipped, inner, rows).transposed(),
            Matrix::strided(&self.a_spread, [rows, inner], [2 * inner, 2]),
        ];
        let rights = [
            Matrix::row_major(&self.b, inner, columns),
            Matrix::row_major(&self.b_flipped, columns, inner).transposed(),
        ];
        lefts.into_iter().flat_map(|a| rights.map(|b| [a, b])).collect()
    }

    /// Each element in double precision, from rounded numbers, and the sum of the absolute values of its terms.
    pub fn sums(&self, round: impl Fn(f32) -> f32) -> Vec<(f64, f64)> {
        let [rows, inner, columns] = self.sizes;
        let product = |r: usize, c: usize, k: usize| {
            f64::from(round(self.a[r * inner + k])) * f64::from(round(self.b[k * columns + c]))
        };
        let sum = |r: usize, c: usize| {
            (0..inner).map(|k| product(r, c, k)).fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()))
        };
        (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))).map(|(r, c)| sum(r, c)).collect()
    }
}

fn flipped(elements: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|index| elements[index % rows * columns + index / rows]).collect()
}
