//! Faces of real talkers (GRID corpus), found and cropped.

use std::path::PathBuf;

use flowmill_video::clip::{self, ClipOptions, SoundPolicy};
use flowmill_video::crop::{Crop, Frames};
use flowmill_video::faces::FaceDetector;
use flowmill_video::{Fault, Frame, VideoError};

fn grid(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../data/grid11/clips").join(name)
}

fn silent() -> ClipOptions {
    ClipOptions { sound: SoundPolicy::Ignore, ..ClipOptions::default() }
}

#[test]
fn faces_are_found_in_most_clips() {
    let mut detector = FaceDetector::new().unwrap();
    let mut found = 0;
    for file in std::fs::read_dir(grid("")).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let first = clip::frames(&bytes, "x", &silent()).unwrap().next().unwrap().unwrap();
        let faces = detector.faces(&first);
        let is_right = faces.first().is_some_and(|face| {
            (face.center_x - 32.0).abs() < 16.0 && (face.center_y - 32.0).abs() < 20.0 && face.side > 16.0
        });
        found += usize::from(is_right);
        eprintln!("{}: {faces:?}", path.display());
    }
    assert!(found >= 8, "{found} of 11");
}

#[test]
fn a_crop_round_the_face_has_the_wanted_size() {
    let bytes = std::fs::read(grid("bbaf2n.mp4")).unwrap();
    let settings = Frames { size: 48, crop: Crop::Detect, margin: 0.1, ..Frames::default() };
    let clip = settings.read(&bytes, "bbaf2n", &silent()).unwrap();
    assert_eq!((clip.frames.len(), clip.frames[0].width, clip.frames[0].height), (75, 48, 48));
    let center =
        Frames { crop: Crop::Center, size: 64, ..Frames::default() }.read(&bytes, "bbaf2n", &silent()).unwrap();
    assert_eq!(center.frames, clip::read_bytes(&bytes, "bbaf2n", &silent()).unwrap().frames, "it is square already");
    let given = Frames { crop: Crop::Given, size: 64, ..Frames::default() }.read(&bytes, "bbaf2n", &silent()).unwrap();
    assert_eq!(given.frames, center.frames);
}

#[test]
fn no_face_and_no_square_are_rejected() {
    let frames = vec![Frame::filled(96, 64, [90, 140, 60]); 10];
    let bytes = flowmill_video::write::mp4(&frames, None, &Default::default()).unwrap();
    let read = |crop| Frames { crop, size: 64, ..Frames::default() }.read(&bytes, "x", &silent());
    let fault = |result: Result<clip::Clip, VideoError>| match result {
        Err(VideoError::File { fault, .. }) => fault,
        other => panic!("{other:?}"),
    };
    assert!(matches!(fault(read(Crop::Detect)), Fault::NoFace { examined: 2 }));
    assert!(matches!(fault(read(Crop::Given)), Fault::NotSquare { .. }));
    assert_eq!(
        read(Crop::Center).unwrap().frames[0],
        Frame::filled(64, 64, read(Crop::Center).unwrap().frames[0].pixel(0, 0))
    );
    let wrong = Frames { size: 8, ..Frames::default() };
    assert!(matches!(wrong.check(), Err(VideoError::Config { field: "size", .. })));
}
