//! Containers: the video track's samples with their times, and where the sound starts.

mod fragments;
mod matroska;
mod mp4;
mod sniff;

use std::borrow::Cow;

use crate::error::{Fault, within};
use sniff::Content;
pub(crate) use sniff::content;

/// Most samples that a track may have: five days at 25 frames per second.
pub(crate) const MAX_SAMPLES: u64 = 1 << 24;

/// A video track and the facts of its file.
#[derive(Debug)]
pub(crate) struct Movie<'a> {
    /// Name of the container.
    pub(crate) container: &'static str,
    /// The bytes that the samples point into.
    pub(crate) data: Cow<'a, [u8]>,
    /// The codec.
    pub(crate) codec: Codec,
    /// Width and height in pixels that the container states; 0 if it does not.
    pub(crate) size: (u32, u32),
    /// Clockwise angle in degrees by which players turn the picture: 0, 90, 180 or 270.
    pub(crate) rotation: u32,
    /// Samples in the order of decoding; their times are on the movie's clock, which starts at 0.
    pub(crate) samples: Vec<Sample>,
    /// Time in seconds at which the last frame ends.
    pub(crate) end: f64,
    /// Error of the timestamps in seconds: half of a tick, at most half a millisecond.
    pub(crate) tolerance: f64,
    /// Time in seconds at which the decoded sound starts; `None` if there is no sound track.
    pub(crate) sound_start: Option<f64>,
}

/// The codec of a video track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Codec {
    /// H.264, with its decoder configuration (`avcC`).
    H264(Vec<u8>),
    /// Another codec, by name or tag.
    Other(String),
}

impl Codec {
    /// The codec's name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::H264(_) => "H.264",
            Self::Other(name) => name,
        }
    }
}

/// A coded frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Position of its bytes in the data.
    pub(crate) offset: u64,
    /// The number of its bytes.
    pub(crate) size: u32,
    /// Time in seconds at which it is shown.
    pub(crate) time: f64,
    /// True if decoding can start here.
    pub(crate) is_key: bool,
}

impl Movie<'_> {
    /// Frames per second on average.
    pub(crate) fn mean_rate(&self) -> f64 {
        let first = self.samples.iter().map(|sample| sample.time).fold(f64::INFINITY, f64::min);
        let seconds = self.end - first;
        if seconds > 0.0 { self.samples.len() as f64 / seconds } else { 0.0 }
    }

    /// Rejects a track whose last samples are not in the file.
    fn checked(self) -> Result<Self, Fault> {
        within("the number of frames", self.samples.len() as u64, MAX_SAMPLES)?;
        let length = self.data.len() as u64;
        let is_missing = |sample: &&Sample| sample.offset.saturating_add(u64::from(sample.size)) > length;
        let missing = self.samples.iter().filter(is_missing).count();
        match (self.samples.len(), missing) {
            (0, _) => Err(Fault::NoFrames),
            (_, 0) => Ok(self),
            (frames, missing) => Err(Fault::Truncated { container: self.container, missing, frames }),
        }
    }
}

/// Reads the structure of a file of a container that this crate knows.
pub(crate) fn open(bytes: &[u8], content: Content) -> Result<Movie<'_>, Fault> {
    match content {
        Content::Mp4 => mp4::open(bytes)?.checked(),
        Content::Matroska => matroska::open(bytes)?.checked(),
        Content::Foreign { container, codec } => Err(Fault::UnsupportedCodec { container, codec: codec.to_owned() }),
    }
}
