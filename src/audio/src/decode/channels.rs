//! Channels of recordings that are assembled from parts.

/// Appends a part to a recording, both as `[channel][frame]`. If a part has another number of channels, the mean
/// of its channels is appended to every channel of the recording.
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

/// Reorders channels from the order of Vorbis (front left, center, front right ...; LFE last) to that of WAV files, which
/// all other decoders return: front left, front right, center, LFE, back, side.
pub(super) fn from_vorbis_order(channels: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    // Index in the old order of each channel in the new one.
    let sources: &[usize] = match channels.len() {
        3 => &[0, 2, 1],
        5 => &[0, 2, 1, 3, 4],
        6 => &[0, 2, 1, 5, 3, 4],
        7 => &[0, 2, 1, 6, 5, 3, 4],
        8 => &[0, 2, 1, 7, 5, 6, 3, 4],
        _ => return channels,
    };
    let mut old = channels;
    sources.iter().map(|source| std::mem::take(&mut old[*source])).collect()
}

#[cfg(test)]
mod tests {
    use super::{append, from_vorbis_order};

    #[test]
    fn channels_of_vorbis_come_in_the_order_of_wav() {
        // Each channel's value is its index in the order of WAV files.
        let surround: Vec<Vec<f32>> = [0.0, 2.0, 1.0, 4.0, 5.0, 3.0].into_iter().map(|place| vec![place]).collect();
        assert_eq!(from_vorbis_order(surround).concat(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let seven_one = [0.0, 2.0, 1.0, 6.0, 7.0, 4.0, 5.0, 3.0].into_iter().map(|place| vec![place]).collect();
        assert_eq!(from_vorbis_order(seven_one).concat(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }

    #[test]
    fn a_part_with_other_channels_comes_in_as_its_mean() {
        let mut stereo = vec![vec![1.0], vec![2.0]];
        append(&mut stereo, &[vec![3.0], vec![4.0]]);
        append(&mut stereo, &[vec![5.0]]);
        append(&mut stereo, &[vec![1.0], vec![2.0], vec![6.0]]);
        assert_eq!(stereo, [[1.0, 3.0, 5.0, 3.0], [2.0, 4.0, 5.0, 3.0]]);
    }
}
