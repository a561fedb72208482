//! The codec of the first audio track of MPEG transport streams, MPEG program streams and NUT files, from the tables and headers at their
//! beginning. None of them are decoded here.

use super::codec_names;

/// Number of bytes of a file that are searched.
const SEARCHED_BYTES: usize = 1 << 20;
/// Name for a codec that was not found.
pub(super) const UNKNOWN: &str = "an unknown codec";

const TS_SYNC: u8 = 0x47;
const TS_PACKET: usize = 188;

/// Size of the packets of a transport stream and the start of the first one; `None` if `bytes` are not a transport stream.
pub(super) fn transport_packets(bytes: &[u8]) -> Option<(usize, usize)> {
    // Blu-ray puts four bytes before every packet.
    [(TS_PACKET, 0), (TS_PACKET + 4, 4)].into_iter().find(|(size, start)| {
        let marks = || bytes.iter().skip(*start).step_by(*size).take(64);
        marks().count() >= 3 && marks().all(|byte| *byte == TS_SYNC)
    })
}

/// The codec of a transport stream: its association table refers to the programs' maps, which list the tracks.
pub(super) fn transport(bytes: &[u8]) -> Option<String> {
    let (size, start) = transport_packets(bytes)?;
    let bytes = bytes.get(start..bytes.len().min(SEARCHED_BYTES))?;
    let mut map_pid = None;
    for packet in bytes.chunks(size) {
        let [TS_SYNC, high, low, control, ..] = *packet else { continue };
        let (pid, begins) = (u16::from_be_bytes([high & 0x1f, low]), high & 0x40 != 0);
        let content = match control >> 4 & 3 {
            1 => packet.get(4..TS_PACKET.min(packet.len())),
            // An adaptation field precedes the content.
            3 => packet.get(4).and_then(|length| packet.get(5 + usize::from(*length)..TS_PACKET.min(packet.len()))),
            _ => None,
        };
        let Some(section) =
            content.filter(|_| begins).and_then(|content| content.get(1 + usize::from(*content.first()?)..))
        else {
            continue;
        };
        match section.first() {
            Some(0) if pid == 0 => {
                let programs = section.get(8..).unwrap_or_default().chunks_exact(4);
                let maps = programs.filter(|program| program[..2] != [0, 0]);
                map_pid = map_pid.or(maps.map(|program| u16::from_be_bytes([program[2] & 0x1f, program[3]])).next());
            }
            Some(2) if Some(pid) == map_pid => return audio_of_map(section),
            _ => {}
        }
    }
    None
}

/// The codec of the first audio track that a program's map lists.
fn audio_of_map(section: &[u8]) -> Option<String> {
    let end = 3 + usize::from(u16::from_be_bytes([section.get(1)? & 0x0f, *section.get(2)?]));
    let information = usize::from(u16::from_be_bytes([section.get(10)? & 0x0f, *section.get(11)?]));
    // A checksum ends the section.
    let mut tracks = section.get(12 + information..end.min(section.len()).saturating_sub(4))?;
    while let [kind, _, _, high, low, rest @ ..] = tracks {
        let length = usize::from(u16::from_be_bytes([high & 0x0f, *low])).min(rest.len());
        let (descriptors, next) = rest.split_at(length);
        if let Some(codec) = transport_codec(*kind, descriptors) {
            return Some(codec.to_owned());
        }
        tracks = next;
    }
    None
}

/// The codec of a type of track; `None` if it is not audio.
fn transport_codec(kind: u8, mut descriptors: &[u8]) -> Option<&'static str> {
    match kind {
        0x03 | 0x04 => return Some("MPEG audio"),
        0x0f | 0x1c => return Some("AAC"),
        0x11 => return Some("AAC (LATM)"),
        0x80 => return Some("PCM"),
        0x81 => return Some("AC-3"),
        0x82 | 0x85 | 0x86 | 0x8a => return Some("DTS"),
        0x83 => return Some("TrueHD"),
        0x84 | 0x87 => return Some("E-AC-3"),
        0x06 => {}
        _ => return None,
    }
    while let [tag, length, rest @ ..] = descriptors {
        let (content, next) = rest.split_at(usize::from(*length).min(rest.len()));
        match (tag, content) {
            (0x6a, _) | (0x05, b"AC-3") => return Some("AC-3"),
            (0x7a, _) | (0x05, b"EAC3") => return Some("E-AC-3"),
            (0x7b, _) | (0x05, [b'D', b'T', b'S', _]) => return Some("DTS"),
            (0x7c, _) => return Some("AAC"),
            (0x05, b"Opus") => return Some("Opus"),
            (0x05, b"BSSD") => return Some("SMPTE 302M PCM"),
            _ => {}
        }
        descriptors = next;
    }
    None
}

/// The codec of a program stream, from the stream numbers of its packets and the contents of private ones.
pub(super) fn program(bytes: &[u8]) -> Option<String> {
    let bytes = &bytes[..bytes.len().min(SEARCHED_BYTES)];
    let mut at = 0;
    while let Some([0, 0, 1, number, rest @ ..]) = bytes.get(at..) {
        let length = rest.first_chunk().map_or(0, |size| usize::from(u16::from_be_bytes(*size)));
        let name = match number {
            0xc0..=0xdf => Some("MPEG audio"),
            0xbd => {
                let header = usize::from(*rest.get(4)?);
                match rest.get(5 + header)? {
                    0x80..=0x87 => Some("AC-3"),
                    0x88..=0x8f => Some("DTS"),
                    0xa0..=0xaf => Some("PCM"),
                    0xb0..=0xbf => Some("TrueHD"),
                    0xc0..=0xcf => Some("E-AC-3"),
                    _ => None,
                }
            }
            _ => None,
        };
        if let Some(name) = name {
            return Some(name.to_owned());
        }
        at = match number {
            // The length of a pack depends on its version only; its content begins with the next mark.
            0xba => at + 4 + rest.windows(3).position(|mark| mark == [0, 0, 1])?,
            _ => at + 6 + length,
        };
    }
    None
}

/// The codec of a NUT file, from the tag in its stream headers.
pub(super) fn nut(bytes: &[u8]) -> Option<String> {
    const STREAM: &[u8] = b"NS\x11\x40\x5b\xf2\xf9\xdb";
    const AUDIO: u64 = 1;
    let bytes = &bytes[..bytes.len().min(SEARCHED_BYTES)];
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(STREAM.len()).position(|window| window == STREAM) {
        at += found + STREAM.len();
        let mut rest = &bytes[at..];
        let size = variable(&mut rest)?;
        if size > 4096 {
            rest = rest.get(4..)?;
        }
        let (_, class) = (variable(&mut rest)?, variable(&mut rest)?);
        let length = usize::try_from(variable(&mut rest)?).ok()?;
        if class == AUDIO {
            let tag = rest.get(..length)?;
            return match tag {
                [low, high] | [low, high, 0, 0] => Some(codec_names::riff(u16::from_le_bytes([*low, *high]))),
                [b'P', b'S', b'D', _] | [_, b'D', b'S', b'P'] => Some("PCM".to_owned()),
                [a, b, c, d] => Some(codec_names::sample_entry([*a, *b, *c, *d])),
                _ => None,
            };
        }
    }
    None
}

/// Reads a number with seven bits per byte, the highest first.
fn variable(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for _ in 0..9 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
