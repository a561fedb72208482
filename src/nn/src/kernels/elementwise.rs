//! Maps over slices.

use super::vectorized::vectorized;
use crate::host::uninitialized;
use rayon::prelude::*;

/// Elements per task: fixed, so that results do not depend on the number of threads.
pub const CHUNK: usize = 16 * 1024;

vectorized! {
    fn map_loop[F: Fn(f32) -> f32](out: &mut [f32], a: &[f32], f: &F) {
        for (out, a) in out.iter_mut().zip(a) {
            *out = f(*a);
        }
    }
}

vectorized! {
    fn zip_loop[F: Fn(f32, f32) -> f32](out: &mut [f32], a: &[f32], b: &[f32], f: &F) {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = f(*a, *b);
        }
    }
}

vectorized! {
    fn map_assign_loop[F: Fn(f32) -> f32](a: &mut [f32], f: &F) {
        for a in a {
            *a = f(*a);
        }
    }
}

vectorized! {
    /// `a[i] = f(a[i], b[i])` on one thread.
    pub fn zip_assign_serial[F: Fn(f32, f32) -> f32](a: &mut [f32], b: &[f32], f: &F) {
        for (a, b) in a.iter_mut().zip(b) {
            *a = f(*a, *b);
        }
    }
}

vectorized! {
    /// `out[row][column] = f(a[row][column], b[column])` for a vector `b` shared by all rows, on one thread.
    pub fn zip_rows_serial[F: Fn(f32, f32) -> f32](out: &mut [f32], a: &[f32], b: &[f32], f: &F) {
        let width = b.len().max(1);
        for (out, a) in out.chunks_exact_mut(width).zip(a.chunks_exact(width)) {
            for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                *out = f(*a, *b);
            }
        }
    }
}

vectorized! {
    /// Adds one vector to each row, on one thread.
    pub fn add_to_rows(rows: &mut [f32], vector: &[f32]) {
        for row in rows.chunks_exact_mut(vector.len().max(1)) {
            for (row, vector) in row.iter_mut().zip(vector) {
                *row += vector;
            }
        }
    }
}

/// `out[i] = f(a[i])`.
pub fn map(a: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    // SAFETY: both are cut into the same chunks, and every element of a chunk is written.
    let mut out = unsafe { uninitialized(a.len()) };
    let tasks = out.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK));
    tasks.for_each(|(out, a)| map_loop(out, a, &f));
    out
}

/// `out[i] = f(a[i], b[i])`; has the length of the shorter input.
pub fn zip(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    let length = a.len().min(b.len());
    let (a, b) = (&a[..length], &b[..length]);
    // SAFETY: all three are cut into the same chunks, and every element of a chunk is written.
    let mut out = unsafe { uninitialized(length) };
    let tasks = out.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).zip(b.par_chunks(CHUNK));
    tasks.for_each(|((out, a), b)| zip_loop(out, a, b, &f));
    out
}

/// `out[row][column] = f(a[row][column], b[column])` for a vector `b` shared by all rows.
pub fn zip_rows(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = vec![0.0; a.len()];
    let width = b.len().max(1);
    let chunk = rows_per_chunk(width) * width;
    out.par_chunks_mut(chunk).zip(a.par_chunks(chunk)).for_each(|(out, a)| {
        zip_rows_serial(out, a, b, &f);
    });
    out
}

/// `a[i] = f(a[i])`.
pub fn map_assign(a: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    a.par_chunks_mut(CHUNK).for_each(|a| map_assign_loop(a, &f));
}

/// `a[i] = f(a[i], b[i])`.
pub fn zip_assign(a: &mut [f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    let tasks = a.par_chunks_mut(CHUNK).zip(b.par_chunks(CHUNK));
    tasks.for_each(|(a, b)| zip_assign_serial(a, b, &f));
}

/// `a[i] += b[i]`.
pub fn add_assign(a: &mut [f32], b: &[f32]) {
    zip_assign(a, b, |a, b| a + b);
}

/// `a[i] *= factor`.
pub fn scale_assign(a: &mut [f32], factor: f32) {
    map_assign(a, |a| a * factor);
}

/// `a[i] += b[i]` on one thread.
pub fn add_assign_serial(a: &mut [f32], b: &[f32]) {
    zip_assign_serial(a, b, &|a, b| a + b);
}

/// Rows of `width` elements per task.
pub fn rows_per_chunk(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}
