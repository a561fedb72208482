//! Maps over slices.

use crate::host::uninitialised;
use rayon::prelude::*;

/// Elements per task: fixed, so that results do not depend on the number of threads.
pub const CHUNK: usize = 16 * 1024;

/// `out[i] = f(a[i])`.
pub fn map(a: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = uninitialised(a.len());
    let tasks = out.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK));
    tasks.for_each(|(out, a)| out.iter_mut().zip(a).for_each(|(out, a)| *out = f(*a)));
    out
}

/// `out[i] = f(a[i], b[i])`.
pub fn zip(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = uninitialised(a.len().min(b.len()));
    let tasks = out
        .par_chunks_mut(CHUNK)
        .zip(a.par_chunks(CHUNK))
        .zip(b.par_chunks(CHUNK));
    tasks.for_each(|((out, a), b)| {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = f(*a, *b);
        }
    });
    out
}

/// `a[i] = f(a[i])`.
pub fn map_assign(a: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    a.par_chunks_mut(CHUNK)
        .for_each(|a| a.iter_mut().for_each(|a| *a = f(*a)));
}

/// `a[i] = f(a[i], b[i])`.
pub fn zip_assign(a: &mut [f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    let tasks = a.par_chunks_mut(CHUNK).zip(b.par_chunks(CHUNK));
    tasks.for_each(|(a, b)| a.iter_mut().zip(b).for_each(|(a, b)| *a = f(*a, *b)));
}

/// `a[i] += b[i]`.
pub fn add_assign(a: &mut [f32], b: &[f32]) {
    zip_assign(a, b, |a, b| a + b);
}

/// `a[i] *= factor`.
pub fn scale_assign(a: &mut [f32], factor: f32) {
    map_assign(a, |a| a * factor);
}

/// `out[row][column] = f(a[row][column], b[column])` for a vector `b` shared by all rows.
pub fn zip_rows(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = uninitialised(a.len());
    let chunk = rows_per_chunk(b.len()) * b.len().max(1);
    let tasks = out.par_chunks_mut(chunk).zip(a.par_chunks(chunk));
    tasks.for_each(|(out, a)| {
        for (out, a) in out.chunks_exact_mut(b.len()).zip(a.chunks_exact(b.len())) {
            for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                *out = f(*a, *b);
            }
        }
    });
    out
}

/// Rows of `width` elements per task.
pub fn rows_per_chunk(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

/// The sum of all elements: per chunk in single precision lanes, chunks in order in double precision.
pub fn sum(a: &[f32]) -> f64 {
    let partial: Vec<f64> = a
        .par_chunks(CHUNK)
        .map(|a| a.iter().map(|a| f64::from(*a)).sum())
        .collect();
    partial.iter().sum()
}

/// Sums over rows: `out[column] = sum of a[row][column]`.
pub fn sum_rows(a: &[f32], width: usize) -> Vec<f32> {
    if width == 0 {
        return Vec::new();
    }
    let partial: Vec<Vec<f32>> = a
        .par_chunks(rows_per_chunk(width) * width)
        .map(|a| chunk_sum_rows(a, width))
        .collect();
    let mut total = vec![0.0; width];
    for partial in partial {
        total
            .iter_mut()
            .zip(partial)
            .for_each(|(total, partial)| *total += partial);
    }
    total
}

fn chunk_sum_rows(a: &[f32], width: usize) -> Vec<f32> {
    let mut total = vec![0.0; width];
    for row in a.chunks_exact(width) {
        total.iter_mut().zip(row).for_each(|(total, a)| *total += a);
    }
    total
}
