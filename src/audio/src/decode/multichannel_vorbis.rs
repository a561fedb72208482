//! Vorbis with more than two channels, decoded by Lewton.
//!
//! Symphonia 0.6 is off by 20 dB if channels are coded separately (it continues the classes of one channel's residue in the
//! next channel) and undoes chained couplings in the wrong order. Both need three channels or more.

use lewton::audio::{PreviousWindowRight, read_audio_packet_generic};
use lewton::header::{IdentHeader, SetupHeader, read_header_ident, read_header_setup};
use symphonia::core::audio::{
    AsGenericAudioBufferRef, AudioBuffer, AudioMut, AudioSpec, Channels, GenericAudioBufferRef,
};
use symphonia::core::codecs::CodecInfo;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, FinalizeResult};
use symphonia::core::codecs::registry::RegisterableAudioDecoder;
use symphonia::core::errors::{Error, Result};
use symphonia::core::packet::PacketRef;
use symphonia::default::codecs::VorbisDecoder;

use super::channels::from_vorbis_order;

/// A decoder with Symphonia's interface.
pub(super) struct MultichannelVorbis {
    parameters: AudioCodecParameters,
    ident: IdentHeader,
    setup: SetupHeader,
    window: PreviousWindowRight,
    buffer: AudioBuffer<f32>,
}

/// Number of bytes of an identification header.
const IDENT_BYTES: usize = 30;

impl MultichannelVorbis {
    /// Creates a decoder; `None` if the stream has at most two channels.
    ///
    /// # Errors
    /// When the headers are damaged.
    pub(super) fn new(parameters: &AudioCodecParameters) -> Result<Option<Self>> {
        let (ident, setup) = headers(parameters.extra_data.as_deref().unwrap_or_default());
        let ident = read_header_ident(ident).map_err(|_| Error::DecodeError("vorbis: identification header"))?;
        if ident.audio_channels <= 2 {
            return Ok(None);
        }
        let sizes = (ident.blocksize_0, ident.blocksize_1);
        let setup = read_header_setup(setup, ident.audio_channels, sizes)
            .map_err(|_| Error::DecodeError("vorbis: setup header"))?;
        let channels = Channels::Discrete(u16::from(ident.audio_channels));
        let buffer = AudioBuffer::new(AudioSpec::new(ident.audio_sample_rate, channels), 1 << ident.blocksize_1);
        let window = PreviousWindowRight::new();
        Ok(Some(Self { parameters: parameters.clone(), ident, setup, window, buffer }))
    }
}

/// Returns the identification and the setup header: either one after the other, or laced with the comment header between them as in
/// Matroska.
fn headers(private: &[u8]) -> (&[u8], &[u8]) {
    let [2, lacing @ ..] = private else { return private.split_at(IDENT_BYTES.min(private.len())) };
    let (mut lengths, mut rest) = ([0; 2], lacing);
    for length in &mut lengths {
        while let [byte, behind @ ..] = rest {
            *length += usize::from(*byte);
            rest = behind;
            if *byte < 255 {
                break;
            }
        }
    }
    let [ident, comment] = lengths;
    (rest.get(..ident).unwrap_or_default(), rest.get(ident + comment..).unwrap_or_default())
}

impl AudioDecoder for MultichannelVorbis {
    fn reset(&mut self) {
        self.window = PreviousWindowRight::new();
    }

    fn codec_info(&self) -> &CodecInfo {
        &VorbisDecoder::supported_codecs()[0].info
    }

    fn codec_params(&self) -> &AudioCodecParameters {
        &self.parameters
    }

    fn decode_ref(&mut self, packet: &PacketRef<'_>) -> Result<GenericAudioBufferRef<'_>> {
        self.buffer.clear();
        let channels: Vec<Vec<f32>> =
            read_audio_packet_generic(&self.ident, &self.setup, packet.data, &mut self.window)
                .map_err(|_| Error::DecodeError("vorbis: audio packet"))?;
        let channels = from_vorbis_order(channels);
        let frames = channels.first().map_or(0, Vec::len);
        self.buffer.resize_with_silence(frames);
        for (index, channel) in channels.iter().enumerate() {
            if let Some(plane) = self.buffer.plane_mut(index) {
                plane.copy_from_slice(channel);
            }
        }
        let (start, end) = (packet.trim_start.get() as usize, packet.trim_end.get() as usize);
        self.buffer.trim(start.min(frames), end.min(frames));
        Ok(self.buffer.as_generic_audio_buffer_ref())
    }

    fn finalize(&mut self) -> FinalizeResult {
        FinalizeResult::default()
    }

    fn last_decoded(&self) -> GenericAudioBufferRef<'_> {
        self.buffer.as_generic_audio_buffer_ref()
    }
}
