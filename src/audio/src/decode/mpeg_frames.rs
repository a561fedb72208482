//! The frame structure of MPEG audio (MP1, MP2, MP3): position and contents of the frames, and the bytes between them.

use super::tags;

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The two bits of the header: 3 for MPEG 1, 2 for MPEG 2, 0 for MPEG 2.5.
    version: u8,
    pub(super) layer: u8,
    pub(super) sample_rate: u32,
    pub(super) channels: usize,
    has_checksum: bool,
    kilobits: u16,
    /// Bytes of the frame, header included.
    length: usize,
}

/// Name of streams of layer 2 for which [`Header::forbidden_bit_rate`] is true.
pub(super) const FORBIDDEN_BIT_RATE: &str = "MP2 of a bit rate that the standard forbids for its channels";

const HEADER_BYTES: usize = 4;
const MPEG_1: u8 = 3;
const MPEG_2: u8 = 2;

impl Header {
    /// Reads the header at the beginning of `bytes`. Free-format streams, whose headers state no length, return `None`.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let [0xff, second, third, fourth, ..] = *bytes else { return None };
        let (version, layer_code, rate_code) = ((second >> 3) & 3, (second >> 1) & 3, usize::from((third >> 2) & 3));
        if second & 0xe0 != 0xe0 || version == 1 || layer_code == 0 || rate_code == 3 {
            return None;
        }
        let layer = 4 - layer_code;
        let kilobits = BIT_RATES[usize::from(version != MPEG_1)][usize::from(layer - 1)][usize::from(third >> 4)];
        if kilobits == 0 {
            return None;
        }
        let divisor = match version {
            MPEG_1 => 1,
            MPEG_2 => 2,
            _ => 4,
        };
        let sample_rate = [44_100, 48_000, 32_000][rate_code] / divisor;
        let padding = usize::from((third >> 1) & 1);
        let bits = usize::from(kilobits) * 1000;
        let rate = sample_rate as usize;
        let length = match layer {
            1 => (12 * bits / rate + padding) * 4,
            3 if version != MPEG_1 => 72 * bits / rate + padding,
            _ => 144 * bits / rate + padding,
        };
        let channels = if fourth >> 6 == 3 { 1 } else { 2 };
        Some(Self { version, layer, sample_rate, channels, has_checksum: second & 1 == 0, kilobits, length })
    }

    /// Number of audio frames in the frame, one value per channel each.
    pub(super) fn samples(&self) -> usize {
        match self.layer {
            1 => 384,
            3 if self.version != MPEG_1 => 576,
            _ => 1152,
        }
    }

    /// Returns whether layer 2 forbids the bit rate for the number of channels; decoders that follow the standard reject it.
    pub(super) fn forbidden_bit_rate(&self) -> bool {
        let forbidden: &[u16] = if self.channels == 1 { &[224, 256, 320, 384] } else { &[32, 48, 56, 80] };
        self.layer == 2 && forbidden.contains(&self.kilobits)
    }

    /// Version, layer and sampling rate do not change within a stream.
    fn same_stream(&self, other: &Self) -> bool {
        (self.version, self.layer, self.sample_rate) == (other.version, other.layer, other.sample_rate)
    }

    /// Bytes of side information of a frame of layer 3.
    fn side_bytes(&self) -> usize {
        match (self.version == MPEG_1, self.channels) {
            (true, 2) => 32,
            (true, _) | (false, 2) => 17,
            (false, _) => 9,
        }
    }
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

/// Walks from frame to frame over a stream without its trailing tags.
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Header of the frame that ends at `at`.
    previous: Option<Header>,
    /// Header of the last frame.
    last: Option<Header>,
    /// Number of bytes so far that belong to no frame or tag.
    pub(super) skipped: u64,
    /// Number of bytes of a last frame that is cut off.
    pub(super) cut: u64,
}

impl<'a> Frames<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: tags::without_trailing(bytes), at: 0, previous: None, last: None, skipped: 0, cut: 0 }
    }

    /// Returns the header at `at`, if there is a whole frame that matches its surroundings.
    fn frame(&self) -> Option<Header> {
        let header = Header::parse(&self.bytes[self.at..])?;
        let end = self.at + header.length;
        if end > self.bytes.len() {
            return None;
        }
        let continues = self.previous.is_some_and(|previous| previous.same_stream(&header));
        (continues || followed(self.bytes, end, &header)).then_some(header)
    }

    /// Returns whether a frame that matches the previous one starts at `at` and is cut off.
    fn cut_off(&self) -> bool {
        let fits = |header: Header| {
            let continues = self.previous.is_some_and(|previous| previous.same_stream(&header));
            continues && self.at + header.length > self.bytes.len()
        };
        Header::parse(&self.bytes[self.at..]).is_some_and(fits)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = (Header, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.bytes.len() {
            let rest = &self.bytes[self.at..];
            if let Some(header) = self.frame() {
                self.at += header.length;
                (self.previous, self.last) = (Some(header), Some(header));
                return Some((header, &rest[..header.length]));
            }
            if self.cut_off() {
                self.cut = rest.len() as u64;
                self.at = self.bytes.len();
                break;
            }
            // Files that were joined have tags in the middle.
            match tags::length(rest).and_then(|length| usize::try_from(length).ok()) {
                Some(length) if length <= rest.len() => self.at += length,
                _ => {
                    self.previous = None;
                    self.at += 1;
                    self.skipped += 1;
                }
            }
        }
        None
    }
}

