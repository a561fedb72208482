//! Normalization by the root mean square of each row (RMSNorm; Zhang and Sennrich, arXiv 1910.07467).

use super::elementwise::rows_per_chunk;
use super::reduce::{sum_of, sum_of_pairs, sum_vectors};
use super::vectorized::vectorized;
use crate::host::uninitialized;
use rayon::prelude::*;

/// Divides each row by the root of its mean square plus `epsilon`, and multiplies by the gain, which is as wide as a row. Returns the
/// result and the reciprocal root of each row.
///
/// # Panics
/// When the rows are not whole: a bug in a layer, not an error in its input.
pub fn forward(x: &[f32], gain: &[f32], epsilon: f32) -> (Vec<f32>, Vec<f32>) {
    let width = gain.len().max(1);
    let rows = x.len() / width;
    assert_eq!(rows * width, x.len(), "whole rows of a normalization");
    // SAFETY: the rows are whole, and every element of a row is written.
    let mut out = unsafe { uninitialized(x.len()) };
    let mut scales = vec![0.0; rows];
    let chunk = rows_per_chunk(width);
    let tasks = out.par_chunks_mut(chunk * width).zip(x.par_chunks(chunk * width)).zip(scales.par_chunks_mut(chunk));
    tasks.for_each(|((out, x), scales)| chunk_forward(out, x, gain, epsilon, scales));
    (out, scales)
}

vectorized! {
    fn chunk_forward(out: &mut [f32], x: &[f32], gain: &[f32], epsilon: f32, scales: &mut [f32]) {
        let width = gain.len().max(1);
        for ((out, x), scale) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(scales) {
            *scale = 1.0 / (sum_of(x, |x| x * x) / width as f32 + epsilon).sqrt();
            let factor = *scale;
            for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
                *out = x * factor * gain;
            }
        }
    }
}

/// Gradients of [`forward`]: replaces `gradient` (of the output) by that of the input; returns that of the gain.
pub fn backward(gradient: &mut [f32], x: &[f32], gain: &[f32], scales: &[f32]) -> Vec<f32> {
    let width = gain.len().max(1);
    let chunk = rows_per_chunk(width);
    let tasks = gradient.par_chunks_mut(chunk * width).zip(x.par_chunks(chunk * width)).zip(scales.par_chunks(chunk));
    let partial: Vec<Vec<f32>> = tasks
        .map(|((gradient, x), scales)| {
            let mut sum = vec![0.0; gain.len()];
            chunk_backward(gradient, x, gain, scales, &mut sum);
            sum
        })
        .collect();
    sum_vectors(&partial, gain.len())
}

vectorized! {
    fn chunk_backward(gradient: &mut [f32], x: &[f32], gain: &[f32], scales: &[f32], gain_sum: &mut [f32]) {
        let width = gain.len().max(1);
        for ((gradient, x), scale) in gradient.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(scales) {
            for (((sum, gradient), x), gain) in gain_sum.iter_mut().zip(gradient.iter_mut()).zip(x).zip(gain) {
                *sum += *gradient * x * scale;
                *gradient *= gain;
            }
            let along = sum_of_pairs(gradient, x, |g, x| g * x) * scale * scale / width as f32;
            for (gradient, x) in gradient.iter_mut().zip(x) {
                *gradient = scale * (*gradient - x * along);
            }
        }
    }
}
