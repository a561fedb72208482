//! Opus, by which the sound of a video is written: the encoder comes with the decoder, and browsers play it in MP4.

use flowmill_audio::{Audio, resample};
use ropus::{Application, Bitrate, Channels, Encoder};

use super::failed;
use crate::error::VideoError;

/// Samples per second and channel.
pub(super) const RATE: u32 = 48_000;
/// Samples per packet and channel: 20 ms.
pub(super) const PACKET: u32 = 960;
/// Largest packet of one frame, in bytes.
const MAX_PACKET_BYTES: usize = 1275;
const BITS_PER_CHANNEL: u32 = 96_000;

/// A sound track.
pub(super) struct Sound {
    pub(super) channels: u8,
    /// Samples at the beginning that belong to the encoder.
    pub(super) pre_skip: u16,
    /// Samples per channel of the sound itself.
    pub(super) samples: u64,
    /// Samples per second before encoding.
    pub(super) input_rate: u32,
    pub(super) packets: Vec<Vec<u8>>,
}

/// Encodes sound.
pub(super) fn encode(audio: &Audio) -> Result<Sound, VideoError> {
    let input_rate = audio.sample_rate;
    let channels = match audio.samples.as_slice() {
        [_, _] => audio.samples.iter().map(|channel| resample(channel, input_rate, RATE)).collect(),
        _ => resample(&audio.mono(), input_rate, RATE).map(|mono| vec![mono]),
    };
    let channels: Vec<Vec<f32>> = channels.map_err(failed)?;
    let layout = if channels.len() == 2 { Channels::Stereo } else { Channels::Mono };
    let samples = channels.first().map_or(0, Vec::len);
    let bits = BITS_PER_CHANNEL * channels.len() as u32;
    let mut encoder =
        Encoder::builder(RATE, layout, Application::Audio).bitrate(Bitrate::Bits(bits)).build().map_err(failed)?;
    let pre_skip = u16::try_from(encoder.lookahead()).map_err(failed)?;
    let mut packets = Vec::new();
    let length = samples + usize::from(pre_skip);
    for start in (0..length).step_by(PACKET as usize) {
        let mut interleaved = Vec::with_capacity(PACKET as usize * channels.len());
        for at in start..start + PACKET as usize {
            interleaved.extend(channels.iter().map(|channel| channel.get(at).copied().unwrap_or(0.0)));
        }
        let mut packet = vec![0; MAX_PACKET_BYTES];
        let bytes = encoder.encode_float(&interleaved, &mut packet).map_err(failed)?;
        packet.truncate(bytes);
        packets.push(packet);
    }
    Ok(Sound { channels: channels.len() as u8, pre_skip, samples: samples as u64, input_rate, packets })
}
