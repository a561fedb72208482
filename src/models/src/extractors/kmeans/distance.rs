//! The nearest centre of every frame.

use rayon::prelude::*;

use crate::extractors::Matrix;

/// Frames that share one pass over the centres: their distances stay in the cache.
const FRAMES_PER_BLOCK: usize = 16;

/// Partial sums of an inner product, wide enough for the widest vectors of today's machines.
const LANES: usize = 16;

/// Centres, ready to be searched.
pub(super) struct Nearest {
    centres: Matrix,
    /// Half the squared length of every centre.
    half_squares: Vec<f32>,
}

impl Nearest {
    pub(super) fn new(centres: Matrix) -> Self {
        let half_squares = centres.iter().map(|centre| 0.5 * dot(centre, centre)).collect();
        Self { centres, half_squares }
    }

    pub(super) fn centres(&self) -> &Matrix {
        &self.centres
    }

    /// The nearest centre of every frame (of equally near ones the first) and the squared distance to it.
    pub(super) fn assign(&self, frames: &Matrix) -> Vec<(u32, f32)> {
        let columns = frames.columns();
        let block = |block: &[f32]| self.assign_block(block, columns);
        frames.as_slice().par_chunks(FRAMES_PER_BLOCK * columns).flat_map_iter(block).collect()
    }

    /// |x − c|² = |x|² − 2 (x·c − |c|² / 2): the nearest centre has the largest x·c − |c|² / 2.
    fn assign_block(&self, block: &[f32], columns: usize) -> Vec<(u32, f32)> {
        let mut best = vec![(0, f32::NEG_INFINITY); block.len() / columns];
        for ((unit, centre), half) in (0..).zip(self.centres.iter()).zip(&self.half_squares) {
            for (best, frame) in best.iter_mut().zip(block.chunks_exact(columns)) {
                let score = dot(frame, centre) - half;
                if score > best.1 {
                    *best = (unit, score);
                }
            }
        }
        let distance = |(&(unit, _), frame): (&(u32, f32), &[f32])| {
            (unit, squared_distance(frame, self.centres.row(unit as usize)))
        };
        best.iter().zip(block.chunks_exact(columns)).map(distance).collect()
    }
}

/// The inner product, in a fixed order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    fold(a, b, |a, b| a * b)
}

/// The squared distance, in a fixed order.
pub(super) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    fold(a, b, |a, b| (a - b) * (a - b))
}

#[inline(always)]
fn fold(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += term(a[lane], b[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(&a, &b)| term(a, b)).sum();
    sums.iter().sum::<f32>() + rest
}
