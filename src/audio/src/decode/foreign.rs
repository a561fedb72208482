//! Formats that are recognized but not decoded here: their container and codec, for messages and for the fallback.

use super::codec_names;
use super::program_streams::{self, UNKNOWN};
use crate::error::Fault;

/// Returns the format of `bytes`, the beginning of a file, as a fault of an undecodable codec; `None` if it is unknown.
pub(super) fn recognized(bytes: &[u8]) -> Option<Fault> {
    let (codec, container) = by_signature(bytes).or_else(|| by_structure(bytes))?;
    Some(Fault::UnsupportedCodec { container: container.to_owned(), codec })
}

/// Formats with a signature in their first bytes.
fn by_signature(bytes: &[u8]) -> Option<(String, &'static str)> {
    // The codec, and the container if it has another name.
    const TABLE: [(&[u8], &str, &str); 37] = [
        (b"#!AMR-WB\n", "AMR-WB", "AMR"),
        (b"#!AMR-WB_MC", "AMR-WB", "AMR"),
        (b"#!AMR", "AMR-NB", "AMR"),
        (b"#!iLBC", "iLBC", "iLBC"),
        (b"#!SILK_V3", "SILK", "SILK"),
        (b"\x02#!SILK_V3", "SILK", "SILK"),
        (b"#!EVRC", "EVRC", "EVRC"),
        (b"#!SMV", "SMV", "SMV"),
        (b"wvpk", "WavPack", "WavPack"),
        (b"TTA1", "TTA", "TTA"),
        (b"TTA2", "TTA 2", "TTA"),
        (b"MAC ", "Monkey's Audio", "APE"),
        (b"MP+", "Musepack 7", "Musepack"),
        (b"MPCK", "Musepack 8", "Musepack"),
        (b"OFR ", "OptimFROG", "OptimFROG"),
        (b"tBaK", "TAK", "TAK"),
        (b"ajkg", "Shorten", "Shorten"),
        (b"LA0", "Lossless Audio", "LA"),
        (b".RMF", "RealAudio", "RealMedia"),
        (b".ra\xfd", "RealAudio", "RealAudio"),
        (b"DSD ", "DSD", "DSF"),
        (b"FRM8", "DSD", "DSDIFF"),
        (b"Creative Voice File\x1a", "VOC audio", "VOC"),
        (b"\x7f\xfe\x80\x01", "DTS", "DTS"),
        (b"\xfe\x7f\x01\x80", "DTS", "DTS"),
        (b"\x1f\xff\xe8\x00", "DTS", "DTS"),
        (b"\xff\x1f\x00\xe8", "DTS", "DTS"),
        (b"\x64\x58\x20\x25", "DTS-HD", "DTS"),
        (b"PVF1", "PVF sound", "PVF"),
        (b"MThd", "MIDI (notes, no sound)", "MIDI"),
        (b"OMA\0", "ATRAC3", "OpenMG"),
        (b"2BIT", "AVR sound", "AVR"),
        (b" paf", "PAF sound", "PAF"),
        (b"fap ", "PAF sound", "PAF"),
        (b".SoX", "SoX sound", "SoX"),
        (b"XoS.", "SoX sound", "SoX"),
        (b"\xc0\xde\xc2", "Codec 2", "Codec 2"),
    ];
    let found = TABLE.iter().find(|(signature, ..)| bytes.starts_with(signature));
    if let Some((_, codec, container)) = found {
        return Some(((*codec).to_owned(), container));
    }
    let at = |from: usize, what: &[u8]| bytes.get(from..).is_some_and(|rest| rest.starts_with(what));
    match bytes {
        [0x64, 0xa3, 1..=4, 0, ..] | [0, 1..=3, 0xa3, 0x64, ..] => Some(("IRCAM sound".into(), "IRCAM")),
        _ if at(0, b"\x00\x00\x01\xba") => Some((named(program_streams::program(bytes)), "MPEG program stream")),
        _ if at(0, b"nut/multimedia container") => Some((named(program_streams::nut(bytes)), "NUT")),
        _ if at(0, &ASF_HEADER) => Some((asf_codec(bytes), "ASF")),
        _ if at(0, b"RIFF") && at(8, b"AVI ") => Some((avi_codec(bytes), "AVI")),
        _ if at(0, b"RIFF") && at(8, b"QLCM") => Some(("QCELP".into(), "QCP")),
        _ if at(0, b"FORM") && at(8, b"8SVX") => Some(("8SVX audio".into(), "IFF")),
        _ if at(4, b"\xf8\x72\x6f\xba") => Some(("TrueHD".into(), "TrueHD")),
        _ if at(4, b"\xf8\x72\x6f\xbb") => Some(("MLP".into(), "MLP")),
        [b'F', b'L', b'V', 1, ..] => Some((flv_codec(bytes), "FLV")),
        [0x0b, 0x77, _, _, _, id, ..] | [0x77, 0x0b, _, _, id, ..] => match id >> 3 {
            0..=10 => Some(("AC-3".into(), "AC-3")),
            11..=16 => Some(("E-AC-3".into(), "E-AC-3")),
            _ => None,
        },
        _ => None,
    }
}

