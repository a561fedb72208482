//! Errors of audio, worded so that a person can act on them.

use std::path::Path;

use thiserror::Error;

/// Errors of this crate.
///
/// Errors of one recording are [`AudioError::File`]: the name as given by the caller, and the [`Fault`] that was found.
#[derive(Debug, Error)]
pub enum AudioError {
    /// A recording could not be read.
    #[error("{name}: {fault}")]
    File {
        /// The path, or the name that was given along with the bytes.
        name: String,
        /// The fault.
        #[source]
        fault: Fault,
    },
    /// A sampling rate that this crate does not support.
    #[error(
        "sampling rate {rate} Hz is outside {} to {} Hz",
        crate::decode::MIN_SAMPLE_RATE,
        crate::decode::MAX_SAMPLE_RATE
    )]
    SampleRate {
        /// The requested rate, in hertz.
        rate: u32,
    },
    /// A stretch of time that the recording does not contain.
    #[error("segment {start:.3} s to {end:.3} s does not lie in a recording of {seconds:.3} s")]
    Segment {
        /// Start of the segment, in seconds.
        start: f64,
        /// End of the segment, in seconds.
        end: f64,
        /// Length of the recording, in seconds.
        seconds: f64,
    },
    /// A setting of an analysis that is invalid.
    #[error("{field} = {value}: {expected}")]
    Config {
        /// The setting.
        field: &'static str,
        /// The value.
        value: String,
        /// Values that would be accepted.
        expected: String,
    },
    /// Too little signal for an analysis.
    #[error("{samples} samples are too few: {analysis} needs at least {needed}")]
    TooShort {
        /// Number of samples.
        samples: usize,
        /// Number that the analysis needs.
        needed: usize,
        /// The analysis.
        analysis: &'static str,
    },
    /// Features whose shape does not fit the operation.
    #[error("features of {frames} frames x {bins} bins: {problem}")]
    Shape {
        /// Frames of the offending features.
        frames: usize,
        /// Bins of the offending features.
        bins: usize,
        /// The expectation that failed.
        problem: String,
    },
    /// A file could not be written.
    #[error("could not write {what}: {source}")]
    Write {
        /// The thing that was being written.
        what: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// A fault of one recording.
#[derive(Debug, Error)]
pub enum Fault {
    /// The operating system reported an error.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The file is empty.
    #[error("the file is empty (0 bytes)")]
    Empty,
    /// A Git LFS pointer instead of the audio.
    #[error("this is a Git LFS pointer, not the audio itself; run `git lfs pull` where the corpus was cloned")]
    LfsPointer,
    /// Plain text under an audio name.
    #[error("this is text, not audio; it begins {beginning:?}")]
    Text {
        /// The first characters.
        beginning: String,
    },
    /// A format that this crate does not know.
    #[error("not a known audio format; the first bytes are {beginning}")]
    Unrecognized {
        /// The first bytes, in hexadecimal.
        beginning: String,
    },
    /// The container is supported, but not the codec in it.
    #[error("{}", unsupported(codec, container))]
    UnsupportedCodec {
        /// The container.
        container: String,
        /// Name or tag of the codec.
        codec: String,
    },
    /// The fallback is allowed, but the program is not installed.
    #[error(
        "{} needs the ffmpeg program (`prep.fallback: ffmpeg`), which is not installed",
        codec_in(codec, container)
    )]
    FallbackMissing {
        /// The container.
        container: String,
        /// Name or tag of the codec.
        codec: String,
    },
    /// The fallback could not decode it either.
    #[error("{} was given to ffmpeg (`prep.fallback: ffmpeg`), which {problem}", codec_in(codec, container))]
    FallbackFailed {
        /// The container.
        container: String,
        /// Name or tag of the codec.
        codec: String,
        /// The problem.
        problem: String,
    },
    /// The container's structure is broken beyond use.
    #[error("broken {container} file: {problem}")]
    Malformed {
        /// The container.
        container: String,
        /// The broken part.
        problem: String,
    },
    /// A field of the header has an impossible value.
    #[error("the header says {field} = {value}; expected {expected}")]
    Header {
        /// The field.
        field: &'static str,
        /// The value.
        value: u64,
        /// Values that would be accepted.
        expected: String,
    },
    /// A valid file without a single sample.
    #[error("contains no samples")]
    NoSamples,
    /// NaN or infinite samples.
    #[error("{count} of {total} samples are NaN or infinite, the first at frame {first} of channel {channel}")]
    NonFinite {
        /// Number of samples that are not finite.
        count: u64,
        /// Number of samples over all channels.
        total: u64,
        /// Channel of the first one.
        channel: usize,
        /// Frame of the first one.
        first: u64,
    },
    /// Larger than the limits of this crate.
    #[error("{what} is {value}, more than the limit of {limit}")]
    Limit {
        /// The quantity that is too large.
        what: &'static str,
        /// The value.
        value: u64,
        /// The limit.
        limit: u64,
    },
}

