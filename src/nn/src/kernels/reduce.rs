//! Sums in a fixed order.

use super::elementwise::{CHUNK, add_assign_serial, rows_per_chunk};
use super::vectorized::vectorized;
use rayon::prelude::*;

const LANES: usize = 32;

/// The sum of `f(a[i])` over a slice that fits into a task, in lanes so that the loop vectorizes.
#[inline(always)]
pub fn sum_of(a: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let mut chunks = a.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, a) in lanes.iter_mut().zip(chunk) {
            *lane += f(*a);
        }
    }
    for (lane, a) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane += f(*a);
    }
    fold(&mut lanes)
}

/// The sum of `f(a[i], b[i])`, computed like [`sum_of`].
#[inline(always)]
pub fn sum_of_pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (mut a, mut b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (a, b) in (&mut a).zip(&mut b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f(*a, *b);
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a.remainder()).zip(b.remainder()) {
        *lane += f(*a, *b);
    }
    fold(&mut lanes)
}

/// The largest element of a slice that fits into a task; minus infinity if it is empty.
#[inline(always)]
pub fn maximum(a: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut chunks = a.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, a) in lanes.iter_mut().zip(chunk) {
            *lane = if *a > *lane { *a } else { *lane };
        }
    }
    for (lane, a) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = if *a > *lane { *a } else { *lane };
    }
    lanes.iter().fold(f32::NEG_INFINITY, |largest, lane| largest.max(*lane))
}

#[inline(always)]
fn fold(lanes: &mut [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
        half /= 2;
    }
    lanes[0]
}

vectorized! {
    fn sum_task[F: Fn(f32) -> f32](a: &[f32], f: &F) -> f32 {
        sum_of(a, f)
    }
}

vectorized! {
    fn sum_pairs_task[F: Fn(f32, f32) -> f32](a: &[f32], b: &[f32], f: &F) -> f32 {
        sum_of_pairs(a, b, f)
    }
}

/// The sum of `f(a[i])` over a slice of any length: chunks in single precision, added up in double precision, in order.
pub fn sum(a: &[f32], f: impl Fn(f32) -> f32 + Sync) -> f64 {
    let partial: Vec<f32> = a.par_chunks(CHUNK).map(|a| sum_task(a, &f)).collect();
    partial.iter().map(|sum| f64::from(*sum)).sum()
}

/// The sum of `f(a[i], b[i])`, computed like [`sum`], on one thread.
pub fn sum_pairs_serial(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f64 {
    let chunks = a.chunks(4096).zip(b.chunks(4096));
    chunks.map(|(a, b)| f64::from(sum_pairs_task(a, b, &f))).sum()
}

/// Sums over rows: `out[column] = sum of a[row][column]`.
pub fn sum_rows(a: &[f32], width: usize) -> Vec<f32> {
    if width == 0 {
        return Vec::new();
    }
    let chunks = a.par_chunks(rows_per_chunk(width) * width);
    sum_vectors(&chunks.map(|a| sum_rows_serial(a, width)).collect::<Vec<_>>(), width)
}

/// Sums over rows like [`sum_rows`], on one thread.
pub fn sum_rows_serial(a: &[f32], width: usize) -> Vec<f32> {
    let mut total = vec![0.0; width];
    add_rows(&mut total, a);
    total
}

vectorized! {
    /// Adds every row of `rows` to `total`, on one thread.
    pub fn add_rows(total: &mut [f32], rows: &[f32]) {
        for row in rows.chunks_exact(total.len().max(1)) {
            for (total, x) in total.iter_mut().zip(row) {
                *total += x;
            }
        }
    }
}

/// The sum of vectors, in order.
pub fn sum_vectors(vectors: &[Vec<f32>], width: usize) -> Vec<f32> {
    let mut total = vec![0.0; width];
    vectors.iter().for_each(|vector| add_assign_serial(&mut total, vector));
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::RngKey;

    #[test]
    fn sums_and_maxima_agree_with_loops() {
        for length in [0, 1, 31, 32, 33, 100, 40_000] {
            let a = RngKey::new(1).uniforms(length);
            let b = RngKey::new(2).uniforms(length);
            let exact: f64 = a.iter().map(|a| f64::from(*a)).sum();
            assert!((sum(&a, |a| a) - exact).abs() <= 1e-6 * exact.max(1.0));
            let exact: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(sum_of_pairs(&a, &b, |a, b| a * b)) - exact).abs() <= 1e-4 * exact.max(1.0));
            assert_eq!(maximum(&a), a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
        let rows: Vec<f32> = (0..60_000).map(|i| (i % 3) as f32).collect();
        assert_eq!(sum_rows(&rows, 3), [0.0, 20_000.0, 40_000.0]);
    }
}
