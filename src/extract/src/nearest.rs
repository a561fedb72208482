//! The nearest centre of every frame.

use flowmill_nn::kernels::gemm;
use rayon::prelude::*;

use crate::Matrix;

/// Scores of frames against centres that are held at a time: what fits into a processor's cache.
const SCORES_PER_BLOCK: usize = 1 << 17;

/// Frames that one task takes at most.
const MAX_FRAMES_PER_BLOCK: usize = 256;

/// Partial sums of an inner product, wide enough for the widest vectors of today's machines.
const LANES: usize = 16;

/// Centres, ready to be searched.
pub(crate) struct Nearest {
    centres: Matrix,
    /// Half the squared length of every centre.
    half_squares: Vec<f32>,
}

impl Nearest {
    pub(crate) fn new(centres: Matrix) -> Self {
        let half_squares = centres.iter().map(|centre| 0.5 * dot(centre, centre)).collect();
        Self { centres, half_squares }
    }

    pub(crate) fn centres(&self) -> &Matrix {
        &self.centres
    }

    /// The nearest centre of every frame (of equally near ones the first) and the squared distance to it.
    pub(crate) fn assign(&self, frames: &Matrix) -> Vec<(u32, f32)> {
        let frames_per_block = (SCORES_PER_BLOCK / self.centres.rows().max(1)).clamp(1, MAX_FRAMES_PER_BLOCK);
        let blocks = frames.as_slice().par_chunks(frames_per_block * frames.columns());
        blocks.flat_map_iter(|block| self.assign_block(block)).collect()
    }

    /// |x − c|² = |x|² − 2 (x·c − |c|² / 2): the nearest centre has the largest x·c − |c|² / 2.
    fn assign_block(&self, block: &[f32]) -> Vec<(u32, f32)> {
        let (units, columns) = (self.centres.rows(), self.centres.columns());
        let frames = block.len() / columns;
        let mut products = vec![0.0; frames * units];
        let centres = gemm::Matrix::row_major(self.centres.as_slice(), units, columns).transposed();
        let frames = gemm::Matrix::row_major(block, frames, columns);
        gemm::multiply_on_one_thread(&mut products, units, frames, centres, false);
        let nearest = |(products, frame): (&[f32], &[f32])| {
            let unit = self.best(products);
            (unit, squared_distance(frame, self.centres.row(unit as usize)))
        };
        products.chunks_exact(units).zip(block.chunks_exact(columns)).map(nearest).collect()
    }

    /// The first unit with the largest score.
    fn best(&self, products: &[f32]) -> u32 {
        let mut best = (0, f32::NEG_INFINITY);
        for ((unit, product), half) in (0..).zip(products).zip(&self.half_squares) {
            if product - half > best.1 {
                best = (unit, product - half);
            }
        }
        best.0
    }
}

/// The inner product, in a fixed order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    fold(a, b, |a, b| a * b)
}

/// The squared distance, in a fixed order.
pub(crate) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_goes_to_the_centre_that_a_plain_search_finds() {
        let rng_key = flowmill_nn::random::RngKey::new(4);
        let frames = Matrix::new(rng_key.purpose("frames").normals(700 * 21), 21);
        let nearest = Nearest::new(Matrix::new(rng_key.purpose("centres").normals(600 * 21), 21));
        for ((unit, distance), frame) in nearest.assign(&frames).into_iter().zip(frames.iter()) {
            let least = nearest.centres().iter().map(|centre| squared_distance(frame, centre)).fold(f32::MAX, f32::min);
            assert!(distance <= least * (1.0 + 1e-5), "unit {unit}: {distance} instead of {least}");
        }
    }
}
