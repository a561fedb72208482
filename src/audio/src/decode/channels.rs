//! Channels of recordings that are put together from parts.

/// Adds a part to a recording, both as `[channel][frame]`. A part with another number of channels comes in as the mean
/// of its channels, in every channel of the recording.
pub(super) fn append(recording: &mut [Vec<f32>], part: &[Vec<f32>]) {
    if recording.len() == part.len() {
        recording.iter_mut().zip(part).for_each(|(channel, own)| channel.extend_from_slice(own));
        return;
    }
    let frames = part.first().map_or(0, Vec::len);
    let scale = 1.0 / part.len().max(1) as f32;
    for frame in 0..frames {
        let mean = part.iter().map(|channel| channel[frame]).sum::<f32>() * scale;
        recording.iter_mut().for_each(|channel| channel.push(mean));
    }
}

#[cfg(test)]
mod tests {
    use super::append;

    #[test]
    fn a_part_with_other_channels_comes_in_as_its_mean() {
        let mut stereo = vec![vec![1.0], vec![2.0]];
        append(&mut stereo, &[vec![3.0], vec![4.0]]);
        append(&mut stereo, &[vec![5.0]]);
        append(&mut stereo, &[vec![1.0], vec![2.0], vec![6.0]]);
        assert_eq!(stereo, [[1.0, 3.0, 5.0, 3.0], [2.0, 4.0, 5.0, 3.0]]);
    }
}
