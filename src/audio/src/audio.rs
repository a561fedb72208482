//! A decoded recording, the facts known before decoding, and the warnings.

use std::fmt;
use std::ops::Range;

use crate::error::AudioError;

/// A decoded recording: 32-bit float samples, nominally in [-1, 1], all finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Audio {
    /// Samples as `[channel][frame]`; at least one channel, at least one frame, all channels equally long.
    pub samples: Vec<Vec<f32>>,
    /// Frames per second, in hertz.
    pub sample_rate: u32,
    /// Problems of the file that did not prevent reading it.
    pub warnings: Vec<DecodeWarning>,
}

impl Audio {
    /// Number of frames (samples per channel).
    pub fn frames(&self) -> usize {
        self.samples.first().map_or(0, Vec::len)
    }

    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.frames() as f64 / f64::from(self.sample_rate)
    }

    /// The mean of the channels, one value per frame.
    pub fn mono(&self) -> Vec<f32> {
        match self.samples.as_slice() {
            [] => Vec::new(),
            [only] => only.clone(),
            channels => mean_of(channels),
        }
    }

    /// Like [`Audio::mono`], without copying a recording that has one channel only.
    pub fn into_mono(mut self) -> Vec<f32> {
        if self.samples.len() == 1 { self.samples.swap_remove(0) } else { self.mono() }
    }

    /// The part between two times in seconds, all channels; times are rounded to the nearest frame.
    ///
    /// An end up to one hundredth of a second after the last frame counts as the end, because tables of
    /// segments are rounded.
    ///
    /// # Errors
    /// [`AudioError::Segment`] if the times are not finite, in the wrong order, outside the recording, or so
    /// close that no frame lies between them.
    pub fn segment(&self, start_seconds: f64, end_seconds: f64) -> Result<Audio, AudioError> {
        let frames = segment_frames(self.frames(), self.sample_rate, start_seconds, end_seconds)?;
        Ok(Audio {
            samples: self.samples.iter().map(|channel| channel[frames.clone()].to_vec()).collect(),
            sample_rate: self.sample_rate,
            warnings: self.warnings.clone(),
        })
    }
}

/// The frames between two times of a recording that has `frames`; see [`Audio::segment`].
///
/// # Errors
/// Those of [`Audio::segment`].
pub fn segment_frames(
    frames: usize,
    sample_rate: u32,
    start_seconds: f64,
    end_seconds: f64,
) -> Result<Range<usize>, AudioError> {
    let rate = f64::from(sample_rate);
    let seconds = frames as f64 / rate;
    let outside = || AudioError::Segment { start: start_seconds, end: end_seconds, seconds };
    let in_order = start_seconds >= 0.0 && end_seconds > start_seconds;
    if !in_order || end_seconds > seconds + SEGMENT_SLACK_SECONDS {
        return Err(outside());
    }
    let first = (start_seconds * rate).round() as usize;
    let last = ((end_seconds * rate).round() as usize).min(frames);
    if first < last { Ok(first..last) } else { Err(outside()) }
}

/// Largest distance in seconds by which a segment may exceed the end of its recording.
const SEGMENT_SLACK_SECONDS: f64 = 0.01;

fn mean_of(channels: &[Vec<f32>]) -> Vec<f32> {
    let scale = 1.0 / channels.len() as f32;
    let mut mean = channels[0].clone();
    for channel in &channels[1..] {
        for (sum, sample) in mean.iter_mut().zip(channel) {
            *sum += sample;
        }
    }
    mean.iter_mut().for_each(|sum| *sum *= scale);
    mean
}

/// Facts about a recording, without its samples.
#[derive(Debug, Clone, PartialEq)]
pub struct AudioInfo {
    /// Frames per second, in hertz.
    pub sample_rate: u32,
    /// Number of channels.
    pub channels: u32,
    /// Number of frames (samples per channel).
    pub frames: u64,
    /// Short name of the codec, for example `pcm_s16le`, `flac`, `opus`.
    pub codec: String,
    /// Short name of the container, for example `wav`, `flac`, `ogg`.
    pub container: String,
    /// True when the `ffmpeg` program decoded the recording.
    pub by_fallback: bool,
    /// Problems of the file that did not prevent reading it.
    pub warnings: Vec<DecodeWarning>,
}

impl AudioInfo {
    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.frames as f64 / f64::from(self.sample_rate)
    }
}

