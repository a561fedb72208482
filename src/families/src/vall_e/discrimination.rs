//! Weights of features that tell texts apart: Fisher's discriminant (Annals of Eugenics 7, 1936) with aligned frames as its classes.
//!
//! W is the covariance of the differences of aligned frames of the same text by different speakers, T that of all frames. Distances are measured
//! after x → Lᵀ W⁻¹ x with L Lᵀ = T: directions that differ between speakers count less, and those that differ between sounds more.

use flowmill_audio::features::Features;
use flowmill_nn::random::RngKey;

use super::warping::alignment;

/// Pairs of recordings that are aligned.
const PAIRS: u64 = 400;
/// Attempts for each pair to find two recordings of a text by different speakers.
const ATTEMPTS: u64 = 50;
/// Share of the variances that is added to them, so that W can be inverted.
const REGULARIZATION: f64 = 0.1;

/// A linear map of features.
pub struct Discrimination {
    /// `[output, feature]`.
    map: Vec<Vec<f64>>,
}

impl Discrimination {
    /// Learns the map from recordings: the text, the speaker, and the features of each. `None` if all speakers, or all recordings of each
    /// text, are the same.
    pub fn of(recordings: &[(&str, &str, &Features)]) -> Option<Self> {
        let bins = recordings.first()?.2.bins;
        let total = covariance(bins, recordings.iter().flat_map(|(.., features)| features.rows()), true);
        // Alignments weight all features alike.
        let scales: Vec<f64> = (0..bins).map(|bin| total[bin][bin].max(f64::MIN_POSITIVE).sqrt().recip()).collect();
        let scaled: Vec<Features> = recordings.iter().map(|(.., features)| scale(features, &scales)).collect();
        let differences: Vec<Vec<f32>> = pairs(recordings)
            .into_iter()
            .flat_map(|(one, other)| {
                let (a, b) = (recordings[one].2, recordings[other].2);
                alignment(&scaled[one], &scaled[other]).into_iter().map(move |(row, column)| {
                    let (a, b) = (a.frame(row), b.frame(column));
                    a.iter().zip(b).map(|(a, b)| (a - b) * std::f32::consts::FRAC_1_SQRT_2).collect()
                })
            })
            .collect();
        if differences.is_empty() {
            return None;
        }
        let mut within = covariance(bins, differences.iter().map(Vec::as_slice), false);
        (0..bins).for_each(|bin| within[bin][bin] *= 1.0 + REGULARIZATION);
        let root = cholesky(&total);
        let within = cholesky(&within);
        // Column j of L is solved for, because W is symmetric: (Lᵀ W⁻¹)ⱼ = (W⁻¹ Lⱼ)ᵀ.
        let map = (0..bins).map(|column| solve(&within, (0..bins).map(|row| root[row][column]).collect()));
        Some(Self { map: map.collect() })
    }

    /// Returns mapped features.
    pub fn apply(&self, features: &Features) -> Features {
        let dot = |weights: &Vec<f64>, row: &[f32]| -> f64 {
            weights.iter().zip(row).map(|(weight, value)| weight * f64::from(*value)).sum()
        };
        let data = features.rows().flat_map(|row| self.map.iter().map(|weights| dot(weights, row) as f32)).collect();
        Features { data, frames: features.frames, bins: self.map.len() }
    }
}

/// Draws pairs of recordings of the same text by different speakers. The draws are always the same for the same recordings.
fn pairs(recordings: &[(&str, &str, &Features)]) -> Vec<(usize, usize)> {
    let rng_key = RngKey::new(0).purpose("pairs of recordings");
    let count = u32::try_from(recordings.len()).unwrap_or(u32::MAX);
    let fits = |one: usize, other: usize| {
        let ((text, speaker, _), (same, other, _)) = (recordings[one], recordings[other]);
        text == same && speaker != other
    };
    let pair = |number: u64| {
        let rng_key = rng_key.sample(number);
        (0..ATTEMPTS).find_map(|attempt| {
            let (one, other) = (rng_key.below_at(2 * attempt, count), rng_key.below_at(2 * attempt + 1, count));
            let (one, other) = (one as usize, other as usize);
            fits(one, other).then_some((one, other))
        })
    };
    (0..PAIRS).filter_map(pair).collect()
}

/// Returns features times the scale of each.
fn scale(features: &Features, scales: &[f64]) -> Features {
    let data = features.rows().flat_map(|row| row.iter().zip(scales).map(|(value, scale)| value * *scale as f32));
    Features { data: data.collect(), frames: features.frames, bins: features.bins }
}

