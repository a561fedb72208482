//! The metadata at the beginning of a FLAC file.

use super::frame::{Format, Header};
use crate::audio::DecodeWarning;
use crate::decode::check_format;
use crate::error::Fault;

/// The STREAMINFO block.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::decode) struct StreamInfo {
    /// Largest block, in frames of audio.
    pub(super) max_block: u16,
    pub(in crate::decode) sample_rate: u32,
    pub(in crate::decode) channels: usize,
    /// Bits per sample.
    pub(in crate::decode) bits: u32,
    /// Frames of audio; `None` if the encoder did not know.
    pub(in crate::decode) frames: Option<u64>,
    /// A warning if the frames say something else of rate, channels or bits; they are right.
    pub(super) mended: Option<DecodeWarning>,
}

impl StreamInfo {
    /// This as the first of `frames` has it.
    fn mended(self, frames: &[u8]) -> Self {
        let stated = Format { sample_rate: self.sample_rate, channels: self.channels, bits: self.bits };
        match Header::parse_any(frames, &self).map(|header| header.format) {
            Ok(format) if format != stated => Self {
                sample_rate: format.sample_rate,
                channels: format.channels,
                bits: format.bits,
                mended: Some(DecodeWarning::MendedHeader { said: in_words(stated), used: in_words(format) }),
                ..self
            },
            _ => self,
        }
    }
}

fn in_words(format: Format) -> String {
    format!("{} Hz, channels {}, bits per sample {}", format.sample_rate, format.channels, format.bits)
}

pub(super) fn malformed(problem: impl Into<String>) -> Fault {
    Fault::Malformed { container: "flac".into(), problem: problem.into() }
}

/// Reads the metadata; gives the stream's facts and where, in bytes, the first frame starts.
pub(in crate::decode) fn parse(bytes: &[u8]) -> Result<(StreamInfo, usize), Fault> {
    let cut_off = || malformed("the file ends inside its metadata");
    let mut at = 4;
    let mut info = None;
    loop {
        let [kind, s0, s1, s2] = *bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(cut_off)?;
        let size = u32::from_be_bytes([0, s0, s1, s2]) as usize;
        if kind & 0x7f == 0 {
            let block = bytes.get(at + 4..).and_then(|rest| rest.first_chunk()).ok_or_else(cut_off)?;
            info = Some(stream_info(block));
        }
        at += 4 + size;
        if kind & 0x80 != 0 {
            let info: StreamInfo = info.ok_or_else(|| malformed("there is no STREAMINFO block"))?;
            let info = info.mended(bytes.get(at..).unwrap_or_default());
            check_format(u64::from(info.sample_rate), info.channels as u64)?;
            return Ok((info, at));
        }
    }
}

/// The number of frames of audio that a STREAMINFO block gives, where it does.
pub(in crate::decode) fn frames_of(block: &[u8]) -> Option<u64> {
    stream_info(block.first_chunk()?).frames
}

fn stream_info(block: &[u8; 18]) -> StreamInfo {
    let [_, _, m0, m1, _, _, _, _, _, _, packed @ ..] = *block;
    // 20 bits of rate, 3 of channels, 5 of sample size, 36 of length.
    let packed = u64::from_be_bytes(packed);
    let frames = packed & ((1 << 36) - 1);
    StreamInfo {
        max_block: u16::from_be_bytes([m0, m1]),
        sample_rate: (packed >> 44) as u32,
        channels: ((packed >> 41) & 7) as usize + 1,
        bits: ((packed >> 36) & 31) as u32 + 1,
        frames: (frames > 0).then_some(frames),
        mended: None,
    }
}
