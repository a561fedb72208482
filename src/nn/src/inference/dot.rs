//! A layer on a single vector.

use crate::kernels::vectorized::vectorized;

/// Weights `[output][input]` and a bias, for one vector at a time.
#[derive(Debug, Clone)]
pub struct Dot {
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Dot {
    /// Creates a layer; the number of outputs is the length of the bias.
    ///
    /// # Panics
    /// When the weights are not a whole number of rows: a bug in a layer, which checks what it loads.
    pub fn new(weights: &[f32], bias: &[f32]) -> Self {
        assert!(!bias.is_empty() && weights.len().is_multiple_of(bias.len()), "rows of weights");
        Self { weights: weights.to_vec(), bias: bias.to_vec() }
    }

    /// `weights x + bias`.
    pub fn apply(&self, x: &[f32]) -> Vec<f32> {
        let rows = self.weights.chunks_exact((self.weights.len() / self.bias.len()).max(1));
        rows.zip(&self.bias).map(|(row, bias)| bias + inner_product(row, x)).collect()
    }
}

vectorized! {
    fn inner_product(a: &[f32], b: &[f32]) -> f32 {
        const LANES: usize = 32;
        let ((a_chunks, a_rest), (b_chunks, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        let mut lanes = [0.0f32; LANES];
        for (a, b) in a_chunks.iter().zip(b_chunks) {
            for lane in 0..LANES {
                lanes[lane] += a[lane] * b[lane];
            }
        }
        lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_an_inner_product() {
        let weights: Vec<f32> = (0..2 * 40).map(|index| index as f32).collect();
        let x: Vec<f32> = (0..40).map(|index| (index % 3) as f32).collect();
        let expected = |row: usize| (0..40).map(|k| weights[40 * row + k] * x[k]).sum::<f32>() + row as f32;
        assert_eq!(Dot::new(&weights, &[0.0, 1.0]).apply(&x), [expected(0), expected(1)]);
    }
}
