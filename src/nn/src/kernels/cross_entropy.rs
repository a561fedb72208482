//! The cross entropy of rows of logits with one target class each.

use super::functions::exp;
use super::reduce::{maximum, sum_of};
use super::vectorized::vectorized;
use crate::host::uninitialized;
use rayon::prelude::*;

/// Rows per task.
const ROWS: usize = 16;

/// Returns the logarithm of the sum of the exponentials of each row of `width` logits.
pub fn log_sums(logits: &[f32], width: usize) -> Vec<f32> {
    let width = width.max(1);
    let mut sums = vec![0.0; logits.len() / width];
    sums.par_chunks_mut(ROWS).zip(logits.par_chunks(ROWS * width)).for_each(|(sums, logits)| {
        for (sum, row) in sums.iter_mut().zip(logits.chunks_exact(width)) {
            *sum = log_sum(row);
        }
    });
    sums
}

vectorized! {
    fn log_sum(row: &[f32]) -> f32 {
        let largest = maximum(row);
        largest + sum_of(row, |x| exp(x - largest)).ln()
    }
}

/// Returns the gradient of the weighted sum of cross entropies with respect to the logits: `weight * (softmax - 1 at the target)`.
pub fn backward(logits: &[f32], width: usize, log_sums: &[f32], targets: &[u32], weights: &[f32]) -> Vec<f32> {
    let width = width.max(1);
    // SAFETY: the rows are whole, and every element of a row is written.
    let mut out = unsafe { uninitialized(logits.len()) };
    let tasks = out.par_chunks_mut(ROWS * width).zip(logits.par_chunks(ROWS * width)).enumerate();
    tasks.for_each(|(task, (out, logits))| {
        let rows = out.chunks_exact_mut(width).zip(logits.chunks_exact(width)).enumerate();
        for (row, (out, logits)) in rows {
            let row = task * ROWS + row;
            softmax_row(out, logits, log_sums[row], weights[row]);
            out[targets[row] as usize] -= weights[row];
        }
    });
    out
}

vectorized! {
    fn softmax_row(out: &mut [f32], logits: &[f32], log_sum: f32, weight: f32) {
        for (out, x) in out.iter_mut().zip(logits) {
            *out = weight * exp(x - log_sum);
        }
    }
}
