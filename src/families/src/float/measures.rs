//! Measures of motion against real motion.

use flowmill_audio::measure::correlation;

/// Returns the distance of two motions `[frame, channel]`, over the frames of the shorter one: the root of the mean squared difference of a
/// channel in a frame. `None` without a frame.
pub fn distance(one: &[f32], other: &[f32]) -> Option<f64> {
    let count = one.len().min(other.len());
    let squares = one.iter().zip(other).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    (count > 0).then(|| (squares / count as f64).sqrt())
}

/// Returns the opening of the mouth in each frame of a motion with `channels` channels: the projection on the direction `mouth`, or the
/// first channel if that is empty.
pub fn opening(motion: &[f32], channels: usize, mouth: &[f32]) -> Vec<f64> {
    let frame = |frame: &[f32]| match mouth {
        [] => frame.first().map_or(0.0, |value| f64::from(*value)),
        mouth => frame.iter().zip(mouth).map(|(a, b)| f64::from(a * b)).sum(),
    };
    motion.chunks_exact(channels.max(1)).map(frame).collect()
}

/// Returns the correlation of the opening of the mouth of two motions; `None` if one mouth does not move.
pub fn mouth_correlation(one: &[f32], other: &[f32], channels: usize, mouth: &[f32]) -> Option<f64> {
    correlation(&opening(one, channels, mouth), &opening(other, channels, mouth))
}

/// Returns a motion that repeats one frame.
pub fn held(frame: &[f32], frames: usize) -> Vec<f32> {
    frame.repeat(frames)
}

/// Returns the mean of numbers; `None` without one.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.into_iter().fold((0u64, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_and_openings_of_known_motion() {
        assert_eq!(distance(&[1.0, 2.0, 3.0, 4.0], &[1.0, 0.0, 3.0, 2.0, 9.0]), Some(2f64.sqrt()));
        assert_eq!(distance(&[], &[1.0]), None);
        assert_eq!(opening(&[1.0, 2.0, 3.0, 4.0], 2, &[0.0, 2.0]), [4.0, 8.0]);
        assert_eq!(opening(&[1.0, 2.0, 3.0, 4.0], 2, &[]), [1.0, 3.0]);
        let (one, other) = ([0.0, 9.0, 1.0, 9.0, 2.0, 9.0], [4.0, 1.0, 2.0, 1.0, 0.0, 1.0]);
        assert!((mouth_correlation(&one, &other, 2, &[1.0, 0.0]).unwrap() + 1.0).abs() < 1e-12);
        assert_eq!(mouth_correlation(&one, &held(&[1.0, 2.0], 3), 2, &[]), None);
        assert_eq!((mean([1.0, 3.0]), mean([])), (Some(2.0), None));
    }
}
