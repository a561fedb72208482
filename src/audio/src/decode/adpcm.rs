//! Microsoft and IMA ADPCM in WAV files: split into blocks here, decoded by Symphonia.

use symphonia::core::audio::{Channels, Position};
use symphonia::core::codecs::audio::well_known::{CODEC_ID_ADPCM_IMA_WAV, CODEC_ID_ADPCM_MS};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};
use symphonia::default::codecs::AdpcmDecoder;

use super::riff::{TAG_ADPCM_IMA, WavHeader};
use super::{Decoded, MAX_SAMPLES, within};
use crate::audio::{Audio, DecodeWarning};
use crate::error::Fault;

/// Decodes the data chunk; whole blocks only, so the result may be a little longer than the original.
pub(super) fn decode(header: &WavHeader, data: &[u8]) -> Result<Decoded, Fault> {
    let layout = layout(header)?;
    let block_bytes = usize::from(header.block_align);
    let blocks = data.len() / block_bytes;
    let channels = usize::from(header.channels);
    within("the number of samples", (blocks * layout.frames * channels) as u64, MAX_SAMPLES)?;
    let mut decoder = decoder(header, layout)?;
    let mut samples = vec![Vec::with_capacity(blocks * layout.frames); channels];
    let mut warnings = warnings(header, layout);
    let mut corrupt = (0, None);
    for block in data.chunks_exact(block_bytes) {
        let packet = PacketRef::new(0, Timestamp::new(0), Duration::new(layout.frames as u64), block);
        match decoder.decode_ref(&packet) {
            Ok(decoded) => super::stream::append(&decoded, &mut samples),
            Err(error) => {
                corrupt.0 += 1;
                corrupt.1.get_or_insert_with(|| error.to_string());
            }
        }
    }
    if let (count, Some(first)) = corrupt {
        warnings.push(DecodeWarning::CorruptPackets { count, first });
    }
    Ok(Decoded {
        audio: Audio { samples, sample_rate: header.sample_rate, warnings },
        codec: layout.name.into(),
        container: "wav".into(),
    })
}

/// The contents of a block.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Frames of a block.
    pub(super) frames: usize,
    /// Short name of the codec.
    pub(super) name: &'static str,
}

/// The layout of the blocks, from their size, as the codecs define it.
pub(super) fn layout(header: &WavHeader) -> Result<Layout, Fault> {
    let channels = usize::from(header.channels);
    let bytes = usize::from(header.block_align);
    let ima = header.tag == TAG_ADPCM_IMA;
    let (head, frames_in_head, name) = if ima { (4, 1, "adpcm_ima_wav") } else { (7, 2, "adpcm_ms") };
    let bad = |field, value: u64, expected: &str| Fault::Header { field, value, expected: expected.into() };
    if channels > 2 {
        return Err(bad("channels", channels as u64, "1 or 2 for ADPCM"));
    }
    if header.bits_per_sample != 4 {
        return Err(bad("bits per sample", header.bits_per_sample.into(), "4 for ADPCM"));
    }
    if bytes <= head * channels {
        return Err(bad("block size", bytes as u64, "more than the head of an ADPCM block"));
    }
    let frames = (bytes - head * channels) * 2 / channels + frames_in_head;
    match header.frames_per_block {
        Some(said) if usize::from(said) != frames => {
            Err(bad("frames per block", said.into(), &format!("{frames}, which is what {bytes} bytes hold")))
        }
        _ => Ok(Layout { frames, name }),
    }
}

/// Warnings about the sizes of the file.
pub(super) fn warnings(header: &WavHeader, layout: Layout) -> Vec<DecodeWarning> {
    let block = u64::from(header.block_align);
    let frames = |bytes: u64| bytes / block * layout.frames as u64;
    let mut warnings = header.warnings.clone();
    warnings.extend(header.chunk_warning());
    if let Some(promised) = header.promised_bytes {
        let (claimed, frames) = (frames(promised), frames(header.all_bytes()));
        warnings.push(DecodeWarning::Truncated { claimed_frames: Some(claimed), frames });
    }
    let bytes = header.all_bytes() % block;
    warnings.extend((bytes > 0).then_some(DecodeWarning::PartialFrame { bytes }));
    warnings
}

fn decoder(header: &WavHeader, layout: Layout) -> Result<AdpcmDecoder, Fault> {
    let id = if header.tag == TAG_ADPCM_IMA { CODEC_ID_ADPCM_IMA_WAV } else { CODEC_ID_ADPCM_MS };
    let positions =
        if header.channels == 1 { Position::FRONT_LEFT } else { Position::FRONT_LEFT | Position::FRONT_RIGHT };
    let mut parameters = AudioCodecParameters::new();
    parameters
        .for_codec(id)
        .with_sample_rate(header.sample_rate)
        .with_channels(Channels::Positioned(positions))
        .with_frames_per_block(layout.frames as u64)
        .with_max_frames_per_packet(layout.frames as u64);
    AdpcmDecoder::try_new(&parameters, &AudioDecoderOptions::default())
        .map_err(|error| Fault::Malformed { container: "wav".into(), problem: error.to_string() })
}
