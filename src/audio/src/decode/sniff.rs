//! The format of a file, judged by its first bytes.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::{au, foreign, sphere, w64};
use crate::audio::DecodeWarning;
use crate::error::Fault;

/// The formats that are distinguished before decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Riff,
    Flac,
    Ogg,
    OggOpus,
    Aiff,
    Caf,
    Mp4,
    Matroska,
    Mpeg,
    Adts,
    Sphere,
    Au,
    Wave64,
}

impl Content {
    /// Short name of the container.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Riff => "wav",
            Self::Flac => "flac",
            Self::Ogg | Self::OggOpus => "ogg",
            Self::Aiff => "aiff",
            Self::Caf => "caf",
            Self::Mp4 => "mp4",
            Self::Matroska => "matroska",
            Self::Mpeg => "mpeg audio",
            Self::Adts => "adts",
            Self::Sphere => "sphere",
            Self::Au => "au",
            Self::Wave64 => "w64",
        }
    }

    /// Name of the container, for messages.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Riff => "WAV",
            Self::Flac => "FLAC",
            Self::Ogg | Self::OggOpus => "Ogg",
            Self::Aiff => "AIFF",
            Self::Caf => "CAF",
            Self::Mp4 => "MP4",
            Self::Matroska => "Matroska",
            Self::Mpeg => "MPEG audio",
            Self::Adts => "ADTS",
            Self::Sphere => "NIST SPHERE",
            Self::Au => "AU",
            Self::Wave64 => "Wave64",
        }
    }

    /// Usual file extensions of the container.
    fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Riff => &["wav", "wave", "rf64", "bwf"],
            Self::Flac => &["flac", "fla"],
            Self::Ogg => &["ogg", "oga", "ogx", "spx"],
            Self::OggOpus => &["opus", "ogg", "oga"],
            Self::Aiff => &["aiff", "aif", "aifc"],
            Self::Caf => &["caf"],
            Self::Mp4 => &["m4a", "mp4", "m4b", "mov", "m4v", "3gp", "3g2", "aac"],
            Self::Matroska => &["webm", "mkv", "mka"],
            Self::Mpeg => &["mp3", "mp2", "mp1", "mpga"],
            Self::Adts => &["aac", "adts"],
            Self::Sphere => &["sph", "nist", "wav"],
            Self::Au => &["au", "snd"],
            Self::Wave64 => &["w64"],
        }
    }
}

const ALL: [Content; 13] = [
    Content::Riff,
    Content::Flac,
    Content::Ogg,
    Content::OggOpus,
    Content::Aiff,
    Content::Caf,
    Content::Mp4,
    Content::Matroska,
    Content::Mpeg,
    Content::Adts,
    Content::Sphere,
    Content::Au,
    Content::Wave64,
];

/// Returns the usual file extension of a recording, by its bytes; `None` if they are not audio.
pub fn extension(bytes: &[u8]) -> Option<&'static str> {
    let start = super::leading::start(&mut std::io::Cursor::new(bytes), bytes.len() as u64).ok()?;
    let content = content(bytes.get(start.at as usize..)?).ok()?;
    Some(match content {
        Content::Matroska => "mka",
        other => other.extensions()[0],
    })
}

/// Returns whether a file that begins with `head` is a recording by its signature.
pub fn begins_recording(head: &[u8]) -> bool {
    signature(head).is_some()
}

/// Returns whether a source of `length` bytes contains a recording, even after tags, zeros or the rest of a frame.
///
/// # Errors
/// An error of reading the source.
pub fn holds_recording(source: &mut (impl Read + Seek), length: u64) -> std::io::Result<bool> {
    let start = match super::leading::start(source, length) {
        Ok(start) => start,
        Err(Fault::Io(error)) => return Err(error),
        Err(_) => return Ok(false),
    };
    source.seek(SeekFrom::Start(start.at))?;
    let mut head = Vec::new();
    source.by_ref().take(SIGNATURE_BYTES as u64).read_to_end(&mut head)?;
    Ok(signature(&head).is_some())
}

/// Returns the format of `bytes`, a file from the start of its recording; or the reason why they are not audio.
pub(super) fn content(bytes: &[u8]) -> Result<Content, Fault> {
    if bytes.is_empty() {
        return Err(Fault::Empty);
    }
    if bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
        return Err(Fault::LfsPointer);
    }
    signature(bytes).ok_or_else(|| foreign::recognized(bytes).unwrap_or_else(|| unknown(bytes)))
}

/// Number of bytes from the start of a recording that identify its format.
pub(super) const SIGNATURE_BYTES: usize = 4096;

/// Returns the format of `bytes`, which start at a recording.
pub(super) fn signature(bytes: &[u8]) -> Option<Content> {
    let at = |from: usize, what: &[u8]| bytes.get(from..).is_some_and(|rest| rest.starts_with(what));
    let riff = at(0, b"RIFF") || at(0, b"RIFX") || at(0, b"RF64") || at(0, b"BW64");
    if riff && (at(8, b"WAVE") || bytes.len() < 12) {
        return Some(Content::Riff);
    }
    if at(0, b"OggS") {
        // The first packet of the first page starts after the page's segment table.
        let packet = 27 + usize::from(*bytes.get(26)?);
        return Some(if at(packet, b"OpusHead") { Content::OggOpus } else { Content::Ogg });
    }
    if at(0, b"fLaC") {
        return Some(Content::Flac);
    }
    if at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")) {
        return Some(Content::Aiff);
    }
    if at(0, sphere::SIGNATURE) {
        return Some(Content::Sphere);
    }
    if au::SIGNATURES.iter().any(|signature| at(0, *signature)) {
        return Some(Content::Au);
    }
    if at(0, w64::SIGNATURE) {
        return Some(Content::Wave64);
    }
    if at(0, b"caff") {
        return Some(Content::Caf);
    }
    if at(4, b"ftyp") {
        return Some(Content::Mp4);
    }
    if at(0, &[0x1a, 0x45, 0xdf, 0xa3]) {
        return Some(Content::Matroska);
    }
    match bytes {
        // Eleven bits of sync; a layer of 0 makes it ADTS.
        [0xff, second, ..] if second & 0xf6 == 0xf0 => Some(Content::Adts),
        [0xff, second, ..] if second & 0xe0 == 0xe0 && second & 0x06 != 0 && second & 0x18 != 0x08 => {
            Some(Content::Mpeg)
        }
        _ => None,
    }
}

fn unknown(bytes: &[u8]) -> Fault {
    let beginning = &bytes[..bytes.len().min(64)];
    let printable = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace() || *byte >= 0x80;
    match std::str::from_utf8(beginning).or_else(|error| std::str::from_utf8(&beginning[..error.valid_up_to()])) {
        Ok(text) if !text.is_empty() && text.len() + 3 >= beginning.len() && beginning.iter().all(printable) => {
            Fault::Text { beginning: text.chars().take(40).collect() }
        }
        _ => {
            let hex: Vec<String> = beginning.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
            Fault::Unrecognized { beginning: hex.join(" ") }
        }
    }
}

/// A warning if the name's extension belongs to another of the known formats.
pub(super) fn misleading_name(name: &str, content: Content) -> Option<DecodeWarning> {
    let extension = Path::new(name).extension()?.to_str()?.to_ascii_lowercase();
    let known = ALL.iter().any(|other| other.extensions().contains(&extension.as_str()));
    let misleading = known && !content.extensions().contains(&extension.as_str());
    misleading.then(|| DecodeWarning::MisleadingName { extension, content: content.name().to_owned() })
}