/// Codecs that the `ffmpeg` program does not decode either, with advice.
const NOT_BY_FFMPEG: [(&str, &str); 13] = [
    (FREE_FORMAT, "decode it with mpg123 (`mpg123 -w out.wav FILE`)"),
    (MIXED_CHAIN, "split it into one file per stream"),
    ("MIDI", "it needs a synthesizer"),
    ("OptimFROG", "decode it with its own program"),
    ("Lossless Audio", "decode it with its own program"),
    ("TTA 2", "decode it with its own program"),
    ("SILK", "decode it with a SILK decoder"),
    ("SMV", "decode it with the program that made it"),
    ("AMR-WB+", "decode it with the program that made it"),
    ("AC-4", "decode it with the program that made it"),
    ("MPEG-H audio", "decode it with the program that made it"),
    ("encrypted audio", "it needs its key"),
    ("AAC with copy protection", "it needs its key"),
];

/// Name of MP3 whose bit rate is not in the table.
pub(crate) const FREE_FORMAT: &str = "MP3 of free bit rate";
/// Name of Ogg streams of several codecs, one of which is not decoded here.
pub(crate) const MIXED_CHAIN: &str = "a chain of streams";

/// Advice for a codec that the `ffmpeg` program does not decode either.
fn beyond_ffmpeg(codec: &str) -> Option<&'static str> {
    NOT_BY_FFMPEG.iter().find(|(name, _)| codec.starts_with(name)).map(|(_, advice)| *advice)
}

fn unsupported(codec: &str, container: &str) -> String {
    let what = codec_in(codec, container);
    match beyond_ffmpeg(codec) {
        Some(advice) => format!("{what} is decoded neither by Flowmill nor by ffmpeg; {advice}, or leave it out"),
        None => format!(
            "{what} is not decoded by Flowmill itself; install ffmpeg and set `prep.fallback: ffmpeg`, or convert the file"
        ),
    }
}

/// Formats a codec in a container, such as "AMR-NB in 3GP"; the codec alone if its files have no other container.
fn codec_in(codec: &str, container: &str) -> String {
    if codec.starts_with(container) { codec.to_owned() } else { format!("{codec} in {container}") }
}

/// Returns whether an error of the operating system is temporary and belongs to this machine (a permission, a broken disk, too many
/// open files, too little memory), so that the same file may be readable later; and does not belong to the file or its name.
pub fn is_of_machine(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    !matches!(
        error.kind(),
        Kind::NotFound
            | Kind::NotADirectory
            | Kind::IsADirectory
            | Kind::InvalidInput
            | Kind::InvalidFilename
            | Kind::InvalidData
            | Kind::UnexpectedEof
    )
}

impl AudioError {
    /// Returns whether the cause is temporary and belongs to this machine, not to the recording or a setting.
    pub fn is_of_machine(&self) -> bool {
        match self {
            Self::File { fault, .. } => fault.is_of_machine(),
            Self::Write { source, .. } => is_of_machine(source),
            _ => false,
        }
    }
}

impl Fault {
    /// Returns whether the cause is temporary and belongs to this machine, not to the recording.
    pub fn is_of_machine(&self) -> bool {
        match self {
            Self::Io(error) => is_of_machine(error),
            Self::FallbackMissing { .. } => true,
            _ => false,
        }
    }

    /// Returns whether the file may be valid in a format that this crate does not decode.
    pub(crate) fn is_for_fallback(&self) -> bool {
        match self {
            Self::UnsupportedCodec { codec, .. } => beyond_ffmpeg(codec).is_none(),
            Self::Unrecognized { .. } => true,
            _ => false,
        }
    }

    /// Adds the name of the recording.
    pub fn of(self, name: &str) -> AudioError {
        AudioError::File { name: name.to_owned(), fault: self }
    }

    /// Adds the path of the file.
    pub fn of_path(self, path: &Path) -> AudioError {
        self.of(&path.display().to_string())
    }
}
