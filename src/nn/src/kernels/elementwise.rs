//! Maps over slices.

use super::vectorised;
use crate::host::uninitialised;
use rayon::prelude::*;

/// Elements per task: fixed, so that results do not depend on the number of threads.
pub const CHUNK: usize = 16 * 1024;

/// `out[i] = f(a[i])`.
pub fn map(a: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = uninitialised(a.len());
    let tasks = out.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK));
    tasks.for_each(|(out, a)| vectorised(|| out.iter_mut().zip(a).for_each(|(out, a)| *out = f(*a))));
    out
}

/// `out[i] = f(a[i], b[i])`; as long as the shorter one.
pub fn zip(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = uninitialised(a.len().min(b.len()));
    let tasks = out.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).zip(b.par_chunks(CHUNK));
    tasks.for_each(|((out, a), b)| {
        vectorised(|| {
            for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                *out = f(*a, *b);
            }
        });
    });
    out
}

/// `a[i] = f(a[i])`.
pub fn map_assign(a: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    a.par_chunks_mut(CHUNK).for_each(|a| vectorised(|| a.iter_mut().for_each(|a| *a = f(*a))));
}

/// `a[i] = f(a[i], b[i])`.
pub fn zip_assign(a: &mut [f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    let tasks = a.par_chunks_mut(CHUNK).zip(b.par_chunks(CHUNK));
    tasks.for_each(|(a, b)| vectorised(|| a.iter_mut().zip(b).for_each(|(a, b)| *a = f(*a, *b))));
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
    vectorised(|| a.iter_mut().zip(b).for_each(|(a, b)| *a += *b));
}

/// Rows of `width` elements per task.
pub fn rows_per_chunk(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}