/// A problem of a file that could be read nevertheless.
#[derive(Debug, Clone, PartialEq)]
pub enum DecodeWarning {
    /// The header promises more audio than the file holds; the existing audio was read and nothing was added.
    Truncated {
        /// The number of frames that the header promises, if it does.
        claimed_frames: Option<u64>,
        /// The number of frames that were counted.
        frames: u64,
    },
    /// The header was never completed (size 0 or 2^32-1, as left by programs that write to a pipe); the file was read to
    /// its end.
    StreamedSize,
    /// Bytes after the end of the audio that no chunk accounts for.
    TrailingBytes {
        /// The number of them.
        bytes: u64,
    },
    /// The file has several data chunks, which were read one after the other.
    SeveralDataChunks {
        /// The number of them.
        count: u64,
    },
    /// The audio ends in the middle of a frame; the fragment was dropped.
    PartialFrame {
        /// The number of bytes that were dropped.
        bytes: u64,
    },
    /// Packets that could not be decoded; they are silent or missing in the samples.
    CorruptPackets {
        /// The number of them.
        count: u64,
        /// The decoder's message about the first one.
        first: String,
    },
    /// Sound inside the recording is missing according to the file's timestamps; the existing audio was read and nothing was added.
    Gaps {
        /// The number of places.
        places: u64,
        /// The number of frames that are missing at all of them.
        frames: u64,
    },
    /// Undecodable bytes between packets that were skipped.
    LostSync {
        /// The number of bytes.
        bytes: u64,
    },
    /// The file's own checksum of the audio does not match.
    ChecksumMismatch,
    /// Floating-point samples outside [-1, 1], kept as they are.
    OverRange {
        /// The largest magnitude.
        peak: f32,
    },
    /// Fields of the header contradict each other; the samples say which ones are right.
    MendedHeader {
        /// The value in the header.
        said: String,
        /// The value that the samples were read with.
        used: String,
    },
    /// The header promises another length than the audio has, although the audio looks complete by its own structure: the file was
    /// cut or joined without a new header.
    OtherLength {
        /// The number of frames in the header.
        claimed_frames: u64,
        /// The number of frames that were counted.
        frames: u64,
    },
    /// The `ffmpeg` program decoded the file and reported problems with it.
    FallbackComplaint {
        /// The number of lines that were written.
        lines: u64,
        /// The first of them.
        first: String,
    },
    /// The extension of the name belongs to another format than the content.
    MisleadingName {
        /// The extension of the name.
        extension: String,
        /// The format of the content.
        content: String,
    },
}

impl fmt::Display for DecodeWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { claimed_frames: Some(claimed), frames } => {
                write!(f, "truncated: the header promises {claimed} frames, the file holds {frames}")
            }
            Self::Truncated { claimed_frames: None, frames } => {
                write!(f, "truncated: the stream ends abruptly after {frames} frames")
            }
            Self::StreamedSize => {
                write!(f, "the header has no size (written to a pipe); read to the end of the file")
            }
            Self::TrailingBytes { bytes } => write!(f, "{bytes} bytes after the end of the audio were ignored"),
            Self::SeveralDataChunks { count } => {
                write!(f, "the audio is in {count} data chunks; all are read, in their order")
            }
            Self::PartialFrame { bytes } => write!(f, "the last {bytes} bytes are not a whole frame and were dropped"),
            Self::CorruptPackets { count, first } => {
                write!(f, "{count} corrupt packets are silent or left out (first: {first})")
            }
            Self::Gaps { places, frames } => {
                write!(
                    f,
                    "{frames} frames are missing at {places} places according to the timestamps; nothing was added there"
                )
            }
            Self::LostSync { bytes } => write!(f, "{bytes} bytes between packets are not audio and were skipped"),
            Self::ChecksumMismatch => write!(f, "the checksum of the audio does not match: some samples are wrong"),
            Self::OverRange { peak } => write!(f, "samples reach {peak}, outside [-1, 1]; kept as they are"),
            Self::MendedHeader { said, used } => {
                write!(f, "the header contradicts itself ({said}); read as {used}, which the samples fit")
            }
            Self::OtherLength { claimed_frames, frames } => {
                let how = "cut or joined without a new header";
                write!(
                    f,
                    "the header promises {claimed_frames} frames, but the stream has {frames} ({how}); all are read"
                )
            }
            Self::FallbackComplaint { lines, first } => {
                write!(f, "ffmpeg decoded it, but reported {lines} problems (first: {first})")
            }
            Self::MisleadingName { extension, content } => {
                write!(f, "named .{extension}, but the content is {content}")
            }
        }
    }
}
