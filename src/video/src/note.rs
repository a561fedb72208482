//! Facts of a clip that were handled and that a person should know.

use std::fmt;

/// A property of a video that was corrected or filled in while reading it.
#[derive(Debug, Clone, PartialEq)]
pub enum ClipNote {
    /// The sound starts after the picture; silence was put before it.
    LateSound {
        /// The length of the silence, in seconds.
        seconds: f64,
    },
    /// The sound ends before the picture; silence was added, or the picture was cut.
    ShortSound {
        /// The length without sound, in seconds.
        seconds: f64,
        /// True if the frames without sound were left out.
        cut: bool,
    },
    /// The sound ends after the picture and was cut.
    LongSound {
        /// The length that was cut, in seconds.
        seconds: f64,
    },
    /// The picture starts after the sound; the first frame is shown from the beginning.
    LatePicture {
        /// The time before the first frame, in seconds.
        seconds: f64,
    },
    /// The file asks players to turn the picture, which was done.
    Rotated {
        /// The clockwise angle in degrees.
        degrees: u32,
    },
    /// The `ffmpeg` program decoded the video.
    ByFallback {
        /// The container.
        container: &'static str,
        /// Name or tag of the codec.
        codec: String,
    },
    /// A warning of the decoder of the sound.
    Sound {
        /// The warning.
        warning: String,
    },
    /// Several faces are in the picture; the largest one of the first frame with a face was followed.
    SeveralFaces {
        /// The largest number of faces in a frame.
        most: usize,
        /// The number of examined frames with more than one.
        frames: usize,
        /// The number of examined frames.
        examined: usize,
    },
    /// The face was not found in some of the examined frames; its place was interpolated.
    FaceMissing {
        /// The number of examined frames without it.
        frames: usize,
        /// The number of examined frames.
        examined: usize,
    },
    /// The face's box jumps between examined frames by more than half of its size: probably a cut, or another person.
    FaceJumps {
        /// The number of jumps.
        jumps: usize,
        /// The time of the first one, in seconds.
        first_seconds: f64,
    },
    /// The crop reaches past the border of the picture; its edge pixels were repeated there.
    CropPastBorder,
}

impl fmt::Display for ClipNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LateSound { seconds } => {
                write!(f, "the sound starts {seconds:.3} s after the picture; silence was put before it")
            }
            Self::ShortSound { seconds, cut: true } => {
                write!(f, "the sound ends {seconds:.3} s before the picture; the frames after it were left out")
            }
            Self::ShortSound { seconds, cut: false } => {
                write!(f, "the sound ends {seconds:.3} s before the picture; silence was added")
            }
            Self::LongSound { seconds } => {
                write!(f, "the sound ends {seconds:.3} s after the picture; the rest was cut")
            }
            Self::LatePicture { seconds } => {
                write!(f, "the picture starts {seconds:.3} s after the beginning; its first frame is shown until then")
            }
            Self::Rotated { degrees } => {
                write!(f, "the file asks to turn the picture by {degrees} degrees, as was done")
            }
            Self::ByFallback { container, codec } => write!(f, "{codec} in {container} was decoded by ffmpeg"),
            Self::Sound { warning } => write!(f, "sound: {warning}"),
            Self::SeveralFaces { most, frames, examined } => {
                write!(f, "up to {most} faces in {frames} of {examined} examined frames; the largest one was followed")
            }
            Self::FaceMissing { frames, examined } => {
                write!(f, "no face in {frames} of {examined} examined frames; its place was interpolated")
            }
            Self::FaceJumps { jumps, first_seconds } => {
                write!(f, "the face jumps {jumps} times (first at {first_seconds:.2} s): a cut, or another person?")
            }
            Self::CropPastBorder => write!(f, "the crop reaches past the border; edge pixels were repeated"),
        }
    }
}
