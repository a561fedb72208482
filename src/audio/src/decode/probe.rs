//! What a file holds, from its header where the header can be trusted.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use super::riff::{self, WavHeader};
use super::sniff::{self, Content};
use super::wav::{self, Codec};
use super::{Decoded, MAX_SAMPLES, adpcm, decode_named, flac, read, within};
use crate::audio::{AudioInfo, DecodeWarning};
use crate::error::{AudioError, Fault};

/// Bytes read to recognise a format.
const BEGINNING_BYTES: u64 = 4096;

/// Bytes read from the end of a FLAC file to find its last frame.
const END_BYTES: u64 = 1 << 16;

/// Says what a file holds: rate, channels, frames, codec, container.
///
/// Integer WAV files are judged by their header against the size of the file, which is exact; FLAC files by their
/// header if the last frame of the file is whole and is the one that the header promises. Everything else is
/// decoded: the lengths that compressed files claim are too often wrong. So damage in the middle of a FLAC file is
/// noticed by [`super::decode_file`] only.
///
/// # Errors
/// [`AudioError::File`] with the path and what is wrong.
pub fn probe(path: impl AsRef<Path>) -> Result<AudioInfo, AudioError> {
    let path = path.as_ref();
    probe_file(path).map_err(|fault| fault.of_path(path))
}

/// As [`probe`], of the bytes of a file; `hint_name` is its name, used in messages.
///
/// # Errors
/// [`AudioError::File`] with `hint_name` and what is wrong.
pub fn probe_bytes(bytes: &[u8], hint_name: &str) -> Result<AudioInfo, AudioError> {
    let known = from_ends(&mut Cursor::new(bytes), bytes.len() as u64, hint_name);
    let info = match known {
        Ok(Some(info)) => Ok(info),
        Ok(None) => decode_named(bytes, hint_name).map(from_decoded),
        Err(fault) => Err(fault),
    };
    info.map_err(|fault| fault.of(hint_name))
}

fn probe_file(path: &Path) -> Result<AudioInfo, Fault> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let name = path.display().to_string();
    match from_ends(&mut file, length, &name)? {
        Some(info) => Ok(info),
        None => Ok(from_decoded(decode_named(&read(path)?, &name)?)),
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
        warnings,
    }))
}

fn from_decoded(decoded: Decoded) -> AudioInfo {
    AudioInfo {
        sample_rate: decoded.audio.sample_rate,
        channels: decoded.audio.samples.len() as u32,
        frames: decoded.audio.frames() as u64,
        codec: decoded.codec,
        container: decoded.container,
        warnings: decoded.audio.warnings,
    }
}
