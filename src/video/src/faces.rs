//! Faces in the frames of a clip, and a square that follows one of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rustface::{Detector, ImageData, create_detector_with_model, read_model};

use crate::clip::Frame;
use crate::error::{Fault, VideoError};
use crate::note::ClipNote;
use crate::resize::{Region, resize};

/// The detector's model; see `models/README.md`.
const MODEL: &[u8] = include_bytes!("../models/seeta_fd_frontal_v1.0.bin");
/// Frames are made this high before faces are looked for in them, in pixels.
const EXAMINED_HEIGHT: u32 = 360;
/// Smallest face that the detector finds, in pixels of the examined picture.
const LEAST_FACE: u32 = 20;
/// Lowest score of a face.
const LEAST_SCORE: f64 = 2.0;
/// Movement between examined frames, in sides of the box, that counts as a jump.
const JUMP: f64 = 0.5;
/// Time over which the square's place is smoothed, in seconds (the standard deviation of a Gaussian).
const SMOOTHING_SECONDS: f64 = 0.5;

/// A face in a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaceBox {
    /// Horizontal center in pixels.
    pub center_x: f64,
    /// Vertical center in pixels.
    pub center_y: f64,
    /// The longer side in pixels.
    pub side: f64,
    /// The detector's score.
    pub score: f64,
}

/// A detector of faces.
pub struct FaceDetector {
    inner: Box<dyn Detector>,
}

impl FaceDetector {
    /// Returns the built-in detector: SeetaFace, for faces seen from the front.
    ///
    /// # Errors
    /// [`VideoError::Config`] if its model is damaged.
    pub fn new() -> Result<Self, VideoError> {
        let model = read_model(MODEL).map_err(|error| VideoError::Config {
            field: "crop",
            value: error.to_string(),
            expected: "the built-in model of the face detector",
        })?;
        let mut inner = create_detector_with_model(model);
        inner.set_min_face_size(LEAST_FACE);
        inner.set_score_thresh(LEAST_SCORE);
        inner.set_pyramid_scale_factor(0.8);
        inner.set_slide_window_step(4, 4);
        Ok(Self { inner })
    }

    /// Returns the faces of a picture, the largest first.
    pub fn faces(&mut self, frame: &Frame) -> Vec<FaceBox> {
        let height = EXAMINED_HEIGHT.min(frame.height.max(1) * 4);
        let scale = f64::from(frame.height.max(1)) / f64::from(height);
        let width = ((f64::from(frame.width) / scale).round() as u32).clamp(1, 8 * EXAMINED_HEIGHT);
        let small = resize(frame, Region::whole(frame), width, height);
        let gray: Vec<u8> = small.rgb.as_chunks::<3>().0.iter().map(gray).collect();
        if width < 2 * LEAST_FACE || height < 2 * LEAST_FACE {
            return Vec::new();
        }
        let image = ImageData::new(&gray, width, height);
        // Third-party code: a panic means that this picture has no face that it could find.
        let found = catch_unwind(AssertUnwindSafe(|| self.inner.detect(&image))).unwrap_or_default();
        let mut faces: Vec<FaceBox> = found
            .iter()
            .map(|face| {
                let bounds = face.bbox();
                let (width, height) = (f64::from(bounds.width()), f64::from(bounds.height()));
                FaceBox {
                    center_x: (f64::from(bounds.x()) + width / 2.0) * scale,
                    center_y: (f64::from(bounds.y()) + height / 2.0) * scale,
                    side: width.max(height) * scale,
                    score: face.score(),
                }
            })
            .collect();
        faces.sort_by(|a, b| b.side.total_cmp(&a.side));
        faces
    }
}

fn gray(pixel: &[u8; 3]) -> u8 {
    let [r, g, b] = pixel.map(u32::from);
    ((299 * r + 587 * g + 114 * b + 500) / 1000) as u8
}

/// The faces of a frame and the frame's number.
pub type Examined = (usize, Vec<FaceBox>);

