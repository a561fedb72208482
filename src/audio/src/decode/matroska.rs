//! The parts of Matroska and WebM files that Symphonia does not return: the codec id as written, the type of document, and
//! the padding of the last packet.

const DOC_TYPE: u32 = 0x4282;
pub(super) const EBML: u32 = 0x1a45_dfa3;
pub(super) const SEGMENT: u32 = 0x1853_8067;
pub(super) const CLUSTER: u32 = 0x1f43_b675;
pub(super) const INFO: u32 = 0x1549_a966;
const TIMESTAMP_SCALE: u32 = 0x2a_d7b1;
const DURATION: u32 = 0x4489;
pub(super) const TRACKS: u32 = 0x1654_ae6b;
const TRACK: u32 = 0xae;
const TRACK_NUMBER: u32 = 0xd7;
const TRACK_TYPE: u32 = 0x83;
const CODEC_ID: u32 = 0x86;
const CODEC_PRIVATE: u32 = 0x63a2;
pub(super) const BLOCK_GROUP: u32 = 0xa0;
const BLOCK: u32 = 0xa1;
pub(super) const SIMPLE_BLOCK: u32 = 0xa3;
const DISCARD_PADDING: u32 = 0x75a2;

const AUDIO: u64 = 2;

/// The first audio track of a file.
#[derive(Debug, Default, Clone)]
pub(super) struct Track<'a> {
    number: u64,
    /// The codec id, for example `A_OPUS`.
    pub(super) codec_id: &'a str,
    /// The codec's private data.
    pub(super) private: &'a [u8],
}

/// Finds the first audio track.
pub(super) fn first_audio_track(bytes: &[u8]) -> Option<Track<'_>> {
    let tracks = Elements::new(bytes).descending(&[SEGMENT]).find(|element| element.id == TRACKS)?;
    let entries = Elements::new(tracks.content).filter(|element| element.id == TRACK);
    entries.map(|entry| track(entry.content)).find(|(kind, _)| *kind == AUDIO).map(|(_, track)| track)
}

/// Type and content of a track entry.
fn track(entry: &[u8]) -> (u64, Track<'_>) {
    let (mut kind, mut track) = (0, Track::default());
    for Element { id, content } in Elements::new(entry) {
        match id {
            TRACK_NUMBER => track.number = unsigned(content),
            TRACK_TYPE => kind = unsigned(content),
            CODEC_ID => track.codec_id = std::str::from_utf8(content).unwrap_or_default().trim_end_matches('\0'),
            CODEC_PRIVATE => track.private = content,
            _ => {}
        }
    }
    (kind, track)
}

/// Returns whether the document calls itself WebM.
pub(super) fn is_webm(bytes: &[u8]) -> bool {
    let header = Elements::new(bytes).next().filter(|element| element.id == EBML);
    let mut inside = header.map(|header| Elements::new(header.content)).into_iter().flatten();
    inside.any(|element| element.id == DOC_TYPE && element.content.starts_with(b"webm"))
}

/// Padding at the end of the first audio track's last packet, in frames at `sample_rate`.
pub(super) fn padding_in_frames(bytes: &[u8], sample_rate: u32) -> usize {
    let nanoseconds = first_audio_track(bytes).map_or(0, |track| padding_at_end(bytes, &track));
    let frames = (u128::from(nanoseconds) * u128::from(sample_rate) + 500_000_000) / 1_000_000_000;
    usize::try_from(frames).unwrap_or(usize::MAX)
}

/// Padding at the end of a track's last packet, in nanoseconds.
fn padding_at_end(bytes: &[u8], track: &Track<'_>) -> u64 {
    let (mut own, mut padding) = (false, 0);
    for Element { id, content } in Elements::new(bytes).descending(&[SEGMENT, CLUSTER, BLOCK_GROUP]) {
        match id {
            BLOCK | SIMPLE_BLOCK => {
                own = number(content).is_some_and(|(number, _)| number == track.number);
                if own {
                    padding = 0;
                }
            }
            DISCARD_PADDING if own => padding = unsigned(content),
            _ => {}
        }
    }
    // A negative padding is at the beginning of its packet, and no packet is as long as two seconds.
    if padding >> 31 == 0 { padding } else { 0 }
}

/// The length in frames that the header states, for a file with one track. A file with several tracks is as long as the longest.
pub(super) fn claimed_frames(bytes: &[u8], sample_rate: u32) -> Option<u64> {
    let top = || Elements::new(bytes).descending(&[SEGMENT]);
    let tracks = top().find(|element| element.id == TRACKS)?;
    if Elements::new(tracks.content).filter(|element| element.id == TRACK).count() != 1 {
        return None;
    }
    let info = top().find(|element| element.id == INFO)?;
    let (mut scale, mut duration) = (1_000_000, 0.0);
    for Element { id, content } in Elements::new(info.content) {
        match (id, content.len()) {
            (TIMESTAMP_SCALE, _) => scale = unsigned(content),
            (DURATION, 4) => duration = f64::from(f32::from_be_bytes(*content.first_chunk()?)),
            (DURATION, 8) => duration = f64::from_be_bytes(*content.first_chunk()?),
            _ => {}
        }
    }
    let claimed = duration * scale as f64 * 1e-9 * f64::from(sample_rate);
    // A value that is not finite or too large is ignored.
    (claimed < (1u64 << 40) as f64).then_some(claimed as u64)
}

struct Element<'a> {
    id: u32,
    content: &'a [u8],
}

/// Iterates over elements; elements that it descends into are returned without their content, which follows.
struct Elements<'a> {
    bytes: &'a [u8],
    descended: &'static [u32],
}

impl<'a> Elements<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, descended: &[] }
    }

    fn descending(self, descended: &'static [u32]) -> Self {
        Self { descended, ..self }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let (id, id_length) = id(self.bytes)?;
        let (size, size_length) = number(&self.bytes[id_length..])?;
        let rest = &self.bytes[id_length + size_length..];
        if self.descended.contains(&id) {
            self.bytes = rest;
            return Some(Element { id, content: &[] });
        }
        // An element that is longer than the file is cut off, or of unknown size.
        let length = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
        let (content, rest) = rest.split_at(length);
        self.bytes = rest;
        Some(Element { id, content })
    }
}

/// An element's id with its marker, and its length.
pub(super) fn id(bytes: &[u8]) -> Option<(u32, usize)> {
    let length = bytes.first()?.leading_zeros() as usize + 1;
    let value = bytes.get(..length).filter(|_| length <= 4)?;
    Some((value.iter().fold(0, |id, byte| id << 8 | u32::from(*byte)), length))
}

/// A number of variable length without its marker, and its length; all ones are `u64::MAX`.
pub(super) fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = first.leading_zeros() as usize + 1;
    let value = bytes.get(..length).filter(|_| length <= 8)?;
    let all = value.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let mask = (1u64 << (7 * length)) - 1;
    Some((if all & mask == mask { u64::MAX } else { all & mask }, length))
}

/// A big-endian number of up to eight bytes.
fn unsigned(content: &[u8]) -> u64 {
    content.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}
