//! The container of a file, judged by its first bytes, whatever its name.

use flowmill_audio::media::{HEAD_BYTES, stand_in};

use crate::error::Fault;

/// The containers that are distinguished before reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// MP4, MOV, M4V, 3GP.
    Mp4,
    /// Matroska and WebM.
    Matroska,
    /// A container that this crate does not read.
    Foreign {
        /// Its name.
        container: &'static str,
        /// Its codec, if all its files have the same one.
        codec: &'static str,
    },
}

impl Content {
    /// Returns whether this crate reads the container.
    pub(crate) fn is_read(self) -> bool {
        !matches!(self, Self::Foreign { .. })
    }
}

/// Returns the container of a file.
pub(crate) fn content(bytes: &[u8]) -> Result<Content, Fault> {
    let head = bytes.get(..HEAD_BYTES).unwrap_or(bytes);
    if head.is_empty() {
        return Err(Fault::Empty);
    }
    if let Some(found) = stand_in(head) {
        return Err(Fault::StandIn { kind: found.kind, advice: found.advice });
    }
    if is_mp4(head) {
        return Ok(Content::Mp4);
    }
    if head.starts_with(b"\x1a\x45\xdf\xa3") {
        return Ok(Content::Matroska);
    }
    if let Some(foreign) = foreign(head) {
        return Ok(foreign);
    }
    if let Some(beginning) = text(head) {
        return Err(Fault::Text { beginning });
    }
    let first = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
    Err(Fault::Unrecognized { beginning: first.join(" ") })
}

/// Returns whether a file begins with a box of MP4 or QuickTime.
fn is_mp4(head: &[u8]) -> bool {
    const FIRST_BOXES: [&[u8]; 8] = [b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp"];
    let picture = [b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis"];
    let kind = head.get(4..8).unwrap_or_default();
    FIRST_BOXES.contains(&kind) && !picture.iter().any(|brand| head.get(8..12) == Some(brand.as_slice()))
}

/// Containers that the `ffmpeg` program may read.
fn foreign(head: &[u8]) -> Option<Content> {
    let at = |from: usize, what: &[u8]| head.get(from..).is_some_and(|rest| rest.starts_with(what));
    let named = |container, codec| Some(Content::Foreign { container, codec });
    match head {
        [0, 0, 1, 0xba, fifth, ..] if fifth >> 4 == 2 => named("an MPEG program stream", "MPEG-1"),
        [0, 0, 1, 0xba, ..] => named("an MPEG program stream", "MPEG-2"),
        [0, 0, 1, 0xb3, ..] => named("an MPEG stream", "MPEG-1 or MPEG-2"),
        [0, 0, 0, 1, 0x67, ..] | [0, 0, 1, 0x67, ..] => named("a stream without a container", "H.264"),
        _ if at(0, b"RIFF") && at(8, b"AVI ") => named("AVI", "unknown"),
        _ if at(0, b"FLV\x01") => named("FLV", "unknown"),
        _ if at(0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11") => named("ASF", "Windows Media"),
        _ if at(0, b".RMF\0\0\0") => named("RealMedia", "RealVideo"),
        _ if at(0, b"nut/multimedia container\0") => named("NUT", "unknown"),
        _ if at(0, b"OggS") => named("Ogg", "Theora"),
        _ if at(0, b"DKIF") => named("IVF", "VP8, VP9 or AV1"),
        _ if at(0, b"YUV4MPEG2") => named("Y4M", "uncompressed"),
        _ if at(0, b"G") && at(188, b"G") && at(376, b"G") => named("an MPEG transport stream", "unknown"),
        _ => None,
    }
}

/// Returns the first characters of a text.
fn text(head: &[u8]) -> Option<String> {
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The last character may be cut.
        Err(error) if error.valid_up_to() + 4 > head.len() => {
            std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    let printable = |c: char| !c.is_control() || c.is_whitespace();
    valid.chars().all(printable).then(|| valid.chars().take(30).collect())
}
