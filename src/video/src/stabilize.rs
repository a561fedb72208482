//! Frames of a face that stay in place while the head moves.

use crate::clip::Frame;
use crate::resize::{Region, resize};

/// Width and height of the pictures that are compared, in pixels.
const SIZE: usize = 64;
/// The rows and columns that are compared: forehead, eyes and nose, which speech does not move.
const ROWS: std::ops::Range<usize> = 6..38;
const COLUMNS: std::ops::Range<usize> = 10..54;
/// Number of times that the mean picture is formed anew.
const ROUNDS: usize = 3;
/// Steps of Gauss and Newton towards one mean picture.
const STEPS: usize = 2;
/// Largest shift, in pixels of the compared pictures.
const LARGEST: f64 = 12.0;
/// Smallest determinant of the normal equations, relative to the square of their trace: below it a picture has no detail in one direction.
const LEAST_DETAIL: f64 = 1e-6;

/// Shifts cropped frames so that the upper half of the face stays where it is on average: movement of the head leaves the frames, movement
/// of the mouth stays. Pixels that a shift uncovers repeat the border.
///
/// The shift of a frame minimizes the squared difference to the mean of all shifted frames (Lucas and Kanade 1981). Frames without detail
/// stay.
pub fn stabilize(frames: &mut [Frame]) {
    for (frame, [x, y]) in shifts(frames).into_iter().enumerate() {
        let frame = &mut frames[frame];
        let scale = |side: u32| f64::from(side) / SIZE as f64;
        let region = Region { left: x * scale(frame.width), top: y * scale(frame.height), ..Region::whole(frame) };
        *frame = resize(frame, region, frame.width, frame.height);
    }
}

/// Returns the shift of each frame, to the right and down, in pixels of the compared pictures.
fn shifts(frames: &[Frame]) -> Vec<[f64; 2]> {
    let pictures: Vec<Vec<f64>> = frames.iter().map(gray).collect();
    let mut shifts = vec![[0.0; 2]; frames.len()];
    for _ in 0..ROUNDS {
        let mut mean = vec![0.0; SIZE * SIZE];
        for (picture, shift) in pictures.iter().zip(&shifts) {
            let shifted = shifted(picture, *shift);
            mean.iter_mut().zip(shifted).for_each(|(sum, value)| *sum += value / frames.len() as f64);
        }
        for (picture, shift) in pictures.iter().zip(&mut shifts) {
            (0..STEPS).for_each(|_| *shift = improved(picture, &mean, *shift));
        }
    }
    // The face stays in the middle of the crop.
    let mean = |axis: usize| shifts.iter().map(|shift| shift[axis]).sum::<f64>() / shifts.len().max(1) as f64;
    let mean = [mean(0), mean(1)];
    shifts.iter().map(|shift| [shift[0] - mean[0], shift[1] - mean[1]]).collect()
}

/// Returns the brightness of a picture, `[SIZE, SIZE]`.
fn gray(frame: &Frame) -> Vec<f64> {
    let small = resize(frame, Region::whole(frame), SIZE as u32, SIZE as u32);
    small.rgb.as_chunks::<3>().0.iter().map(|pixel| pixel.iter().map(|value| f64::from(*value)).sum::<f64>()).collect()
}

/// Returns a picture as seen through a window that is shifted, by bilinear interpolation.
fn shifted(picture: &[f64], [x, y]: [f64; 2]) -> Vec<f64> {
    let last = (SIZE - 1) as f64;
    let at = |row: usize, column: usize| {
        let (row, column) = ((row as f64 + y).clamp(0.0, last), (column as f64 + x).clamp(0.0, last));
        let (top, left) = ((row as usize).min(SIZE - 2), (column as usize).min(SIZE - 2));
        let (down, right) = (row - top as f64, column - left as f64);
        let line = |row: usize| picture[row * SIZE + left] * (1.0 - right) + picture[row * SIZE + left + 1] * right;
        line(top) * (1.0 - down) + line(top + 1) * down
    };
    (0..SIZE * SIZE).map(|place| at(place / SIZE, place % SIZE)).collect()
}

