//! Convolution of each channel with its own taps, for inference. Channels are innermost, so a tap is one multiply-add of rows.

use super::shared::Shared;
use super::vectorized::vectorized;
use crate::ragged::Ragged;
use rayon::prelude::*;

/// Output rows per task.
const TASK_ROWS: usize = 32;

/// Weights `[channel, tap]` as `[tap, channel]`.
pub fn taps_outermost(weights: &[f32], taps: usize) -> Vec<f32> {
    let channels = weights.len() / taps.max(1);
    (0..taps).flat_map(|tap| (0..channels).map(move |channel| weights[channel * taps + tap])).collect()
}

/// Adds `x`, convolved over the rows of each item, to `out`; zeros surround each item. Row `t` reads rows `t - before ..` of `x`, one for
/// each of the `[tap, channel]` weights.
///
/// # Panics
/// When the sizes do not fit: a bug in a caller, not an error in its input.
pub fn accumulate(out: &mut [f32], x: &[f32], weights: &[f32], before: usize, items: &Ragged, width: usize) {
    assert_eq!(out.len(), x.len(), "rows of a depthwise convolution");
    assert!(items.total() * width == x.len() && weights.len().is_multiple_of(width.max(1)), "depthwise convolution");
    let tasks = items
        .ranges()
        .iter()
        .flat_map(|item| item.clone().step_by(TASK_ROWS).map(move |row| (item, row..item.end.min(row + TASK_ROWS))));
    let buffer = Shared::new(out);
    tasks.collect::<Vec<_>>().into_par_iter().for_each(|(item, rows)| {
        for row in rows {
            // SAFETY: each row is written by one task.
            let out = unsafe { buffer.slice(row * width, width) };
            for (tap, weights) in weights.chunks_exact(width.max(1)).enumerate() {
                if let Some(source) = (row + tap).checked_sub(before).filter(|source| item.contains(source)) {
                    multiply_add(out, weights, &x[source * width..(source + 1) * width]);
                }
            }
        }
    });
}

vectorized! {
    fn multiply_add(out: &mut [f32], weights: &[f32], x: &[f32]) {
        out.iter_mut().zip(weights).zip(x).for_each(|((out, weight), x)| *out = weight.mul_add(*x, *out));
    }
}
