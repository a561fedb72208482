//! Mean and deviation per mel bin, in double precision, by merging partial sums in a fixed order.

use flowmill_audio::features::Features;
use flowmill_corpus::shard::MelStatistics;
use serde::{Deserialize, Serialize};

/// Running moments of every bin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moments {
    /// The number of frames.
    frames: u64,
    /// Mean of every bin.
    mean: Vec<f64>,
    /// Sum of squared distances from that mean.
    squares: Vec<f64>,
}

impl Moments {
    /// Returns the moments of one mel.
    pub fn of(mel: &Features) -> Self {
        let frames = mel.frames.max(1) as f64;
        let mut mean = vec![0.0; mel.bins];
        for frame in mel.data.chunks_exact(mel.bins.max(1)) {
            mean.iter_mut().zip(frame).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        mean.iter_mut().for_each(|sum| *sum /= frames);
        let mut squares = vec![0.0; mel.bins];
        for frame in mel.data.chunks_exact(mel.bins.max(1)) {
            for ((sum, value), mean) in squares.iter_mut().zip(frame).zip(&mean) {
                *sum += (f64::from(*value) - mean).powi(2);
            }
        }
        Self { frames: mel.frames as u64, mean, squares }
    }

    /// Adds the moments of other frames (Chan, Golub and LeVeque's pairwise update). Does nothing if the numbers of
    /// bins differ.
    pub fn merge(&mut self, other: &Self) {
        if self.frames == 0 {
            *self = other.clone();
        } else if other.frames > 0 && other.mean.len() == self.mean.len() {
            let (mine, theirs) = (self.frames as f64, other.frames as f64);
            let all = mine + theirs;
            for bin in 0..self.mean.len() {
                let distance = other.mean[bin] - self.mean[bin];
                self.mean[bin] += distance * theirs / all;
                self.squares[bin] += other.squares[bin] + distance * distance * mine * theirs / all;
            }
            self.frames += other.frames;
        }
    }

    /// Returns mean and deviation.
    pub fn statistics(&self, split: &str) -> MelStatistics {
        let frames = self.frames.max(1) as f64;
        MelStatistics {
            split: split.to_owned(),
            frames: self.frames,
            mean: self.mean.clone(),
            std: self.squares.iter().map(|squares| (squares / frames).sqrt()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_moments_are_those_of_all_frames() {
        let values: Vec<f32> = (0..600).map(|n| ((n * 37) % 101) as f32 / 7.0 - 5.0).collect();
        let mel = |range: std::ops::Range<usize>| {
            Features::new(values[range.start * 3..range.end * 3].to_vec(), range.len(), 3).unwrap()
        };
        let mut merged = Moments::default();
        [0..7, 7..120, 120..200].into_iter().for_each(|range| merged.merge(&Moments::of(&mel(range))));
        let (merged, whole) = (merged.statistics("train"), Moments::of(&mel(0..200)).statistics("train"));
        assert_eq!(merged.frames, 200);
        for bin in 0..3 {
            let column: Vec<f64> = (0..200).map(|frame| f64::from(values[frame * 3 + bin])).collect();
            let mean = column.iter().sum::<f64>() / 200.0;
            let std = (column.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 200.0).sqrt();
            assert!((merged.mean[bin] - mean).abs() < 1e-12 && (whole.mean[bin] - mean).abs() < 1e-12);
            assert!((merged.std[bin] - std).abs() < 1e-12, "{} {std}", merged.std[bin]);
        }
    }
}
