//! WAV files: the header determines the codec of the data chunk.

use std::borrow::Cow;
use std::io::Cursor;

use super::pcm::{self, Encoding};
use super::riff::{self, WavHeader};
use super::{Decoded, MAX_SAMPLES, adpcm, codec_names, mpeg, over_range, within};
use crate::audio::{Audio, DecodeWarning};
use crate::error::Fault;

/// Decodes a whole WAV file.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, Fault> {
    let header = riff::read_header(&mut Cursor::new(bytes), bytes.len() as u64)?;
    let start = header.data_start as usize;
    // The header reader limits the data to the file.
    let first = &bytes[start..start + header.data_bytes as usize];
    let more = header.more.iter().map(|(start, length)| &bytes[*start as usize..(start + length) as usize]);
    let data = match header.more.is_empty() {
        true => Cow::Borrowed(first),
        false => Cow::Owned(std::iter::once(first).chain(more).collect::<Vec<_>>().concat()),
    };
    let data = &*data;
    match codec(&header)? {
        Codec::Pcm(encoding) => decode_pcm(&header, encoding, data),
        Codec::Adpcm => adpcm::decode(&header, data),
        Codec::Mp3 if data.is_empty() => Err(Fault::NoSamples),
        Codec::Mp3 => {
            let mut decoded = mpeg::decode(data)?;
            decoded.container = "wav".into();
            let chunks = header.chunk_warning();
            decoded.audio.warnings.splice(0..0, header.warnings.into_iter().chain(chunks));
            Ok(decoded)
        }
    }
}

/// The codec of the data chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Pcm(Encoding),
    Adpcm,
    Mp3,
}

/// The codec of the header's format tag.
pub(super) fn codec(header: &WavHeader) -> Result<Codec, Fault> {
    match header.tag {
        riff::TAG_PCM | riff::TAG_FLOAT | riff::TAG_ALAW | riff::TAG_MULAW => {
            encoding(header.tag, header.block_align / header.channels).map(Codec::Pcm).ok_or_else(|| {
                let expected = format!("a size that format tag {:#06x} allows", header.tag);
                Fault::Header { field: "bits per sample", value: header.bits_per_sample.into(), expected }
            })
        }
        riff::TAG_ADPCM_MS | riff::TAG_ADPCM_IMA => Ok(Codec::Adpcm),
        riff::TAG_MP3 => Ok(Codec::Mp3),
        tag => Err(Fault::UnsupportedCodec { container: "WAV".into(), codec: codec_names::riff(tag) }),
    }
}

/// The encoding of samples of `bytes` bytes, if a format tag allows them.
pub(super) fn encoding(tag: u16, bytes: u16) -> Option<Encoding> {
    Some(match (tag, bytes) {
        (riff::TAG_PCM, 1) => Encoding::Unsigned8,
        (riff::TAG_PCM, 2) => Encoding::Signed16,
        (riff::TAG_PCM, 3) => Encoding::Signed24,
        (riff::TAG_PCM, 4) => Encoding::Signed32,
        (riff::TAG_PCM, 8) => Encoding::Signed64,
        (riff::TAG_FLOAT, 4) => Encoding::Float32,
        (riff::TAG_FLOAT, 8) => Encoding::Float64,
        (riff::TAG_ALAW, 1) => Encoding::ALaw,
        (riff::TAG_MULAW, 1) => Encoding::MuLaw,
        _ => return None,
    })
}

fn decode_pcm(header: &WavHeader, encoding: Encoding, data: &[u8]) -> Result<Decoded, Fault> {
    let channels = usize::from(header.channels);
    within("the number of samples", (data.len() / encoding.bytes()) as u64, MAX_SAMPLES)?;
    let samples = pcm::to_planar(data, encoding, header.big_endian, channels);
    let mut warnings = pcm_warnings(header, encoding);
    if encoding.is_float() {
        warnings.extend(over_range(&samples));
    }
    Ok(Decoded {
        audio: Audio { samples, sample_rate: header.sample_rate, warnings },
        codec: encoding.name(header.big_endian),
        container: "wav".into(),
    })
}

/// Warnings about the sizes of a file with PCM data.
pub(super) fn pcm_warnings(header: &WavHeader, encoding: Encoding) -> Vec<DecodeWarning> {
    let frame_bytes = (encoding.bytes() * usize::from(header.channels)) as u64;
    let mut warnings = header.warnings.clone();
    warnings.extend(header.chunk_warning());
    if let Some(promised) = header.promised_bytes {
        let frames = header.all_bytes() / frame_bytes;
        warnings.push(DecodeWarning::Truncated { claimed_frames: Some(promised / frame_bytes), frames });
    }
    let bytes = header.all_bytes() % frame_bytes;
    warnings.extend((bytes > 0).then_some(DecodeWarning::PartialFrame { bytes }));
    warnings
}
