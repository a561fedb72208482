//! The samples of a recording that a network encodes as a whole.

use crate::{ExtractError, Media};

/// Returns the samples of a recording at a sample rate.
///
/// # Errors
/// When the recording is shorter than a frame, or longer than `longest` seconds, which bounds the memory of the network.
pub(crate) fn recording(
    media: &Media,
    sample_rate: u32,
    hop_length: usize,
    longest: f64,
    extractor: &'static str,
) -> Result<Vec<f32>, ExtractError> {
    let audio = media.as_audio(extractor)?;
    let seconds = audio.seconds()?;
    let needed = hop_length as f64 / f64::from(sample_rate);
    if seconds < needed {
        return Err(ExtractError::TooShort { extractor, seconds, needed });
    }
    if seconds > longest {
        let reason =
            format!("too long for {extractor}: {seconds:.0} s of audio, at most {longest:.0} s; cut it in segments");
        return Err(ExtractError::Media(reason));
    }
    audio.mono_at(sample_rate)
}