fn named(codec: Option<String>) -> String {
    codec.unwrap_or_else(|| UNKNOWN.to_owned())
}

/// Formats that are only recognizable by the distance between repeated marks.
fn by_structure(bytes: &[u8]) -> Option<(String, &'static str)> {
    const GSM_FRAME: usize = 33;
    // A mark that would be after the end of a short file decides nothing.
    let repeats = |step: usize, least: usize, mark: &dyn Fn(u8) -> bool| {
        let marks = || bytes.iter().step_by(step).take(64);
        marks().count() >= least && marks().all(|byte| mark(*byte))
    };
    if program_streams::transport_packets(bytes).is_some() {
        return Some((named(program_streams::transport(bytes)), "MPEG transport stream"));
    }
    if loas_frames(bytes) >= 2 {
        return Some(("AAC".into(), "LATM"));
    }
    repeats(GSM_FRAME, 8, &|byte| byte >> 4 == 0xd).then(|| ("GSM 06.10".into(), "GSM"))
}

/// Number of consecutive LOAS frames, up to a limit.
fn loas_frames(bytes: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    while let Some([0x56, second, third, ..]) = bytes.get(at..) {
        if second & 0xe0 != 0xe0 || count == 8 {
            break;
        }
        count += 1;
        at += 3 + (usize::from(second & 0x1f) << 8 | usize::from(*third));
    }
    // The frame after the last must begin where the last ends, unless the file ends there.
    if bytes.get(at..).is_some_and(|rest| rest.len() >= 2 && !rest.starts_with(&[0x56])) { 0 } else { count }
}

const ASF_HEADER: [u8; 8] = [0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11];
/// The type of a stream properties object's stream: audio.
const ASF_AUDIO: [u8; 16] =
    [0x40, 0x9e, 0x69, 0xf8, 0x4d, 0x5b, 0xcf, 0x11, 0xa8, 0xfd, 0x00, 0x80, 0x5f, 0x5c, 0x44, 0x2b];

/// The codec of the first audio stream of an ASF file: its format tag is 54 bytes after the type of the stream.
fn asf_codec(bytes: &[u8]) -> String {
    let header = &bytes[..bytes.len().min(1 << 16)];
    let place = header.windows(ASF_AUDIO.len()).position(|window| window == ASF_AUDIO);
    match place.and_then(|place| header.get(place + 54..place + 56)) {
        Some([low, high]) => codec_names::riff(u16::from_le_bytes([*low, *high])),
        _ => UNKNOWN.into(),
    }
}

/// The codec of the first audio stream of an AVI file: the format tag at the beginning of its `strf` chunk.
fn avi_codec(bytes: &[u8]) -> String {
    let header = &bytes[..bytes.len().min(1 << 16)];
    let find = |from: usize, what: &[u8]| {
        header.get(from..)?.windows(what.len()).position(|window| window == what).map(|place| from + place)
    };
    let format = find(0, b"auds").and_then(|stream| find(stream, b"strf")).and_then(|chunk| header.get(chunk + 8..));
    match format {
        // The extensible format has the tag at the beginning of its GUID.
        Some([0xfe, 0xff, rest @ ..]) if rest.len() >= 24 => {
            codec_names::riff(u16::from_le_bytes([rest[22], rest[23]]))
        }
        Some([low, high, ..]) => codec_names::riff(u16::from_le_bytes([*low, *high])),
        _ => UNKNOWN.into(),
    }
}

/// The codec of the first audio tag of an FLV file.
fn flv_codec(bytes: &[u8]) -> String {
    let mut at = 9 + 4;
    for _ in 0..1000 {
        let Some([kind, a, b, c, _, _, _, _, _, _, _, format, ..]) = bytes.get(at..) else { break };
        if kind & 0x1f == 8 {
            return match format >> 4 {
                0 | 3 => "PCM".into(),
                1 => "Flash ADPCM".into(),
                2 | 14 => "MP3".into(),
                4..=6 => "Nellymoser".into(),
                7 => "A-law".into(),
                8 => "mu-law".into(),
                10 => "AAC".into(),
                11 => "Speex".into(),
                other => format!("a codec with the FLV number {other}"),
            };
        }
        at += 11 + u32::from_be_bytes([0, *a, *b, *c]) as usize + 4;
    }
    UNKNOWN.into()
}
