//! FLAC (RFC 9639), the codec of most speech corpora, decoded here for speed: up to 24 bits per sample; more go
//! through Symphonia.
//!
//! Every frame's checksum is verified. The MD5 sum of the whole is not: it would cost as much as decoding, and can
//! only differ if frames are missing, which the count of samples shows.

mod bits;
mod frame;
mod predict;
mod stream_info;

pub(super) use stream_info::{StreamInfo, frames_of, parse as parse_metadata};

use super::{Decoded, MAX_SAMPLES, tags, within};
use crate::audio::{Audio, AudioInfo, DecodeWarning};
use crate::error::Fault;
use frame::{Broken, Header};
use stream_info::malformed;

/// Most bits per sample that are decoded here.
pub(super) const MAX_BITS: u32 = 24;
/// After this many broken frames a file is given up.
const MAX_BROKEN: u64 = 10_000;
/// Longest stretch of lost frames that is filled with silence where the length of the whole is unknown.
const MAX_LOST: u64 = 1 << 22;

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
    /// Position at which the next frame should start, by the one before.
    expected: Option<u64>,
    /// True when frames after that position are lost.
    lost: bool,
    /// Places where frames of audio are missing and nothing stands in their place, and how many are.
    gaps: (u64, u64),
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
            expected: None,
            lost: false,
            gaps: (0, 0),
        }
    }

    fn run(&mut self, bytes: &[u8], start: usize) -> Result<(), Fault> {
        // Tags that some programs append.
        let bytes = tags::without_trailing(bytes);
        let mut at = start;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match frame::decode(rest, self.info, &mut self.block) {
                Ok((header, length)) => {
                    self.fill(header.first_sample)?;
                    self.add(header.block_size)?;
                    self.expected = Some(header.first_sample.saturating_add(header.block_size as u64));
                    at += length;
                }
                // Another file was joined: its frames follow its metadata.
                Err(_) if metadata_length(rest) > 0 => {
                    self.expected = None;
                    at += metadata_length(rest);
                }
                Err(error) => {
                    self.lost = true;
                    if self.expected.is_none() {
                        self.expected = Header::parse(rest, self.info).ok().map(|header| header.first_sample);
                    }
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

    /// Puts silence where frames before `position` were lost, so that later sound keeps its time. Where frames are missing between
    /// whole ones, somebody may have cut them out: that is noted only.
    fn fill(&mut self, position: u64) -> Result<(), Fault> {
        let there = self.samples[0].len() as u64;
        let missing = position.saturating_sub(self.expected.unwrap_or(position));
        // A position outside the stream is a wrong one.
        let most = self.info.frames.map_or(MAX_LOST, |frames| frames.saturating_sub(there));
        let lost = std::mem::take(&mut self.lost);
        if lost && missing <= most {
            let length = there.saturating_add(missing);
            within("the number of samples", length.saturating_mul(self.samples.len() as u64), MAX_SAMPLES)?;
            self.samples.iter_mut().for_each(|channel| channel.resize(length as usize, 0.0));
        } else if missing > 0 && missing <= most {
            self.gaps = (self.gaps.0 + 1, self.gaps.1 + missing);
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
        let mut warnings: Vec<_> = self.info.mended.iter().cloned().collect();
        if let Some(first) = self.first_error {
            warnings.push(DecodeWarning::CorruptPackets { count: self.broken, first: first.to_owned() });
        }
        let frames = self.samples[0].len() as u64;
        let (places, missing) = self.gaps;
        if places > 0 {
            warnings.push(DecodeWarning::Gaps { places, frames: missing });
        }
        if places == 0 || self.broke_off || self.info.frames != Some(frames + missing) {
            warnings.extend(length_warning(self.info, frames, self.broken > 0, self.broke_off));
        }
        warnings
    }
}

/// Length of the metadata that `bytes` begin with; 0 if they begin with none.
fn metadata_length(bytes: &[u8]) -> usize {
    let metadata = bytes.starts_with(b"fLaC").then(|| stream_info::parse(bytes).ok()).flatten();
    metadata.map_or(0, |(_, start)| start)
}

/// Start of the next frame after the beginning of `bytes`.
fn next_frame(bytes: &[u8], info: &StreamInfo) -> Option<usize> {
    frame_from(bytes, 1, info)
}

/// Start of the first frame at `from` or later.
fn frame_from(bytes: &[u8], from: usize, info: &StreamInfo) -> Option<usize> {
    (from..bytes.len().saturating_sub(1))
        .find(|&at| bytes[at] == 0xff && bytes[at + 1] & 0xfe == 0xf8 && Header::parse(&bytes[at..], info).is_ok())
}

/// Facts about a file, by the positions in its frames' headers; `None` if they are not one whole stream, so that only
/// decoding tells. The checksums of the others are verified, and the last one is decoded, to see that it is whole.
pub(super) fn count(bytes: &[u8]) -> Option<AudioInfo> {
    let (info, start) = stream_info::parse(bytes).ok().filter(|(info, _)| info.bits <= MAX_BITS)?;
    let bytes = tags::without_trailing(bytes);
    let mut at = start;
    let first = Header::parse(bytes.get(at..)?, &info).ok()?;
    let mut end = first.first_sample.checked_add(first.block_size as u64)?;
    while let Some((next, header)) = frame_at_position(bytes, at + 1, end, &info) {
        if !frame::is_whole(&bytes[at..next]) {
            return None;
        }
        at = next;
        end = end.checked_add(header.block_size as u64)?;
    }
    let mut block = vec![Vec::new(); info.channels];
    let (_, length) = frame::decode(&bytes[at..], &info, &mut block).ok()?;
    let frames = end - first.first_sample;
    let reasonable = frames.checked_mul(info.channels as u64).is_some_and(|samples| samples <= MAX_SAMPLES);
    (at + length == bytes.len() && reasonable).then(|| AudioInfo {
        sample_rate: info.sample_rate,
        channels: info.channels as u32,
        frames,
        codec: "flac".into(),
        container: "flac".into(),
        by_fallback: false,
        warnings: info.mended.iter().cloned().chain(length_warning(&info, frames, false, false)).collect(),
    })
}

/// The next frame behind `from` that starts at a position of the stream.
fn frame_at_position(bytes: &[u8], from: usize, position: u64, info: &StreamInfo) -> Option<(usize, Header)> {
    let mut from = from;
    loop {
        let at = frame_from(bytes, from, info)?;
        match Header::parse(&bytes[at..], info) {
            Ok(header) if header.first_sample == position => return Some((at, header)),
            _ => from = at + 1,
        }
    }
}

/// A warning if a stream breaks off, or is not as long as its header says. One that ends with a whole frame and has no
/// broken one was cut or joined by a program that copies frames and leaves the header.
fn length_warning(info: &StreamInfo, frames: u64, broken: bool, broke_off: bool) -> Option<DecodeWarning> {
    let claimed_frames = info.frames;
    match claimed_frames {
        _ if broke_off => Some(DecodeWarning::Truncated { claimed_frames, frames }),
        Some(claimed) if broken && frames < claimed => Some(DecodeWarning::Truncated { claimed_frames, frames }),
        Some(claimed_frames) if !broken && frames != claimed_frames => {
            Some(DecodeWarning::OtherLength { claimed_frames, frames })
        }
        _ => None,
    }
}
