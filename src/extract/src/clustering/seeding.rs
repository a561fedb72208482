//! k-means++: centres that start far apart (Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding",
//! 2007).

use flowmill_nn::random::RngKey;
use rayon::prelude::*;

use crate::{Matrix, nearest::squared_distance};

/// Frames whose distances are summed together; fixed, so that the sums do not depend on the number of threads.
const CHUNK: usize = 1024;

/// The indices of `k` frames, the first drawn uniformly, each further one with a chance proportional to its squared
/// distance to the nearest one chosen before. When all frames are already centres, the first frames are taken again.
pub(super) fn choose(frames: &Matrix, k: usize, rng_key: RngKey) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(k);
    let mut distances = vec![f32::INFINITY; frames.rows()];
    let mut next = rng_key.below_at(0, u32::try_from(frames.rows()).unwrap_or(u32::MAX)) as usize;
    while chosen.len() < k {
        chosen.push(next);
        let sums = update(frames, &mut distances, frames.row(next));
        // 48 random bits: enough to reach every frame of a large sample.
        let words = rng_key.block(chosen.len() as u64);
        let uniform = (u64::from(words[0]) << 16 | u64::from(words[1] >> 16)) as f64 / (1u64 << 48) as f64;
        next = proportional(&distances, &sums, uniform).unwrap_or(chosen.len() % frames.rows().max(1));
    }
    chosen
}

/// Lowers the distances to that of a new centre; gives their sum in every chunk.
fn update(frames: &Matrix, distances: &mut [f32], centre: &[f32]) -> Vec<f64> {
    let columns = frames.columns();
    let chunks = distances.par_chunks_mut(CHUNK).zip(frames.as_slice().par_chunks(CHUNK * columns));
    let chunk = |(distances, frames): (&mut [f32], &[f32])| {
        for (distance, frame) in distances.iter_mut().zip(frames.chunks_exact(columns)) {
            *distance = distance.min(squared_distance(frame, centre));
        }
        distances.iter().map(|&distance| f64::from(distance)).sum()
    };
    chunks.map(chunk).collect()
}

/// The frame at the fraction `uniform` of the total distance; `None` when the total is 0.
fn proportional(distances: &[f32], sums: &[f64], uniform: f64) -> Option<usize> {
    let mut left = uniform * sums.iter().sum::<f64>();
    let last = sums.iter().rposition(|&sum| sum > 0.0)?;
    let mut chunk = 0;
    while chunk < last && left >= sums[chunk] {
        left -= sums[chunk];
        chunk += 1;
    }
    let start = chunk * CHUNK;
    let distances = &distances[start..(start + CHUNK).min(distances.len())];
    for (offset, &distance) in distances.iter().enumerate() {
        left -= f64::from(distance);
        if left < 0.0 && distance > 0.0 {
            return Some(start + offset);
        }
    }
    distances.iter().rposition(|&distance| distance > 0.0).map(|offset| start + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_groups_each_get_a_centre() {
        let groups = 5;
        let noise = RngKey::new(1).normals(200);
        let frames = (0..100).flat_map(|i| [(i % groups) as f32 * 1000.0 + noise[2 * i], noise[2 * i + 1]]).collect();
        let frames = Matrix::new(frames, 2);
        for seed in 0..20 {
            let mut reached: Vec<usize> =
                choose(&frames, groups, RngKey::new(seed)).into_iter().map(|i| i % groups).collect();
            reached.sort_unstable();
            assert_eq!(reached, [0, 1, 2, 3, 4], "seed {seed}");
        }
    }

    #[test]
    fn identical_frames_do_not_stall() {
        assert_eq!(choose(&Matrix::new(vec![1.0; 6], 2), 3, RngKey::new(0)).len(), 3);
    }
}
