//! Identification of the codec of a known container before anything is decoded, so that an unsupported codec is reported by name and not
//! by the first data that a decoder cannot handle.

use super::aac::Config;
use super::sniff::Content;
use super::{aac, caf, codec_names, matroska, mp4_codec, ogg_pages};
use crate::error::Fault;

/// A container and its codec.
pub(super) struct Identity {
    /// The kind of container.
    pub(super) content: Content,
    /// Name of the container.
    pub(super) container: &'static str,
    /// Name of the codec, if it could be determined.
    pub(super) codec: Option<String>,
    /// True if the codec is known not to be decoded here.
    unsupported: bool,
    /// True for PCM with the highest byte first, which Symphonia reads in the opposite order.
    pub(super) big_endian: bool,
}

impl Identity {
    /// Returns the fault of a codec that is not decoded here.
    pub(super) fn refusal(&self) -> Fault {
        self.refusal_of(self.codec.as_deref().unwrap_or("an unknown codec"))
    }

    /// Returns the fault of a codec that was only recognized by its packets.
    pub(super) fn refusal_of(&self, codec: &str) -> Fault {
        Fault::UnsupportedCodec { container: self.container.to_owned(), codec: codec.to_owned() }
    }

    /// Returns this, or the fault if the codec is known not to be decoded here.
    pub(super) fn checked(self) -> Result<Self, Fault> {
        if self.unsupported { Err(self.refusal()) } else { Ok(self) }
    }
}

/// Findings about a file: its container, the name of its codec, and whether that is decoded here.
type Found = (&'static str, Option<String>, bool);

/// Identifies the contents of a file.
pub(super) fn identify(bytes: &[u8], content: Content) -> Identity {
    let (container, codec, supported) = match content {
        Content::Mp4 => mp4(bytes),
        Content::Matroska => matroska(bytes),
        Content::Caf => core_audio(bytes),
        Content::Aiff => aiff(bytes),
        Content::Ogg => ogg(bytes),
        Content::Adts => named("ADTS", aac::unsupported_adts(bytes)),
        other => (other.title(), None, true),
    };
    let entry = (content == Content::Mp4).then(|| mp4_codec::sample_entry(bytes)).flatten();
    let big_endian = entry.is_some_and(|entry| entry.is_big_endian());
    Identity { content, container, codec, unsupported: !supported, big_endian }
}

/// Findings for a codec that is not decoded here if it has a name.
fn named(container: &'static str, codec: Option<String>) -> Found {
    let supported = codec.is_none();
    (container, codec, supported)
}

fn mp4(bytes: &[u8]) -> Found {
    let container = mp4_codec::container(bytes);
    match mp4_codec::sample_entry(bytes) {
        Some(entry) => (container, Some(entry.name()), entry.unsupported().is_none()),
        None => (container, None, true),
    }
}

fn matroska(bytes: &[u8]) -> Found {
    let container = if matroska::is_webm(bytes) { "WebM" } else { "Matroska" };
    let Some(track) = matroska::first_audio_track(bytes) else { return (container, None, true) };
    let codec = match (track.codec_id, track.private) {
        ("A_MS/ACM", [low, high, ..]) => codec_names::riff(u16::from_le_bytes([*low, *high])),
        ("A_QUICKTIME", [_, _, _, _, a, b, c, d, ..]) => codec_names::sample_entry([*a, *b, *c, *d]),
        (id, private) if id.starts_with("A_AAC") => {
            let odd = Config::parse(private).and_then(|config| config.unsupported());
            odd.unwrap_or_else(|| codec_names::matroska(id))
        }
        (id, _) => codec_names::matroska(id),
    };
    let supported = match track.codec_id {
        "A_OPUS" | "A_VORBIS" | "A_FLAC" | "A_ALAC" | "A_MPEG/L1" | "A_MPEG/L2" | "A_MPEG/L3" => true,
        id if id.starts_with("A_PCM/") => true,
        id if id.starts_with("A_AAC") => codec == "AAC",
        _ => false,
    };
    (container, Some(codec), supported)
}

fn core_audio(bytes: &[u8]) -> Found {
    // The description is the first chunk; its format id is after the sampling rate.
    let id = bytes.get(28..32).and_then(|id| id.first_chunk::<4>()).filter(|_| bytes.get(8..12) == Some(b"desc"));
    match id {
        None => ("CAF", None, true),
        Some(b"aac ") => {
            let odd = odd_aac_in_caf(bytes);
            let supported = odd.is_none();
            ("CAF", odd.or_else(|| Some("AAC".into())), supported)
        }
        Some(
            id @ (b"lpcm" | b"alac" | b"ulaw" | b"alaw" | b"ima4" | b".mp1" | b".mp2" | b".mp3" | b"flac" | b"opus"),
        ) => ("CAF", Some(codec_names::caf(*id)), true),
        Some(other) => named("CAF", Some(codec_names::caf(*other))),
    }
}

/// Returns the name of the AAC of a CAF file by its configuration, unless that is plain AAC-LC.
fn odd_aac_in_caf(bytes: &[u8]) -> Option<String> {
    let cookie = caf::chunk(bytes, b"kuki")?;
    let config = match mp4_codec::descriptor_of(cookie) {
        Some((_, config)) => config?,
        None => cookie,
    };
    Config::parse(config)?.unsupported()
}

fn aiff(bytes: &[u8]) -> Found {
    if bytes.get(8..12) != Some(b"AIFC") {
        return ("AIFF", None, true);
    }
    let mut rest = bytes.get(12..).unwrap_or_default();
    while let Some((name, after)) = rest.split_first_chunk::<4>() {
        let Some((size, content)) = after.split_first_chunk::<4>() else { break };
        let size = u32::from_be_bytes(*size) as usize;
        if name == b"COMM" {
            let Some(id) = content.get(18..22).and_then(|id| id.first_chunk::<4>()) else { break };
            let supported = [
                b"NONE", b"none", b"sowt", b"twos", b"fl32", b"FL32", b"fl64", b"FL64", b"alaw", b"ALAW", b"ulaw",
                b"ULAW", b"raw ", b"in24", b"in32",
            ];
            return ("AIFF-C", Some(codec_names::aiff(*id)), supported.contains(&id));
        }
        rest = content.get(size.saturating_add(size & 1)..).unwrap_or_default();
    }
    ("AIFF-C", None, true)
}

/// Findings for an Ogg file, whose codec was found to be decoded here.
fn ogg(bytes: &[u8]) -> Found {
    let first = ogg_pages::Pages::new(bytes).next();
    (Content::Ogg.title(), first.and_then(|page| codec_names::ogg(page.body)).map(str::to_owned), true)
}
