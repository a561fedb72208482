//! The codec of an MP4 or QuickTime file's first sound track, according to its sample entry.

use super::aac::Config;
use super::codec_names;
use super::mp4_edits::{boxes, child, first_sound_track};

/// The sample entry of the first sound track.
pub(super) struct SampleEntry {
    id: [u8; 4],
    bits_per_sample: u16,
    /// True if a QuickTime file states that samples have the lowest byte first.
    little_endian: bool,
    /// The object type indication of its elementary stream descriptor.
    object_type: Option<u8>,
    /// The AAC configuration, if the object type is MPEG-4 audio.
    config: Option<Config>,
}

/// Finds the sample entry of the first sound track.
pub(super) fn sample_entry(bytes: &[u8]) -> Option<SampleEntry> {
    let track = first_sound_track(bytes)?;
    let descriptions = child(track, &[b"mdia", b"minf", b"stbl", b"stsd"])?;
    let (id, entry) = boxes(descriptions.get(8..)?).next()?;
    let bits_per_sample = u16::from_be_bytes(*entry.get(18..)?.first_chunk()?);
    let endianness = children(entry).and_then(|children| child(children, &[b"wave", b"enda"]));
    let little_endian = endianness.is_some_and(|value| value == [0, 1]);
    let mut found = SampleEntry { id, bits_per_sample, little_endian, object_type: None, config: None };
    if let Some((object_type, config)) = elementary_stream(entry) {
        found.object_type = Some(object_type);
        found.config = config.filter(|_| matches!(object_type, 0x40 | 0x67)).and_then(Config::parse);
    }
    Some(found)
}

impl SampleEntry {
    /// Returns the codec's name if it is known not to be decoded here.
    pub(super) fn unsupported(&self) -> Option<String> {
        match (&self.id, self.object_type) {
            (b"mp4a", Some(0x40 | 0x67)) => self.config.and_then(|config| config.unsupported()),
            (b"mp4a", Some(0x69 | 0x6b | 0xdd)) | (b"mp4a", None) => None,
            (b"mp4a", Some(other)) => codec_names::object_type_indication(other),
            (b"Opus" | b"fLaC" | b"alac" | b".mp3" | b"ms\0\x55" | b"alaw" | b"ulaw", _) => None,
            (b"sowt" | b"twos", _) if self.bits_per_sample == 8 => Some("8-bit PCM".to_owned()),
            (b"lpcm" | b"sowt" | b"twos" | b"in24" | b"in32" | b"fl32" | b"fl64" | b"raw ", _) => None,
            _ => Some(codec_names::sample_entry(self.id)),
        }
    }

    /// Returns whether it is PCM with the highest byte first, which Symphonia reads in the opposite order.
    pub(super) fn is_big_endian(&self) -> bool {
        matches!(&self.id, b"in24" | b"in32" | b"fl32" | b"fl64") && !self.little_endian
    }

    /// The codec's name.
    pub(super) fn name(&self) -> String {
        let by_object_type = self.object_type.and_then(codec_names::object_type_indication);
        by_object_type.or_else(|| self.unsupported()).unwrap_or_else(|| codec_names::sample_entry(self.id))
    }
}

/// Returns the container's name by its brand.
pub(super) fn container(bytes: &[u8]) -> &'static str {
    match bytes.get(8..12) {
        Some(b"qt  ") => "QuickTime (MOV)",
        Some([b'3', b'g', b'2' | b'r', ..]) => "3G2",
        Some([b'3', b'g', ..]) => "3GP",
        _ => "MP4",
    }
}

/// The boxes in a sample entry.
fn children(entry: &[u8]) -> Option<&[u8]> {
    // QuickTime adds fields in later versions of the entry.
    let fields = match entry.get(9)? {
        1 => 28 + 16,
        2 => 28 + 36,
        _ => 28,
    };
    entry.get(fields..)
}

/// Object type and configuration of the elementary stream descriptor in a sample entry.
fn elementary_stream(entry: &[u8]) -> Option<(u8, Option<&[u8]>)> {
    let children = children(entry)?;
    let descriptor = child(children, &[b"esds"]).or_else(|| child(children, &[b"wave", b"esds"]))?;
    descriptor_of(descriptor.get(4..)?)
}

/// Finds object type and decoder configuration in an elementary stream descriptor that is not in a box.
pub(super) fn descriptor_of(bytes: &[u8]) -> Option<(u8, Option<&[u8]>)> {
    const STREAM: u8 = 3;
    const CONFIG: u8 = 4;
    const SPECIFIC: u8 = 5;
    let (_, stream) = descriptor(bytes).filter(|(tag, _)| *tag == STREAM)?;
    let flags = *stream.get(2)?;
    let mut at = 3;
    if flags & 0x80 != 0 {
        at += 2;
    }
    if flags & 0x40 != 0 {
        at += 1 + usize::from(*stream.get(at)?);
    }
    if flags & 0x20 != 0 {
        at += 2;
    }
    let (_, config) = descriptor(stream.get(at..)?).filter(|(tag, _)| *tag == CONFIG)?;
    let specific = config.get(13..).and_then(descriptor).filter(|(tag, _)| *tag == SPECIFIC);
    Some((*config.first()?, specific.map(|(_, content)| content)))
}

/// Returns tag and content of the descriptor at the beginning of `bytes`.
fn descriptor(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (mut length, mut at) = (0usize, 0);
    loop {
        let byte = *rest.get(at)?;
        at += 1;
        length = length << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 || at == 4 {
            break;
        }
    }
    let content = &rest[at..];
    Some((*tag, &content[..length.min(content.len())]))
}
