//! The frame structure of MPEG audio (MP1, MP2, MP3): finds what a decoder skips without a word.

use super::sniff::behind_id3_or_all;
use crate::audio::DecodeWarning;

/// Length of the frame whose header starts `bytes`, in bytes; `None` if that is no header. Free-format streams,
/// whose headers give no length, count as none.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let [first, second, third, ..] = *bytes else { return None };
    if first != 0xff || second & 0xe0 != 0xe0 {
        return None;
    }
    let version_1 = match (second >> 3) & 3 {
        3 => true,
        1 => return None,
        _ => false,
    };
    let layer = match (second >> 1) & 3 {
        0 => return None,
        code => 4 - code,
    };
    let kilobits = BIT_RATES[usize::from(!version_1)][usize::from(layer - 1)][usize::from(third >> 4)];
    let rate_code = usize::from((third >> 2) & 3);
    if kilobits == 0 || rate_code == 3 {
        return None;
    }
    let divisor = match (second >> 3) & 3 {
        3 => 1,
        2 => 2,
        _ => 4,
    };
    let rate = [44_100, 48_000, 32_000][rate_code] / divisor;
    let padding = usize::from((third >> 1) & 1);
    let bits = usize::from(kilobits) * 1000;
    Some(match layer {
        1 => (12 * bits / rate + padding) * 4,
        3 if !version_1 => 72 * bits / rate + padding,
        _ => 144 * bits / rate + padding,
    })
}

/// Kilobits per second as `[version 1, later][layer][code]`; 0 where the code is not allowed.
const BIT_RATES: [[[u16; 16]; 3]; 2] = [
    [
        [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448, 0],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 0],
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0],
    ],
    [
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256, 0],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0],
    ],
];

/// Walks from frame to frame: bytes between frames, and a last frame that is cut off.
pub(super) fn warnings(bytes: &[u8]) -> Vec<DecodeWarning> {
    let bytes = without_trailing_tags(behind_id3_or_all(bytes));
    let (mut at, mut skipped, mut cut) = (0, 0u64, 0u64);
    while at < bytes.len() {
        match frame_length(&bytes[at..]) {
            Some(length) if at + length > bytes.len() && plausible_last(bytes, at) => {
                cut = (bytes.len() - at) as u64;
                break;
            }
            Some(length) if plausible(bytes, at, length) => at += length,
            _ => {
                at += 1;
                skipped += 1;
            }
        }
    }
    let lost = (skipped > 0).then_some(DecodeWarning::LostSync { bytes: skipped });
    lost.into_iter().chain((cut > 0).then_some(DecodeWarning::PartialFrame { bytes: cut })).collect()
}

/// A header is believed if another follows where the frame ends, or the file does.
fn plausible(bytes: &[u8], at: usize, length: usize) -> bool {
    match bytes.get(at + length..) {
        None => false,
        Some([]) => true,
        Some(next) => frame_length(next).is_some() && same_stream(&bytes[at..], next),
    }
}

/// A header whose frame reaches behind the end is believed if the stream's first frame looks alike.
fn plausible_last(bytes: &[u8], at: usize) -> bool {
    same_stream(bytes, &bytes[at..])
}

/// Version, layer and sampling rate do not change within a stream.
fn same_stream(one: &[u8], other: &[u8]) -> bool {
    matches!((one, other), ([_, a, b, ..], [_, c, d, ..]) if a & 0xfe == c & 0xfe && b & 0x0c == d & 0x0c)
}

/// Without the ID3v1 and APE tags that may end a file.
fn without_trailing_tags(mut bytes: &[u8]) -> &[u8] {
    const ID3V1: usize = 128;
    if bytes.len() >= ID3V1 && bytes[bytes.len() - ID3V1..].starts_with(b"TAG") {
        bytes = &bytes[..bytes.len() - ID3V1];
    }
    const APE_FOOTER: usize = 32;
    if bytes.len() >= APE_FOOTER {
        let footer = &bytes[bytes.len() - APE_FOOTER..];
        if footer.starts_with(b"APETAGEX") {
            let size = u32::from_le_bytes([footer[12], footer[13], footer[14], footer[15]]) as usize;
            let header = if footer[23] & 0x80 != 0 { APE_FOOTER } else { 0 };
            bytes = &bytes[..bytes.len().saturating_sub(size + header)];
        }
    }
    bytes
}