/// Returns whether the file continues at `end` like after a frame: with a frame of the same stream, a tag, or its end.
fn followed(bytes: &[u8], end: usize, header: &Header) -> bool {
    let rest = &bytes[end..];
    rest.is_empty() || Header::parse(rest).is_some_and(|next| next.same_stream(header)) || tags::length(rest).is_some()
}

/// Returns whether a stream starts with a header of free bit rate.
pub(super) fn is_free_format(bytes: &[u8]) -> bool {
    matches!(bytes, [0xff, second, third, ..] if second & 0xe0 == 0xe0 && third >> 4 == 0)
}

/// Number of consecutive frames that identify bytes of an unknown kind as MPEG audio.
const MANY_FRAMES: usize = 8;

/// Returns the start of the first of many consecutive frames. With `whole`, the bytes reach to the end of the file, and fewer
/// frames that reach to the end suffice too.
pub(super) fn first_of_many(bytes: &[u8], whole: bool) -> Option<usize> {
    let many = |start: &usize| {
        let Some(first) = Header::parse(&bytes[*start..]) else { return false };
        let (mut at, mut count) = (*start, 0);
        while count < MANY_FRAMES {
            match bytes.get(at..).filter(|rest| !rest.is_empty()) {
                None => return whole && count > 1 && at == bytes.len(),
                Some(rest) => match Header::parse(rest).filter(|header| header.same_stream(&first)) {
                    Some(header) => at += header.length,
                    None => return whole && count > 1 && tags::without_trailing(bytes).len() == at,
                },
            }
            count += 1;
        }
        true
    };
    (0..bytes.len()).filter(|at| bytes[*at] == 0xff).find(many)
}

/// Information about the other frames in the first frame of a file (Xing, Info and LAME, VBRI).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct InfoTag {
    /// Number of frames that follow.
    pub(super) frames: Option<u32>,
    /// Number of audio frames at the beginning that the encoder and a decoder added.
    pub(super) delay: usize,
    /// Number of audio frames at the end that the encoder added.
    pub(super) padding: usize,
}

/// Delay of a decoder of layer 3, in frames of audio.
const DECODER_DELAY: usize = 529;

/// Reads the tag in a frame that has one instead of audio; `None` for a frame of audio.
pub(super) fn info_tag(header: &Header, frame: &[u8]) -> Option<InfoTag> {
    if header.layer != 3 {
        return None;
    }
    let head = HEADER_BYTES + if header.has_checksum { 2 } else { 0 };
    let silent_until = |end: usize| frame.get(head..end).is_some_and(|side| side.iter().all(|byte| *byte == 0));
    let number = |bytes: &[u8], at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let xing_at = HEADER_BYTES + header.side_bytes();
    const VBRI_AT: usize = HEADER_BYTES + 32;
    match (frame.get(xing_at..), frame.get(VBRI_AT..)) {
        (Some(tag @ [b'X', b'i', b'n', b'g', ..] | tag @ [b'I', b'n', b'f', b'o', ..]), _) if silent_until(xing_at) => {
            let flags = number(tag, 4)?;
            // Frames, bytes, a table of contents, a quality: each is present if its flag is set.
            let size = |flag: u32, bytes: usize| if flags & flag != 0 { bytes } else { 0 };
            let frames = number(tag, 8).filter(|_| flags & 1 != 0);
            let encoder = tag.get(8 + size(1, 4) + size(2, 4) + size(4, 100) + size(8, 4)..).unwrap_or_default();
            let (delay, padding) = delay_and_padding(encoder).unwrap_or_default();
            Some(InfoTag { frames, delay, padding })
        }
        (_, Some(tag @ [b'V', b'B', b'R', b'I', ..])) if silent_until(VBRI_AT) => {
            Some(InfoTag { frames: number(tag, 14), delay: 0, padding: 0 })
        }
        _ => None,
    }
}

/// Returns the number of added audio frames after decoding, from the encoder's part of a tag.
fn delay_and_padding(encoder: &[u8]) -> Option<(usize, usize)> {
    if ![b"LAME", b"Lavf", b"Lavc"].iter().any(|name| encoder.starts_with(*name)) {
        return None;
    }
    let [high, middle, low] = *encoder.get(21..)?.first_chunk()?;
    let delay = usize::from(high) << 4 | usize::from(middle >> 4);
    let padding = usize::from(middle & 0x0f) << 8 | usize::from(low);
    Some((delay + DECODER_DELAY, padding.saturating_sub(DECODER_DELAY)))
}