/// Returns a shift after one step of Gauss and Newton towards the mean picture.
fn improved(picture: &[f64], mean: &[f64], shift: [f64; 2]) -> [f64; 2] {
    let now = shifted(picture, shift);
    let (mut xx, mut xy, mut yy, mut x, mut y) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for row in ROWS {
        for column in COLUMNS {
            let place = row * SIZE + column;
            let across = (now[place + 1] - now[place - 1]) / 2.0;
            let down = (now[place + SIZE] - now[place - SIZE]) / 2.0;
            let missing = mean[place] - now[place];
            (xx, xy, yy) = (xx + across * across, xy + across * down, yy + down * down);
            (x, y) = (x + across * missing, y + down * missing);
        }
    }
    let determinant = xx * yy - xy * xy;
    if determinant <= LEAST_DETAIL * (xx + yy).powi(2) {
        return shift;
    }
    let step = [(yy * x - xy * y) / determinant, (xx * y - xy * x) / determinant];
    [0, 1].map(|axis| (shift[axis] + step[axis]).clamp(-LARGEST, LARGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A face-like picture: eyes and a nose that move with the head, and a mouth that opens.
    fn picture(head: [f64; 2], mouth: f64) -> Frame {
        let blob = |x: f64, y: f64, center: [f64; 2], size: [f64; 2]| {
            (-((x - center[0]) / size[0]).powi(2) - ((y - center[1]) / size[1]).powi(2)).exp()
        };
        let value = |place: usize| {
            let (x, y) = ((place % 96) as f64 - head[0], (place / 96) as f64 - head[1]);
            let eyes = blob(x, y, [32.0, 28.0], [6.0, 4.0]) + blob(x, y, [64.0, 30.0], [6.0, 4.0]);
            let nose = blob(x, y, [48.0, 44.0], [4.0, 9.0]);
            let mouth = blob(x, y, [48.0, 74.0], [12.0, 2.0 + mouth]);
            (40.0 + 90.0 * eyes + 60.0 * nose + 90.0 * mouth).min(255.0) as u8
        };
        Frame { width: 96, height: 96, rgb: (0..96 * 96).flat_map(|place| [value(place); 3]).collect() }
    }

    /// The mean absolute difference of rows of two pictures.
    fn difference(one: &Frame, other: &Frame, rows: std::ops::Range<usize>) -> f64 {
        let part = rows.start * 96 * 3..rows.end * 96 * 3;
        let pairs = one.rgb[part.clone()].iter().zip(&other.rgb[part.clone()]);
        pairs.map(|(one, other)| f64::from(one.abs_diff(*other))).sum::<f64>() / part.len() as f64
    }

    #[test]
    fn the_head_stays_in_place_and_the_mouth_still_moves() {
        let heads = [[0.0, 0.0], [2.5, -1.0], [-3.0, 2.0], [4.0, 3.5], [-3.5, -4.5]];
        let mut frames: Vec<Frame> =
            heads.iter().enumerate().map(|(at, head)| picture(*head, 3.0 * (at % 2) as f64)).collect();
        let before = difference(&frames[2], &frames[3], 16..56);
        stabilize(&mut frames);
        for frame in &frames[1..] {
            let after = difference(&frames[0], frame, 16..56);
            assert!(after < 0.1 * before, "{after} of {before}");
        }
        assert!(difference(&frames[0], &frames[1], 62..86) > 4.0);
        assert!(difference(&frames[0], &frames[2], 62..86) < 1.0);
    }

    #[test]
    fn frames_without_detail_and_no_frames_stay() {
        let mut frames = vec![Frame::filled(32, 32, [9, 9, 9]); 3];
        stabilize(&mut frames);
        assert!(frames.iter().all(|frame| *frame == Frame::filled(32, 32, [9, 9, 9])));
        stabilize(&mut []);
    }
}
