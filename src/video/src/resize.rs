//! Resizing a region of a picture, the same on every machine.
//!
//! Each output pixel is the mean of the region's pixels under a triangle. The triangle is as wide as two output pixels when the region
//! becomes smaller, which averages areas, and as two input pixels when it becomes larger, which is bilinear interpolation.

use crate::clip::Frame;

/// A rectangle in pixels; it may reach past the border of the picture, whose edge pixels are repeated there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl Region {
    /// The whole of a picture.
    pub fn whole(frame: &Frame) -> Self {
        Self { left: 0.0, top: 0.0, width: f64::from(frame.width), height: f64::from(frame.height) }
    }

    /// The largest square in the center of a picture.
    pub fn center_square(width: u32, height: u32) -> Self {
        let side = f64::from(width.min(height));
        Self::square(f64::from(width) / 2.0, f64::from(height) / 2.0, side)
    }

    /// A square by its center and side.
    pub fn square(center_x: f64, center_y: f64, side: f64) -> Self {
        Self { left: center_x - side / 2.0, top: center_y - side / 2.0, width: side, height: side }
    }
}

/// The input pixels of an output pixel, with weights that sum to 1.
struct Taps {
    first: i64,
    weights: Vec<f32>,
}

fn taps(start: f64, length: f64, outputs: u32) -> Vec<Taps> {
    let scale = length / f64::from(outputs.max(1));
    let reach = scale.max(1.0);
    let of = |output: u32| {
        let center = start + (f64::from(output) + 0.5) * scale;
        let (first, last) = ((center - reach).floor() as i64, (center + reach).ceil() as i64);
        let weight = |at: i64| (1.0 - ((at as f64 + 0.5 - center) / reach).abs()).max(0.0);
        let sum: f64 = (first..last).map(weight).sum();
        Taps { first, weights: (first..last).map(|at| (weight(at) / sum.max(1e-12)) as f32).collect() }
    };
    (0..outputs).map(of).collect()
}

/// Returns a region of a picture at `width` x `height` pixels.
pub fn resize(frame: &Frame, region: Region, width: u32, height: u32) -> Frame {
    if region == Region::whole(frame) && (width, height) == (frame.width, frame.height) {
        return frame.clone();
    }
    let across = taps(region.left, region.width, width);
    let down = taps(region.top, region.height, height);
    let last_column = i64::from(frame.width.max(1)) - 1;
    let last_row = i64::from(frame.height.max(1)) - 1;
    let first_row = down.first().map_or(0, |taps| taps.first).clamp(0, last_row);
    let end_row =
        down.last().map_or(0, |taps| taps.first + taps.weights.len() as i64).clamp(first_row + 1, last_row + 1);

    // Rows of the region at the new width.
    let row_length = width as usize * 3;
    let mut rows = vec![0.0f32; (end_row - first_row) as usize * row_length];
    let input_length = frame.width as usize * 3;
    for (row, out) in (first_row..end_row).zip(rows.chunks_exact_mut(row_length.max(1))) {
        let line = frame.rgb.get(row as usize * input_length..).unwrap_or_default();
        for (taps, pixel) in across.iter().zip(out.as_chunks_mut::<3>().0) {
            for (at, weight) in taps.weights.iter().enumerate() {
                let column = (taps.first + at as i64).clamp(0, last_column) as usize * 3;
                let input = line.get(column..).and_then(|rest| rest.first_chunk::<3>()).copied().unwrap_or_default();
                pixel.iter_mut().zip(input).for_each(|(sum, value)| *sum += weight * f32::from(value));
            }
        }
    }
    let mut rgb = Vec::with_capacity(row_length * height as usize);
    let mut sums = vec![0.0f32; row_length];
    for taps in &down {
        sums.fill(0.0);
        for (at, weight) in taps.weights.iter().enumerate() {
            let row = ((taps.first + at as i64).clamp(first_row, end_row - 1) - first_row) as usize;
            let line = rows.get(row * row_length..(row + 1) * row_length).unwrap_or_default();
            sums.iter_mut().zip(line).for_each(|(sum, value)| *sum += weight * value);
        }
        rgb.extend(sums.iter().map(|sum| (sum + 0.5).clamp(0.0, 255.0) as u8));
    }
    Frame { width, height, rgb }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(width: u32) -> Frame {
        Frame { width, height: 1, rgb: (0..width).flat_map(|x| [(x * 10) as u8; 3]).collect() }
    }

    #[test]
    fn one_color_stays_and_halving_averages() {
        let gray = Frame::filled(7, 5, [9, 80, 250]);
        assert_eq!(resize(&gray, Region::square(3.0, 2.0, 9.0), 4, 4), Frame::filled(4, 4, [9, 80, 250]));
        let half = resize(&ramp(8), Region::whole(&ramp(8)), 4, 1);
        // The triangle covers four pixels with weights 1, 3, 3, 1; at the border the edge pixel counts twice.
        assert_eq!(half.rgb.iter().step_by(3).copied().collect::<Vec<_>>(), [6, 25, 45, 64]);
    }

    #[test]
    fn enlarging_interpolates_and_the_border_repeats() {
        let double = resize(&ramp(2), Region::whole(&ramp(2)), 4, 1);
        assert_eq!(double.rgb.iter().step_by(3).copied().collect::<Vec<_>>(), [0, 3, 8, 10]);
        let outside = resize(&ramp(2), Region { left: 5.0, top: 0.0, width: 2.0, height: 1.0 }, 2, 1);
        assert_eq!(outside.rgb, [10; 6]);
    }
}
