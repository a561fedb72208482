//! Pages and packets of Ogg files (RFC 3533).

use crc::{Algorithm, CRC_32_CKSUM, Crc, Table};

use crate::audio::DecodeWarning;

/// One page of an Ogg file.
pub(super) struct Page<'a> {
    flags: u8,
    /// Position of the end of the last packet that ends in the page, in the codec's units; -1 for none.
    pub(super) granule: i64,
    pub(super) serial: u32,
    /// Number of the page within its stream.
    pub(super) number: u32,
    lacing: &'a [u8],
    pub(super) body: &'a [u8],
    /// The whole page.
    pub(super) bytes: &'a [u8],
}

const HEADER_BYTES: usize = 27;
const CHECKSUM_AT: std::ops::Range<usize> = 22..26;
const CONTINUED: u8 = 1;
const BEGINNING_OF_STREAM: u8 = 2;
const END_OF_STREAM: u8 = 4;

impl Page<'_> {
    pub(super) fn begins_stream(&self) -> bool {
        self.flags & BEGINNING_OF_STREAM != 0
    }

    pub(super) fn ends_stream(&self) -> bool {
        self.flags & END_OF_STREAM != 0
    }
}

/// An iterator over the pages of a file, which searches for the next one if bytes are not a page.
pub(super) struct Pages<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Number of bytes that belong to no page.
    pub(super) skipped: u64,
}

impl<'a> Pages<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, skipped: 0 }
    }
}

impl<'a> Iterator for Pages<'a> {
    type Item = Page<'a>;

    fn next(&mut self) -> Option<Page<'a>> {
        while self.at < self.bytes.len() {
            let rest = &self.bytes[self.at..];
            if let Some((page, length)) = parse(rest) {
                self.at += length;
                return Some(page);
            }
            let step = 1 + rest[1..].iter().position(|byte| *byte == b'O').unwrap_or(rest.len() - 1);
            self.at += step;
            self.skipped += step as u64;
        }
        None
    }
}

/// Parses the page at the beginning of `bytes` and returns its length, if it is whole and has the right checksum.
fn parse(bytes: &[u8]) -> Option<(Page<'_>, usize)> {
    let header = bytes.get(..HEADER_BYTES)?;
    if !header.starts_with(b"OggS\0") {
        return None;
    }
    let body_at = HEADER_BYTES + usize::from(header[26]);
    let lacing = bytes.get(HEADER_BYTES..body_at)?;
    let length = body_at + lacing.iter().map(|byte| usize::from(*byte)).sum::<usize>();
    let page = bytes.get(..length)?;
    let stored = u32::from_le_bytes(page[CHECKSUM_AT].try_into().ok()?);
    if checksum(page) != stored {
        return None;
    }
    let granule = i64::from_le_bytes(header[6..14].try_into().ok()?);
    let serial = u32::from_le_bytes(header[14..18].try_into().ok()?);
    let number = u32::from_le_bytes(header[18..22].try_into().ok()?);
    Some((Page { flags: header[5], granule, serial, number, lacing, body: &page[body_at..], bytes: page }, length))
}

/// CRC-32 of pages: the one of `cksum` but for its last step.
static PAGE_CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&Algorithm { xorout: 0, ..CRC_32_CKSUM });

/// The checksum of a page, with its own field taken as zero.
fn checksum(page: &[u8]) -> u32 {
    let mut digest = PAGE_CRC.digest();
    digest.update(&page[..CHECKSUM_AT.start]);
    digest.update(&[0; CHECKSUM_AT.end - CHECKSUM_AT.start]);
    digest.update(&page[CHECKSUM_AT.end..]);
    digest.finalize()
}

/// Assembles packets from the pages of one stream.
#[derive(Default)]
pub(super) struct Packets {
    unfinished: Vec<u8>,
}

/// Largest accepted packet; a longer one is damage, real ones are far shorter.
const MAX_PACKET_BYTES: usize = 1 << 24;

impl Packets {
    /// Calls `each` for every packet that ends in `page`.
    pub(super) fn feed(&mut self, page: &Page<'_>, mut each: impl FnMut(&[u8])) {
        let continued = page.flags & CONTINUED != 0;
        if !continued {
            self.unfinished.clear();
        }
        // The rest of a packet whose beginning was lost.
        let mut orphan = continued && self.unfinished.is_empty();
        let mut body = page.body;
        for lace in page.lacing {
            let (part, rest) = body.split_at(usize::from(*lace));
            body = rest;
            if !orphan && self.unfinished.len() < MAX_PACKET_BYTES {
                self.unfinished.extend_from_slice(part);
            }
            if *lace < 255 {
                if !orphan {
                    each(&self.unfinished);
                }
                orphan = false;
                self.unfinished.clear();
            }
        }
    }
}

/// Result of a walk over all pages of a file.
pub(super) struct Scan {
    ended: bool,
    /// Bytes between pages.
    skipped: u64,
    /// Bytes after the last page.
    left_over: u64,
}

/// Walks over all pages.
pub(super) fn scan(bytes: &[u8]) -> Scan {
    let mut pages = Pages::new(bytes);
    let mut scan = Scan { ended: false, skipped: 0, left_over: bytes.len() as u64 };
    while let Some(page) = pages.next() {
        let left_over = (bytes.len() - pages.at) as u64;
        scan = Scan { ended: page.ends_stream(), skipped: pages.skipped, left_over };
    }
    scan
}

impl Scan {
    /// Returns whether the file ends inside a page.
    pub(super) fn breaks_off(&self) -> bool {
        !self.ended && self.left_over > 0
    }

    /// A warning if the file ends inside a page, or if there are other bytes between the pages. (Browsers never mark the
    /// end of a stream, so a missing mark alone means nothing.)
    pub(super) fn warning(&self, frames: u64) -> Option<DecodeWarning> {
        if self.breaks_off() {
            return Some(DecodeWarning::Truncated { claimed_frames: None, frames });
        }
        (self.skipped > 0).then_some(DecodeWarning::LostSync { bytes: self.skipped })
    }
}
