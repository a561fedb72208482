//! FLAC (RFC 9639), the codec of most speech corpora, decoded here for speed: up to 24 bits per sample; more go
//! through Symphonia.
//!
//! Every frame's checksum is verified. The MD5 sum of the whole is not: it would cost as much as decoding, and can
//! only differ if frames are missing, which the count of samples shows.

mod bits;
mod crc;
mod frame;
mod predict;
mod stream_info;

pub(super) use stream_info::{StreamInfo, parse as parse_metadata};

use super::{Decoded, MAX_SAMPLES, within};
use crate::audio::{Audio, DecodeWarning};
use crate::error::Fault;
use frame::{Broken, Header};
use stream_info::malformed;

/// Most bits per sample that are decoded here.
pub(super) const MAX_BITS: u32 = 24;
/// After this many broken frames a file is given up.
const MAX_BROKEN: u64 = 10_000;

/// Decodes a FLAC file that starts with its marker.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, Fault> {
    let (info, start) = stream_info::parse(bytes)?;
    let mut stream = Stream::new(&info, bytes.len());
    stream.run(bytes, start)?;
    let warnings = stream.warnings();
    Ok(Decoded {
        audio: Audio { samples: stream.samples, sample_rate: info.sample_rate, warnings },
        codec: "flac".into(),
        container: "flac".into(),
    })
}

struct Stream<'a> {
    info: &'a StreamInfo,
    /// The frame being decoded, as `[channel][frame]`.
    block: Vec<Vec<i32>>,
    samples: Vec<Vec<f32>>,
    broken: u64,
    first_error: Option<&'static str>,
    broke_off: bool,
}

impl<'a> Stream<'a> {
    fn new(info: &'a StreamInfo, bytes: usize) -> Self {
        // The claimed length, unless it is more than the file can reasonably hold.
        let capacity = info.frames.unwrap_or(0).min(16 * bytes as u64) as usize;
        Self {
            info,
            block: vec![Vec::new(); info.channels],
            samples: vec![Vec::with_capacity(capacity); info.channels],
            broken: 0,
            first_error: None,
            broke_off: false,
        }
    }

    fn run(&mut self, bytes: &[u8], start: usize) -> Result<(), Fault> {
        let mut at = start;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match frame::decode(rest, self.info, &mut self.block) {
                Ok((frames, length)) => {
                    self.add(frames)?;
                    at += length;
                }
                // Tags that some programs append.
                Err(_) if rest.starts_with(b"TAG") || rest.starts_with(b"APETAGEX") => return Ok(()),
                Err(error) => {
                    let next = next_frame(rest, self.info);
                    self.note(error, next.is_none());
                    match next {
                        Some(next) if self.broken <= MAX_BROKEN => at += next,
                        Some(_) => return Err(malformed(format!("more than {MAX_BROKEN} frames are broken"))),
                        None => return Ok(()),
                    }
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, error: Broken, last: bool) {
        match error {
            Broken::Ended if last => self.broke_off = true,
            Broken::Ended => {
                self.broken += 1;
                self.first_error.get_or_insert("frame runs into the next ones");
            }
            Broken::Invalid(problem) => {
                self.broken += 1;
                self.first_error.get_or_insert(problem);
            }
        }
    }

    fn add(&mut self, frames: usize) -> Result<(), Fault> {
        let total = (self.samples[0].len() + frames) * self.samples.len();
        within("the number of samples", total as u64, MAX_SAMPLES)?;
        let scale = 1.0 / (1u32 << (self.info.bits - 1)) as f32;
        for (channel, block) in self.samples.iter_mut().zip(&self.block) {
            channel.extend(block[..frames].iter().map(|sample| *sample as f32 * scale));
        }
        Ok(())
    }

    fn warnings(&self) -> Vec<DecodeWarning> {
        let mut warnings = Vec::new();
        if let Some(first) = self.first_error {
            warnings.push(DecodeWarning::CorruptPackets { count: self.broken, first: first.to_owned() });
        }
        let frames = self.samples[0].len() as u64;
        if self.broke_off || self.info.frames.is_some_and(|claimed| frames < claimed) {
            warnings.push(DecodeWarning::Truncated { claimed_frames: self.info.frames, frames });
        }
        warnings
    }
}

/// Where the next frame after the beginning of `bytes` starts.
fn next_frame(bytes: &[u8], info: &StreamInfo) -> Option<usize> {
    frame_from(bytes, 1, info)
}

/// Where the first frame at `from` or later starts.
fn frame_from(bytes: &[u8], from: usize, info: &StreamInfo) -> Option<usize> {
    (from..bytes.len().saturating_sub(1))
        .find(|&at| bytes[at] == 0xff && bytes[at + 1] & 0xfe == 0xf8 && Header::parse(&bytes[at..], info).is_ok())
}

/// Whether `end`, the last bytes of a file, ends with a whole frame that holds the last of the claimed frames of
/// audio: then the claim can be believed without decoding everything.
pub(super) fn ends_as_claimed(end: &[u8], info: &StreamInfo) -> bool {
    let Some(claimed) = info.frames.filter(|_| info.bits <= MAX_BITS) else { return false };
    let mut block = vec![Vec::new(); info.channels];
    let mut at = 0;
    while let Some(frame) = frame_from(end, at, info) {
        let Ok(header) = Header::parse(&end[frame..], info) else { return false };
        if header.first_sample.checked_add(header.block_size as u64) == Some(claimed)
            && let Ok((_, length)) = frame::decode(&end[frame..], info, &mut block)
        {
            return frame + length == end.len();
        }
        at = frame + 1;
    }
    false
}
