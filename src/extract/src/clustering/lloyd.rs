//! Lloyd's iterations.

use flowmill_nn::random::RngKey;
use rayon::prelude::*;

use super::seeding;
use crate::{
    Matrix,
    nearest::{Nearest, squared_distance},
};

/// The iterations end when the distortion falls by less than this fraction.
const TOLERANCE: f64 = 1e-4;

/// Frames whose distances are summed together; fixed, so that the sums do not depend on the number of threads.
const CHUNK: usize = 1024;

/// The result of k-means.
pub(crate) struct Clustering {
    /// The centers, `[unit][dimension]`.
    pub(crate) centres: Matrix,
    /// The unit of every frame.
    pub(crate) assignment: Vec<u32>,
    /// Iterations done.
    pub(crate) iterations: usize,
    /// True if the distortion settled.
    pub(crate) converged: bool,
    /// Mean squared distance of a frame to its centre.
    pub(crate) distortion: f64,
    /// The part of the frames' variance that the centres explain.
    pub(crate) variance_explained: f64,
}

impl Clustering {
    /// Clusters the frames; at least one frame and one unit.
    pub(crate) fn fit(frames: &Matrix, k: usize, iterations: usize, rng_key: RngKey) -> Self {
        let chosen = seeding::choose(frames, k, rng_key);
        let seeds = chosen.into_iter().flat_map(|frame| frames.row(frame).iter().copied()).collect();
        let mut nearest = Nearest::new(Matrix::new(seeds, frames.columns()));
        let mut assigned = nearest.assign(frames);
        let mut distortion = mean_distance(&assigned);
        let (mut done, mut converged) = (0, false);
        while done < iterations && !converged {
            nearest = Nearest::new(centres_of(frames, &assigned, nearest.centres()));
            assigned = nearest.assign(frames);
            let lower = mean_distance(&assigned);
            done += 1;
            converged = distortion - lower <= TOLERANCE * distortion;
            distortion = lower;
        }
        let variance = total_variance(frames);
        Self {
            centres: Matrix::new(nearest.centres().as_slice().to_vec(), frames.columns()),
            assignment: assigned.into_iter().map(|(unit, _)| unit).collect(),
            iterations: done,
            converged,
            distortion,
            variance_explained: if variance > 0.0 { 1.0 - distortion / variance } else { 1.0 },
        }
    }
}

/// The mean of the frames of every unit. A unit without frames moves to the frame that is farthest from its own centre.
fn centres_of(frames: &Matrix, assigned: &[(u32, f32)], before: &Matrix) -> Matrix {
    let members = members_by_unit(assigned, before.rows());
    let empty = members.iter().filter(|members| members.is_empty()).count();
    let mut farthest = farthest_frames(assigned, empty).into_iter();
    let replacements: Vec<Option<usize>> =
        members.iter().map(|members| if members.is_empty() { farthest.next() } else { None }).collect();
    let centre = |(unit, members): (usize, &Vec<usize>)| match (members.is_empty(), replacements[unit]) {
        (false, _) => mean_of(frames, members),
        (true, Some(frame)) => frames.row(frame).to_vec(),
        (true, None) => before.row(unit).to_vec(),
    };
    let centres: Vec<Vec<f32>> =
        members.par_iter().enumerate().map(|(unit, members)| centre((unit, members))).collect();
    Matrix::new(centres.concat(), frames.columns())
}

/// The frames of every unit, in order.
fn members_by_unit(assigned: &[(u32, f32)], units: usize) -> Vec<Vec<usize>> {
    let mut members = vec![Vec::new(); units];
    for (frame, &(unit, _)) in assigned.iter().enumerate() {
        members[unit as usize].push(frame);
    }
    members
}

/// The frames farthest from their centres, the farthest first, of equally far ones the first.
fn farthest_frames(assigned: &[(u32, f32)], count: usize) -> Vec<usize> {
    if count == 0 {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..assigned.len()).collect();
    order.sort_by(|&a, &b| assigned[b].1.total_cmp(&assigned[a].1).then(a.cmp(&b)));
    order.truncate(count);
    order
}

fn mean_of(frames: &Matrix, members: &[usize]) -> Vec<f32> {
    let mut sums = vec![0.0f64; frames.columns()];
    for &member in members {
        for (sum, &value) in sums.iter_mut().zip(frames.row(member)) {
            *sum += f64::from(value);
        }
    }
    sums.into_iter().map(|sum| (sum / members.len() as f64) as f32).collect()
}

fn mean_distance(assigned: &[(u32, f32)]) -> f64 {
    let chunk = |chunk: &[(u32, f32)]| chunk.iter().map(|&(_, distance)| f64::from(distance)).sum::<f64>();
    let sums: Vec<f64> = assigned.par_chunks(CHUNK).map(chunk).collect();
    sums.into_iter().sum::<f64>() / assigned.len().max(1) as f64
}

/// The mean squared distance of the frames to their mean.
fn total_variance(frames: &Matrix) -> f64 {
    let everything: Vec<usize> = (0..frames.rows()).collect();
    let mean = mean_of(frames, &everything);
    let distances: Vec<(u32, f32)> = frames.iter().map(|frame| (0, squared_distance(frame, &mean))).collect();
    mean_distance(&distances)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs(groups: usize, per_group: usize) -> Matrix {
        let noise = RngKey::new(9).normals(groups * per_group * 3);
        let value = |(i, noise): (usize, f32)| ((i / 3 % groups) * 10 + i % 3) as f32 + 0.1 * noise;
        Matrix::new(noise.into_iter().enumerate().map(value).collect(), 3)
    }

    #[test]
    fn separate_groups_are_found() {
        let frames = blobs(4, 50);
        let clustering = Clustering::fit(&frames, 4, 50, RngKey::new(1));
        assert!(clustering.converged);
        assert!(clustering.distortion < 0.05, "{}", clustering.distortion);
        assert!(clustering.variance_explained > 0.99);
        for (frame, unit) in clustering.assignment.iter().enumerate() {
            assert_eq!(*unit, clustering.assignment[frame % 4]);
        }
    }

    #[test]
    fn a_unit_without_frames_moves_to_the_farthest_frame() {
        let frames = Matrix::new(vec![0.0, 0.0, 0.1, 0.0, 9.0, 9.0], 2);
        let before = Matrix::new(vec![0.0, 0.0, 50.0, 50.0], 2);
        let assigned = Nearest::new(before.clone()).assign(&frames);
        let centres = centres_of(&frames, &assigned, &before);
        assert_eq!(centres.row(1), [9.0, 9.0]);
    }

    #[test]
    fn the_result_does_not_depend_on_the_number_of_threads() {
        let frames = blobs(40, 100);
        let fit = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Clustering::fit(&frames, 64, 20, RngKey::new(5)))
        };
        let (one, three) = (fit(1), fit(3));
        assert_eq!(one.centres, three.centres);
        assert_eq!(one.assignment, three.assignment);
        assert_eq!(one.distortion.to_bits(), three.distortion.to_bits());
    }

    #[test]
    fn more_iterations_never_raise_the_distortion() {
        let frames = blobs(30, 40);
        let distortions: Vec<f64> =
            [1, 2, 5, 20].map(|iterations| Clustering::fit(&frames, 16, iterations, RngKey::new(2)).distortion).into();
        assert!(distortions.is_sorted_by(|a, b| a >= b), "{distortions:?}");
    }
}
