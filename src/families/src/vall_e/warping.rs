//! Dynamic time warping: distances of sequences that are said at different speeds.

use flowmill_audio::features::Features;

/// Returns the mean Euclidean distance of two sequences of frames along their best alignment (dynamic time warping with
/// the symmetric steps of Sakoe and Chiba, IEEE Transactions on Acoustics 26, 1978); `None` without frames, or for
/// different numbers of bins.
pub fn warped_distance(one: &Features, other: &Features) -> Option<f64> {
    if one.frames == 0 || other.frames == 0 || one.bins != other.bins {
        return None;
    }
    let mut before: Vec<f64> = Vec::new();
    for row in one.rows() {
        before = next_costs(&before, row, other);
    }
    before.last().map(|cost| cost / (one.frames + other.frames) as f64)
}

/// Returns the pairs of frames on the best alignment of two sequences; none without frames, or for different numbers of bins.
pub fn alignment(one: &Features, other: &Features) -> Vec<(usize, usize)> {
    if one.frames == 0 || other.frames == 0 || one.bins != other.bins {
        return Vec::new();
    }
    let mut costs: Vec<Vec<f64>> = Vec::with_capacity(one.frames);
    for row in one.rows() {
        let next = next_costs(costs.last().map_or(&[], Vec::as_slice), row, other);
        costs.push(next);
    }
    let (mut at, mut pairs) = ((one.frames - 1, other.frames - 1), Vec::new());
    loop {
        pairs.push(at);
        let (row, column) = at;
        let distance = local(one.frame(row), other.frame(column));
        let (up, left) = (row.checked_sub(1), column.checked_sub(1));
        let step = |row: Option<usize>, column: Option<usize>, weight: f64| {
            let (row, column) = (row?, column?);
            Some((costs[row][column] + weight * distance, (row, column)))
        };
        let steps = [step(up, left, 2.0), step(up, Some(column), 1.0), step(Some(row), left, 1.0)];
        match steps.into_iter().flatten().min_by(|(a, _), (b, _)| a.total_cmp(b)) {
            Some((_, before)) => at = before,
            None => break,
        }
    }
    pairs.reverse();
    pairs
}

/// Returns the costs of the best alignments up to a frame and each frame of `other`, from those up to the frame before.
fn next_costs(before: &[f64], row: &[f32], other: &Features) -> Vec<f64> {
    let mut costs: Vec<f64> = Vec::with_capacity(other.frames);
    for (column, frame) in other.rows().enumerate() {
        let distance = local(row, frame);
        let left = costs.last().copied();
        let up = before.get(column).copied();
        let diagonal = column.checked_sub(1).and_then(|column| before.get(column)).copied();
        // A diagonal step counts twice, so that all alignments have the same weight.
        let steps = [left.map(|cost| cost + distance), up.map(|cost| cost + distance)];
        let steps = steps.into_iter().chain([diagonal.map(|cost| cost + 2.0 * distance)]).flatten();
        costs.push(steps.reduce(f64::min).unwrap_or(2.0 * distance));
    }
    costs
}

/// Returns the Euclidean distance of two frames.
fn local(one: &[f32], other: &[f32]) -> f64 {
    let squares: f32 = one.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum();
    f64::from(squares).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(values: &[f32]) -> Features {
        Features::new(values.to_vec(), values.len(), 1).unwrap()
    }

    #[test]
    fn a_slower_sequence_is_at_no_distance() {
        let (fast, slow) = (features(&[0.0, 1.0, 2.0]), features(&[0.0, 0.0, 1.0, 1.0, 1.0, 2.0]));
        assert_eq!(warped_distance(&fast, &slow), Some(0.0));
        assert_eq!(warped_distance(&features(&[1.0]), &features(&[4.0])), Some(3.0));
        assert_eq!(warped_distance(&fast, &features(&[])), None);
    }

    #[test]
    fn an_alignment_pairs_equal_frames() {
        let (fast, slow) = (features(&[0.0, 1.0, 2.0]), features(&[0.0, 0.0, 1.0, 1.0, 1.0, 2.0]));
        assert_eq!(alignment(&fast, &slow), [(0, 0), (0, 1), (1, 2), (1, 3), (1, 4), (2, 5)]);
        assert!(alignment(&fast, &features(&[])).is_empty());
    }
}
