//! What a file holds, from its header where the header can be trusted.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use super::riff::{self, WavHeader};
use super::sniff::{self, Content};
use super::wav::{self, Codec};
use super::{Decoded, MAX_SAMPLES, adpcm, decode_named, read, within};
use crate::audio::{AudioInfo, DecodeWarning};
use crate::error::{AudioError, Fault};

/// Bytes read to recognise a format.
const BEGINNING_BYTES: u64 = 4096;

/// Says what a file holds: rate, channels, frames, codec, container.
///
/// WAV files are judged by their header against the size of the file, which is exact. Everything else is decoded:
/// the lengths that compressed files claim are too often wrong.
///
/// # Errors
/// [`AudioError::File`] with the path and what is wrong.
pub fn probe(path: impl AsRef<Path>) -> Result<AudioInfo, AudioError> {
    let path = path.as_ref();
    probe_file(path).map_err(|fault| fault.of_path(path))
}

fn probe_file(path: &Path) -> Result<AudioInfo, Fault> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut beginning = Vec::new();
    file.by_ref().take(BEGINNING_BYTES).read_to_end(&mut beginning)?;
    let name = path.display().to_string();
    if sniff::content(&beginning)? == Content::Riff {
        file.rewind()?;
        let header = riff::read_header(&mut BufReader::new(file), length)?;
        if let Some(mut info) = from_header(&header)? {
            info.warnings.extend(sniff::misleading_name(&name, Content::Riff));
            return Ok(info);
        }
    }
    Ok(from_decoded(decode_named(&read(path)?, &name)?))
}

/// The answer for WAV files whose codec has a fixed size.
fn from_header(header: &WavHeader) -> Result<Option<AudioInfo>, Fault> {
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
