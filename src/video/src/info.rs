//! Facts about a video.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flowmill_audio::media::HEAD_BYTES;
use flowmill_audio::{AudioInfo, Decoder};

use crate::clip::{self, ClipOptions, SoundPolicy, read_file};
use crate::container::{self, Codec};
use crate::error::{Fault, VideoError};

/// Facts about a video.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoInfo {
    /// Name of the container.
    pub container: &'static str,
    /// Name of the video codec.
    pub codec: String,
    /// Width and height in pixels, as they are shown; 0 if the container does not state them.
    pub size: (u32, u32),
    /// Frames in the file; 0 if they were not counted.
    pub frames: usize,
    /// Frames per second on average; 0 if they were not counted.
    pub fps: f64,
    /// True if the distances between frames differ by more than the rounding of timestamps.
    pub is_variable: bool,
    /// Length of the picture in seconds, if the container was read.
    pub seconds: Option<f64>,
    /// Clockwise angle in degrees by which players turn the picture.
    pub rotation: u32,
    /// Time in seconds at which the sound starts; `None` without a sound track, or if the container was not read.
    pub sound_start: Option<f64>,
    /// The sound, if there is a track that can be read. Only [`probe`] fills it.
    pub sound: Option<AudioInfo>,
    /// True if the frames are not decoded in process.
    pub needs_fallback: bool,
}

impl VideoInfo {
    /// Returns whether the container was read and has no sound track.
    pub fn has_no_sound(&self) -> bool {
        self.seconds.is_some() && self.sound_start.is_none()
    }
}

/// Returns facts about a video file. Frames are counted in the container's tables; none is decoded.
///
/// # Errors
/// [`VideoError::File`] for what is not a video, is damaged, or has a container that this crate does not read.
pub fn probe(path: impl AsRef<Path>, decoder: Decoder) -> Result<VideoInfo, VideoError> {
    let path = path.as_ref();
    let name = path.display().to_string();
    let bytes = read_file(path).map_err(|fault| fault.of(&name))?;
    let described = describe(&bytes).map_err(|fault| fault.of(&name))?;
    let sound = described.sound_start.and_then(|_| decoder.probe_bytes(&bytes, &name).ok());
    Ok(VideoInfo { sound, ..described })
}

/// Returns facts about the bytes of a video after decoding its first frame; `name` is used in messages. Without a fallback in `decoder`, a
/// video that needs one is an error; with it, little is known of a container that this crate does not read.
///
/// # Errors
/// [`VideoError::File`] for what is not a video, is damaged, or cannot be decoded.
pub fn check(bytes: &[u8], name: &str, decoder: Decoder) -> Result<VideoInfo, VideoError> {
    let described = match describe(bytes) {
        Ok(described) => described,
        Err(Fault::UnsupportedCodec { container, codec }) if decoder.has_fallback() => VideoInfo {
            container,
            codec,
            size: (0, 0),
            frames: 0,
            fps: 0.0,
            is_variable: false,
            seconds: None,
            rotation: 0,
            sound_start: None,
            sound: None,
            needs_fallback: true,
        },
        Err(fault) => return Err(fault.of(name)),
    };
    let options = ClipOptions {
        max_frames: usize::MAX,
        sound: SoundPolicy::Ignore,
        decoder: Decoder::builtin(),
        ..ClipOptions::default()
    };
    let in_process = clip::frames(bytes, name, &options).and_then(|mut frames| frames.next().transpose());
    match in_process {
        Ok(_) => Ok(described),
        Err(VideoError::File { fault: Fault::UnsupportedCodec { .. }, .. }) if decoder.has_fallback() => {
            clip::frames(bytes, name, &ClipOptions { decoder, ..options })?.next().transpose()?;
            Ok(VideoInfo { needs_fallback: true, ..described })
        }
        Err(error) => Err(error),
    }
}

/// Returns whether a file is an MP4 or Matroska file with a video track that can be read.
pub fn is_video(path: impl AsRef<Path>) -> bool {
    let mut head = Vec::new();
    let read = File::open(path.as_ref()).and_then(|file| file.take(HEAD_BYTES as u64).read_to_end(&mut head));
    let is_known = read.is_ok() && container::content(&head).is_ok_and(|content| content.is_read());
    is_known && read_file(path.as_ref()).is_ok_and(|bytes| describe(&bytes).is_ok())
}

fn describe(bytes: &[u8]) -> Result<VideoInfo, Fault> {
    let movie = container::open(bytes, container::content(bytes)?)?;
    let mut times: Vec<f64> = movie.samples.iter().map(|sample| sample.time).collect();
    times.sort_by(f64::total_cmp);
    let gaps = || times.windows(2).map(|pair| pair[1] - pair[0]);
    let (least, most) = gaps().fold((f64::INFINITY, 0.0f64), |(least, most), gap| (least.min(gap), most.max(gap)));
    let (width, height) = movie.size;
    Ok(VideoInfo {
        container: movie.container,
        codec: movie.codec.name().to_owned(),
        size: if movie.rotation % 180 == 90 { (height, width) } else { (width, height) },
        frames: movie.samples.len(),
        fps: movie.mean_rate(),
        is_variable: most - least > 4.0 * movie.tolerance + 1e-9,
        seconds: Some(movie.end),
        rotation: movie.rotation,
        sound_start: movie.sound_start,
        sound: None,
        needs_fallback: !matches!(movie.codec, Codec::H264(_)),
    })
}
