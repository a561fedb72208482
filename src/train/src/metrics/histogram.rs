//! Histograms in TensorFlow's buckets, which grow by a tenth from 1e-12 to 1e20 on both sides of zero.

use std::sync::LazyLock;

const SMALLEST: f64 = 1e-12;
const LARGEST: f64 = 1e20;
const GROWTH: f64 = 1.1;

/// The upper ends of all buckets, rising; the last one takes everything.
static LIMITS: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let positive: Vec<f64> = std::iter::successors(Some(SMALLEST), |limit| Some(limit * GROWTH))
        .take_while(|limit| *limit < LARGEST)
        .collect();
    let negative = positive.iter().rev().map(|limit| -limit);
    negative.chain([0.0]).chain(positive.iter().copied()).chain([f64::MAX]).collect()
});

/// A histogram of the finite ones of some values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Histogram {
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) count: u64,
    pub(crate) sum: f64,
    pub(crate) sum_squares: f64,
    /// Upper ends of the buckets from the first to the last with a value; consecutive empty ones are merged.
    pub(crate) limits: Vec<f64>,
    /// Number of values in each bucket.
    pub(crate) counts: Vec<f64>,
}

impl Histogram {
    /// Creates a histogram of values times `scale`; `None` if none is finite.
    pub(crate) fn of(values: &[f32], scale: f64) -> Option<Self> {
        let limits = &*LIMITS;
        let mut buckets = vec![0u64; limits.len()];
        let (mut min, mut max, mut count, mut sum, mut sum_squares) = (f64::INFINITY, f64::NEG_INFINITY, 0, 0.0, 0.0);
        for value in values.iter().map(|value| f64::from(*value) * scale).filter(|value| value.is_finite()) {
            (min, max, count) = (min.min(value), max.max(value), count + 1);
            sum += value;
            sum_squares += value * value;
            // The last limit is beyond every finite value of an f32.
            buckets[limits.partition_point(|limit| *limit <= value).min(limits.len() - 1)] += 1;
        }
        let first = buckets.iter().position(|count| *count > 0)?;
        let last = buckets.iter().rposition(|count| *count > 0)?;
        let mut histogram = Self { min, max, count, sum, sum_squares, limits: Vec::new(), counts: Vec::new() };
        // An empty bucket before the first one marks where that begins.
        for index in first.saturating_sub(1)..=last {
            let both_empty = buckets[index] == 0 && histogram.counts.last() == Some(&0.0);
            if both_empty {
                histogram.limits.pop();
                histogram.counts.pop();
            }
            histogram.limits.push(limits[index]);
            histogram.counts.push(buckets[index] as f64);
        }
        Some(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_value_lies_in_the_bucket_that_holds_it() {
        let values = [0.5, 0.25, -1e-3, 0.0, 3e7, f32::NAN, f32::INFINITY, 1e-30];
        let histogram = Histogram::of(&values, 2.0).unwrap();
        assert_eq!((histogram.count, histogram.min, histogram.max), (6, f64::from(-1e-3f32) * 2.0, 6e7));
        assert_eq!(histogram.counts.iter().sum::<f64>(), 6.0);
        let within = |value: f64| {
            let bucket = histogram.limits.iter().position(|limit| value < *limit).unwrap();
            histogram.counts[bucket] > 0.0 && bucket > 0 && histogram.limits[bucket - 1] <= value
        };
        assert!([1.0, 0.5, f64::from(-1e-3f32) * 2.0, 0.0, 6e7].into_iter().all(within), "{histogram:?}");
        assert!(histogram.limits.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(histogram.counts.windows(2).all(|pair| pair != [0.0, 0.0]), "empty ones in a row are one");
        assert_eq!(Histogram::of(&[f32::NAN], 1.0), None);
    }
}