/// Returns a square per frame round the face that is largest in the first frame with a face: its place follows the face smoothly, its side is
/// the median of the boxes, enlarged by `margin` of the box on each side.
///
/// # Errors
/// [`Fault::NoFace`] if no examined frame has a face.
pub fn follow(
    examined: &[Examined],
    frames: usize,
    fps: f64,
    margin: f64,
) -> Result<(Vec<Region>, Vec<ClipNote>), Fault> {
    let mut track: Vec<(usize, FaceBox)> = Vec::new();
    let (mut several, mut most, mut jumps) = (0, 0, Vec::new());
    for (frame, faces) in examined {
        most = most.max(faces.len());
        several += usize::from(faces.len() > 1);
        let distance = |face: &FaceBox, last: &FaceBox| {
            (face.center_x - last.center_x).hypot(face.center_y - last.center_y) / last.side.max(1.0)
        };
        let next = match track.last() {
            None => faces.first(),
            Some((_, last)) => faces.iter().min_by(|a, b| distance(a, last).total_cmp(&distance(b, last))),
        };
        let Some(next) = next else { continue };
        if track.last().is_some_and(|(_, last)| distance(next, last) > JUMP) {
            jumps.push(*frame);
        }
        track.push((*frame, *next));
    }
    if track.is_empty() {
        return Err(Fault::NoFace { examined: examined.len() });
    }
    let mut notes = Vec::new();
    if several > 0 {
        notes.push(ClipNote::SeveralFaces { most, frames: several, examined: examined.len() });
    }
    if track.len() < examined.len() {
        notes.push(ClipNote::FaceMissing { frames: examined.len() - track.len(), examined: examined.len() });
    }
    if let Some(first) = jumps.first() {
        notes.push(ClipNote::FaceJumps { jumps: jumps.len(), first_seconds: *first as f64 / fps });
    }
    let mut sides: Vec<f64> = track.iter().map(|(_, face)| face.side).collect();
    sides.sort_by(f64::total_cmp);
    let side = sides[sides.len() / 2] * (1.0 + 2.0 * margin);
    let place = |frame: usize| {
        let weight = |at: usize| {
            let seconds = (at as f64 - frame as f64) / fps;
            // The constant keeps far frames from vanishing where nothing is near.
            (-0.5 * (seconds / SMOOTHING_SECONDS).powi(2)).exp() + 1e-9
        };
        let total: f64 = track.iter().map(|(at, _)| weight(*at)).sum();
        let mean = |of: fn(&FaceBox) -> f64| track.iter().map(|(at, face)| weight(*at) * of(face)).sum::<f64>() / total;
        Region::square(mean(|face| face.center_x), mean(|face| face.center_y), side)
    };
    Ok(((0..frames).map(place).collect(), notes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(center_x: f64) -> FaceBox {
        FaceBox { center_x, center_y: 50.0, side: 40.0, score: 5.0 }
    }

    #[test]
    fn a_square_follows_the_nearest_face_and_reports_others() {
        let examined: Vec<Examined> =
            vec![(0, vec![face(50.0), FaceBox { side: 20.0, ..face(200.0) }]), (5, vec![]), (10, vec![face(54.0)])];
        let (regions, notes) = follow(&examined, 11, 25.0, 0.3).unwrap();
        assert_eq!((regions.len(), regions[0].width), (11, 64.0));
        let center = |at: usize| regions[at].left + 32.0;
        assert!(center(0) > 50.0 && center(0) < center(5) && center(5) < center(10) && center(10) < 54.0);
        assert!(matches!(
            notes[..],
            [
                ClipNote::SeveralFaces { most: 2, frames: 1, examined: 3 },
                ClipNote::FaceMissing { frames: 1, examined: 3 }
            ]
        ));
    }

    #[test]
    fn jumps_are_reported_and_no_face_is_an_error() {
        let examined: Vec<Examined> = vec![(0, vec![face(50.0)]), (25, vec![face(150.0)])];
        let (_, notes) = follow(&examined, 26, 25.0, 0.3).unwrap();
        assert!(matches!(notes[..], [ClipNote::FaceJumps { jumps: 1, first_seconds: 1.0 }]));
        assert!(matches!(follow(&[(0, vec![])], 1, 25.0, 0.3), Err(Fault::NoFace { examined: 1 })));
    }
}
