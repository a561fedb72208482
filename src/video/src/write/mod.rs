//! Writing clips: H.264 with Opus in MP4, which browsers and common players show.

mod h264;
mod mp4;
mod opus;

use flowmill_audio::Audio;

use crate::clip::Frame;
use crate::error::VideoError;

/// Settings for writing a video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WriteOptions {
    /// Frames per second.
    pub fps: f64,
}

impl Default for WriteOptions {
    /// 25 frames per second.
    fn default() -> Self {
        Self { fps: 25.0 }
    }
}

/// Encodes frames and their sound as MP4. Sound with more than two channels is mixed down to one.
///
/// The same input gives the same bytes.
///
/// # Errors
/// [`VideoError::Write`] without frames, for frames of different sizes, or of sizes that are odd or below 16 pixels.
pub fn mp4<'f>(
    frames: impl IntoIterator<Item = &'f Frame>,
    audio: Option<&Audio>,
    options: &WriteOptions,
) -> Result<Vec<u8>, VideoError> {
    let picture = h264::encode(frames, options)?;
    let sound = audio.map(opus::encode).transpose()?;
    mp4::mux(&picture, sound.as_ref(), options.fps)
}

/// An error of writing a video.
fn failed(problem: impl std::fmt::Display) -> VideoError {
    VideoError::Write { what: "the video", problem: problem.to_string() }
}