/// Returns the covariance matrix of rows, around their mean or around 0.
fn covariance<'r>(bins: usize, rows: impl Iterator<Item = &'r [f32]>, around_mean: bool) -> Vec<Vec<f64>> {
    let (mut sums, mut products, mut count) = (vec![0.0; bins], vec![vec![0.0; bins]; bins], 0.0);
    for row in rows {
        count += 1.0;
        for (a, &left) in row.iter().enumerate() {
            sums[a] += f64::from(left);
            for (product, &right) in products[a].iter_mut().zip(row) {
                *product += f64::from(left) * f64::from(right);
            }
        }
    }
    let means: Vec<f64> = sums.iter().map(|sum| if around_mean { sum / f64::max(count, 1.0) } else { 0.0 }).collect();
    for (a, row) in products.iter_mut().enumerate() {
        for (b, product) in row.iter_mut().enumerate() {
            *product = *product / f64::max(count, 1.0) - means[a] * means[b];
        }
    }
    products
}

/// Returns the lower triangle L with L Lᵀ = `matrix`. A direction without variance gets a column of 0 except for a tiny diagonal.
fn cholesky(matrix: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let size = matrix.len();
    let mut lower = vec![vec![0.0; size]; size];
    for row in 0..size {
        for column in 0..=row {
            let known: f64 = (0..column).map(|k| lower[row][k] * lower[column][k]).sum();
            let rest = matrix[row][column] - known;
            lower[row][column] = match row == column {
                true => rest.max(1e-9 * matrix[row][row].max(1e-9)).sqrt(),
                false => rest / lower[column][column],
            };
        }
    }
    lower
}

/// Solves L Lᵀ x = `right`.
fn solve(lower: &[Vec<f64>], right: Vec<f64>) -> Vec<f64> {
    let mut x = right;
    for row in 0..x.len() {
        let known: f64 = (0..row).map(|k| lower[row][k] * x[k]).sum();
        x[row] = (x[row] - known) / lower[row][row];
    }
    for row in (0..x.len()).rev() {
        let known: f64 = (row + 1..x.len()).map(|k| lower[k][row] * x[k]).sum();
        x[row] = (x[row] - known) / lower[row][row];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_triangle_solves_its_equations() {
        let matrix = vec![vec![4.0, 2.0], vec![2.0, 3.0]];
        let lower = cholesky(&matrix);
        assert!((lower[1][0] - 1.0).abs() < 1e-12 && (lower[1][1] - 2.0f64.sqrt()).abs() < 1e-12);
        let x = solve(&lower, vec![8.0, 7.0]);
        assert!((x[0] - 1.25).abs() < 1e-12 && (x[1] - 1.5).abs() < 1e-12);
    }

    #[test]
    fn what_differs_between_speakers_counts_less() {
        // The first feature is the sound, the second the speaker with some noise.
        let recording = |sounds: [f32; 4], speaker: f32| {
            let rows = sounds.iter().enumerate().flat_map(|(frame, sound)| [*sound, speaker + 0.1 * frame as f32]);
            Features::new(rows.collect(), 4, 2).unwrap()
        };
        let (rising, falling) = ([0.0, 1.0, 2.0, 3.0], [3.1, 2.1, 1.1, 0.1]);
        let all: Vec<(&str, String, Features)> = [("rising", rising), ("falling", falling)]
            .into_iter()
            .flat_map(|(text, sounds)| (0..4).map(move |n| (text, n.to_string(), recording(sounds, n as f32))))
            .collect();
        let all: Vec<(&str, &str, &Features)> = all.iter().map(|(text, who, own)| (*text, who.as_str(), own)).collect();
        let map = Discrimination::of(&all).unwrap();
        let length = |sound, speaker| {
            let mapped = map.apply(&Features::new(vec![sound, speaker], 1, 2).unwrap());
            mapped.data.iter().map(|value| value * value).sum::<f32>().sqrt()
        };
        assert!(length(1.0, 0.0) > 10.0 * length(0.0, 1.0), "{} {}", length(1.0, 0.0), length(0.0, 1.0));
        let alone: Vec<(&str, &str, &Features)> = all.iter().filter(|(_, who, _)| *who == "1").copied().collect();
        assert!(Discrimination::of(&alone).is_none(), "one speaker");
    }
}
