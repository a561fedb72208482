//! Facts about a file, read from its header if that can be trusted.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use super::riff::{self, WavHeader};
use super::sniff::{self, Content, SIGNATURE_BYTES};
use super::wav::{self, Codec};
use super::{Decoded, MAX_SAMPLES, adpcm, decode_named, flac, leading, mpeg, ogg, read, within};
use crate::audio::{AudioInfo, DecodeWarning};
use crate::error::Fault;

/// Facts about the bytes of a file.
pub(crate) fn probe_bytes_named(bytes: &[u8], name: &str) -> Result<AudioInfo, Fault> {
    match from_header(&mut Cursor::new(bytes), bytes.len() as u64, name)? {
        Some(info) => Ok(info),
        None => counted_or_decoded(bytes, name),
    }
}

/// Facts about a file.
pub(crate) fn probe_file(path: &Path) -> Result<AudioInfo, Fault> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let name = path.display().to_string();
    match from_header(&mut file, length, &name)? {
        Some(info) => Ok(info),
        None => counted_or_decoded(&read(path)?, &name),
    }
}

/// Returns the facts from a file's beginning and its size, if these can be trusted.
fn from_header(file: &mut (impl Read + Seek), length: u64, name: &str) -> Result<Option<AudioInfo>, Fault> {
    let start = leading::start(file, length)?;
    let mut beginning = Vec::new();
    file.seek(SeekFrom::Start(start.at))?;
    file.by_ref().take(SIGNATURE_BYTES as u64).read_to_end(&mut beginning)?;
    let content = match sniff::content(&beginning) {
        // The whole file reveals more about its codec.
        Err(Fault::UnsupportedCodec { .. }) => return Ok(None),
        content => content?,
    };
    if content != Content::Riff || start.at > 0 {
        return Ok(None);
    }
    let known = from_wav_header(&riff::read_header(&mut BufReader::new(file), length)?)?;
    Ok(known.map(|info| with_name(info, name, content)))
}

fn with_name(mut info: AudioInfo, name: &str, content: Content) -> AudioInfo {
    info.warnings.extend(sniff::misleading_name(name, content));
    info
}

/// Returns the facts from the whole file, by counting if the format states the length of every packet.
fn counted_or_decoded(bytes: &[u8], name: &str) -> Result<AudioInfo, Fault> {
    let start = leading::start(&mut Cursor::new(bytes), bytes.len() as u64)?;
    let recording = bytes.get(start.at as usize..).unwrap_or_default();
    let content = sniff::content(recording)?;
    let counted = match content {
        Content::Mpeg => Some(mpeg::count(recording)?),
        Content::Ogg | Content::OggOpus => ogg::count(recording)?,
        Content::Flac => flac::count(recording),
        _ => None,
    };
    match counted {
        Some(mut info) => {
            info.warnings.extend(start.warning());
            Ok(with_name(info, name, content))
        }
        None => decode_named(bytes, name).map(Decoded::into_info),
    }
}

/// Returns the facts for WAV files whose codec has a fixed size.
fn from_wav_header(header: &WavHeader) -> Result<Option<AudioInfo>, Fault> {
    let (frames, codec, warnings): (u64, String, Vec<DecodeWarning>) = match wav::codec(header)? {
        Codec::Pcm(encoding) if encoding.is_float() => return Ok(None),
        Codec::Pcm(encoding) => {
            let frame_bytes = encoding.bytes() as u64 * u64::from(header.channels);
            let frames = header.all_bytes() / frame_bytes;
            (frames, encoding.name(header.big_endian), wav::pcm_warnings(header, encoding))
        }
        Codec::Adpcm => {
            let layout = adpcm::layout(header)?;
            let frames = header.all_bytes() / u64::from(header.block_align) * layout.frames as u64;
            (frames, layout.name.to_owned(), adpcm::warnings(header, layout))
        }
        Codec::Mp3 => return Ok(None),
    };
    if frames == 0 {
        return Err(Fault::NoSamples);
    }
    within("the number of samples", frames * u64::from(header.channels), MAX_SAMPLES)?;
    Ok(Some(AudioInfo {
        sample_rate: header.sample_rate,
        channels: u32::from(header.channels),
        frames,
        codec,
        container: "wav".into(),
        by_fallback: false,
        warnings,
    }))
}
