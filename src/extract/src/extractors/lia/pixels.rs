//! Pictures as bytes and as the numbers that the networks compute with.

/// Returns RGB pixels `[line][column][color]` as a picture `[color][line][column]` from -1 to 1.
pub fn planes_of_rgb(pixels: &[u8]) -> Vec<f32> {
    let plane = |color: usize| pixels.iter().skip(color).step_by(3).map(|value| f32::from(*value) / 127.5 - 1.0);
    (0..3).flat_map(plane).collect()
}

/// Returns a picture `[color][line][column]` from -1 to 1 as RGB pixels `[line][column][color]`; values outside are cut.
pub fn rgb_of_planes(picture: &[f32]) -> Vec<u8> {
    let count = picture.len() / 3;
    let value =
        |pixel: usize, color: usize| ((picture[color * count + pixel] + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8;
    (0..count).flat_map(|pixel| (0..3).map(move |color| value(pixel, color))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_survive() {
        let pixels: Vec<u8> = (0..=254).collect();
        let picture = planes_of_rgb(&pixels);
        assert_eq!((picture[0], picture.len()), (-1.0, 255));
        assert_eq!(rgb_of_planes(&picture), pixels);
        assert_eq!(rgb_of_planes(&[-2.0, 2.0, f32::NAN]), [0, 255, 0]);
    }
}
