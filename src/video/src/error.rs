//! Errors of video, worded so that a person can act on them.

use std::path::Path;

use flowmill_audio::AudioError;
use thiserror::Error;

/// Errors of this crate.
///
/// Errors of one video are [`VideoError::File`]: the name as given by the caller, and the [`Fault`] that was found.
#[derive(Debug, Error)]
pub enum VideoError {
    /// A video could not be read.
    #[error("{name}: {fault}")]
    File {
        /// The path, or the name that was given along with the bytes.
        name: String,
        /// The fault.
        #[source]
        fault: Fault,
    },
    /// A setting that is invalid.
    #[error("{field} = {value}: {expected}")]
    Config {
        /// The setting.
        field: &'static str,
        /// The value.
        value: String,
        /// Values that would be accepted.
        expected: &'static str,
    },
    /// A video or a picture could not be encoded or written.
    #[error("could not write {what}: {problem}")]
    Write {
        /// The thing that was being written.
        what: &'static str,
        /// The cause.
        problem: String,
    },
}

/// A fault of one video.
#[derive(Debug, Error)]
pub enum Fault {
    /// The operating system reported an error.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The file is empty.
    #[error("the file is empty (0 bytes)")]
    Empty,
    /// Something that stands in for a video, such as a Git LFS pointer or a web page.
    #[error("this is {kind}, not a video; {advice}")]
    StandIn {
        /// The name of its kind.
        kind: &'static str,
        /// Advice on how to get the video.
        advice: &'static str,
    },
    /// Plain text under the name of a video.
    #[error("this is text, not a video; it begins {beginning:?}")]
    Text {
        /// The first characters.
        beginning: String,
    },
    /// A format that this crate does not know.
    #[error("not a known video format; the first bytes are {beginning}")]
    Unrecognized {
        /// The first bytes, in hexadecimal.
        beginning: String,
    },
    /// A file without a picture, such as a recording of sound.
    #[error("this {container} file has no video track")]
    NoVideo {
        /// The container.
        container: &'static str,
    },
    /// The container or its video codec is not decoded in process.
    #[error(
        "{codec} video in {container} is not decoded by Flowmill itself; install ffmpeg and set `prep.fallback: ffmpeg`, or convert the \
         file to H.264 in MP4"
    )]
    UnsupportedCodec {
        /// The container.
        container: &'static str,
        /// Name or tag of the codec.
        codec: String,
    },
    /// The fallback is allowed, but the program is not installed.
    #[error("{codec} video in {container} needs the ffmpeg program (`prep.fallback: ffmpeg`), which is not installed")]
    FallbackMissing {
        /// The container.
        container: &'static str,
        /// Name or tag of the codec.
        codec: String,
    },
    /// The fallback could not decode it either.
    #[error("{codec} video in {container} was given to ffmpeg (`prep.fallback: ffmpeg`), which {problem}")]
    FallbackFailed {
        /// The container.
        container: &'static str,
        /// Name or tag of the codec.
        codec: String,
        /// The problem.
        problem: String,
    },
    /// The container's structure is broken beyond use.
    #[error("broken {container} file: {problem}")]
    Malformed {
        /// The container.
        container: &'static str,
        /// The broken part.
        problem: String,
    },
    /// The file ends before its video does.
    #[error("truncated {container} file: {missing} of {frames} frames lie past its end; copy or download it again")]
    Truncated {
        /// The container.
        container: &'static str,
        /// The number of frames that are cut off.
        missing: usize,
        /// The number of frames that the file lists.
        frames: usize,
    },
    /// A frame that cannot be decoded.
    #[error("frame {frame} (counted from 0, in the order of the file) cannot be decoded: {problem}")]
    Corrupt {
        /// The frame.
        frame: usize,
        /// The decoder's message.
        problem: String,
    },
    /// The frames change their size within the video.
    #[error("the frames change their size from {before} to {after}; cut the video there")]
    SizeChanges {
        /// The size of the first frames, `WIDTHxHEIGHT`.
        before: String,
        /// The size of a later frame.
        after: String,
    },
    /// Frames that should have been cropped to a square already.
    #[error("the frames are {size}, which is not square; crop the video, or set `crop: center` or `crop: detect`")]
    NotSquare {
        /// The size of the frames, `WIDTHxHEIGHT`.
        size: String,
    },
    /// A video without a frame, or without one between the two times.
    #[error("contains no frames")]
    NoFrames,
    /// A stretch of time that the video does not contain.
    #[error("segment {start:.3} s to {end:.3} s does not lie in a video of {seconds:.3} s")]
    Segment {
        /// Start of the segment, in seconds.
        start: f64,
        /// End of the segment, in seconds.
        end: f64,
        /// Length of the video, in seconds.
        seconds: f64,
    },
    /// Larger than the limits of this crate or the caller.
    #[error("{what} is {value}, more than the limit of {limit}")]
    Limit {
        /// The quantity that is too large.
        what: &'static str,
        /// The value.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// The sound track cannot be decoded.
    #[error("the sound of the video cannot be read: {0}")]
    Sound(#[source] AudioError),
    /// The face detector found no face in any examined frame.
    #[error("no face found in {examined} examined frames; set `crop: center` or crop the video first")]
    NoFace {
        /// The number of frames that were examined.
        examined: usize,
    },
}

impl VideoError {
    /// Returns whether the cause is temporary and belongs to this machine, not to the video or a setting.
    pub fn is_of_machine(&self) -> bool {
        matches!(self, Self::File { fault, .. } if fault.is_of_machine())
    }
}

impl Fault {
    /// Returns whether the cause is temporary and belongs to this machine, not to the video.
    pub fn is_of_machine(&self) -> bool {
        match self {
            Self::Io(error) => flowmill_audio::is_of_machine(error),
            Self::FallbackMissing { .. } => true,
            Self::Sound(error) => error.is_of_machine(),
            _ => false,
        }
    }

    /// Adds the name of the video.
    pub fn of(self, name: &str) -> VideoError {
        VideoError::File { name: name.to_owned(), fault: self }
    }

    /// Adds the path of the file.
    pub fn of_path(self, path: &Path) -> VideoError {
        self.of(&path.display().to_string())
    }
}

/// Rejects a value above its limit.
pub(crate) fn within(what: &'static str, value: u64, limit: u64) -> Result<(), Fault> {
    if value <= limit { Ok(()) } else { Err(Fault::Limit { what, value, limit }) }
}
