//! What a file holds, from its header where the header can be trusted.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use super::riff::{self, WavHeader};
use super::sniff::{self, Content};
use super::wav::{self, Codec};
use super::{Decoded, MAX_SAMPLES, adpcm, decode_named, flac, read, within};
use crate::audio::{AudioInfo, DecodeWarning};
use crate::error::Fault;

/// Bytes read to recognise a format.
const BEGINNING_BYTES: u64 = 4096;

/// Bytes read from the end of a FLAC file to find its last frame.
const END_BYTES: u64 = 1 << 16;

/// What the bytes of a file hold.
pub(crate) fn probe_bytes_named(bytes: &[u8], name: &str) -> Result<AudioInfo, Fault> {
    match from_ends(&mut Cursor::new(bytes), bytes.len() as u64, name)? {
        Some(info) => Ok(info),
        None => decode_named(bytes, name).map(Decoded::into_info),
    }
}

/// What a file holds.
pub(crate) fn probe_file(path: &Path) -> Result<AudioInfo, Fault> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let name = path.display().to_string();
    match from_ends(&mut file, length, &name)? {
        Some(info) => Ok(info),
        None => decode_named(&read(path)?, &name).map(Decoded::into_info),
    }
}

/// The answer that a file's ends give, where they can be trusted.
fn from_ends(file: &mut (impl Read + Seek), length: u64, name: &str) -> Result<Option<AudioInfo>, Fault> {
    let mut beginning = Vec::new();
    file.by_ref().take(BEGINNING_BYTES).read_to_end(&mut beginning)?;
    let content = sniff::content(&beginning)?;
    let known = match content {
        Content::Riff => {
            file.rewind()?;
            from_wav_header(&riff::read_header(&mut BufReader::new(file), length)?)?
        }
        Content::Flac => from_flac_ends(&beginning, file, length)?,
        _ => None,
    };
    Ok(known.map(|mut info| {
        info.warnings.extend(sniff::misleading_name(name, content));
        info
    }))
}

/// The answer for FLAC files whose ends agree.
fn from_flac_ends(beginning: &[u8], file: &mut (impl Read + Seek), length: u64) -> Result<Option<AudioInfo>, Fault> {
    // Metadata that goes on for longer (pictures) is left to the decoder.
    let Ok((info, start)) = flac::parse_metadata(beginning) else { return Ok(None) };
    let from = length.saturating_sub(END_BYTES).max(start as u64);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(END_BYTES).read_to_end(&mut end)?;
    let (Some(frames), true) = (info.frames, flac::ends_as_claimed(&end, &info)) else { return Ok(None) };
    within("the number of samples", frames * info.channels as u64, MAX_SAMPLES)?;
    Ok(Some(AudioInfo {
        sample_rate: info.sample_rate,
        channels: info.channels as u32,
        frames,
        codec: "flac".into(),
        container: "flac".into(),
        by_fallback: false,
        warnings: Vec::new(),
    }))
}

/// The answer for WAV files whose codec has a fixed size.
fn from_wav_header(header: &WavHeader) -> Result<Option<AudioInfo>, Fault> {
    let (frames, codec, warnings): (u64, String, Vec<DecodeWarning>) = match wav::codec(header)? {
        Codec::Pcm(encoding) if encoding.is_float() => return Ok(None),
        Codec::Pcm(encoding) => {
            let frame_bytes = encoding.bytes() as u64 * u64::from(header.channels);
            let frames = header.data_bytes / frame_bytes;
            (frames, encoding.name(header.big_endian), wav::pcm_warnings(header, encoding))
        }
        Codec::Adpcm => {
            let layout = adpcm::layout(header)?;
            let frames = header.data_bytes / u64::from(header.block_align) * layout.frames as u64;
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
