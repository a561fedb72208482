//! Ogg Opus (RFC 7845): pre-skip, output gain and end trimming applied; always 48 kHz.

use ropus::OpusMSDecoder;

use super::ogg_pages::{self, Packets, Pages};
use super::{Decoded, MAX_SAMPLES, check_format, within};
use crate::audio::{Audio, DecodeWarning};
use crate::error::Fault;

const RATE: u32 = 48_000;
/// Frames of the longest packet, 120 ms.
const MAX_PACKET_FRAMES: usize = 5760;

/// Decodes the first Opus stream of an Ogg file.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, Fault> {
    let mut stream: Option<Stream> = None;
    let mut packets = Packets::default();
    let mut outcome = Ok(());
    for page in Pages::new(bytes) {
        let current = stream.get_or_insert_with(|| Stream::new(page.serial));
        if page.serial != current.serial {
            continue;
        }
        packets.feed(&page, |packet| {
            if outcome.is_ok() {
                outcome = current.packet(packet);
            }
        });
        std::mem::replace(&mut outcome, Ok(()))?;
        if page.granule >= 0 {
            current.last_granule = page.granule;
        }
        current.ended |= page.ends_stream();
        if current.ended {
            break;
        }
    }
    stream.ok_or_else(|| malformed("it holds no whole page"))?.finish(&ogg_pages::scan(bytes))
}

fn malformed(problem: impl Into<String>) -> Fault {
    Fault::Malformed { container: "ogg".into(), problem: problem.into() }
}

/// The identification header.
struct Head {
    channels: usize,
    pre_skip: usize,
    gain: f32,
    streams: usize,
    coupled: usize,
    mapping: Vec<u8>,
}

impl Head {
    fn parse(packet: &[u8]) -> Result<Self, Fault> {
        let Some(([_, _, _, _, _, _, _, _, version, channels, s0, s1, _, _, _, _, g0, g1, family], rest)) =
            packet.split_first_chunk::<19>()
        else {
            return Err(malformed("its Opus header is cut off"));
        };
        if !packet.starts_with(b"OpusHead") || version >> 4 != 0 {
            return Err(malformed("its Opus header is of an unknown version"));
        }
        check_format(u64::from(RATE), u64::from(*channels))?;
        let channels = usize::from(*channels);
        let (streams, coupled, mapping) = match (family, rest) {
            (0, _) if channels <= 2 => (1, channels - 1, (0..channels as u8).collect()),
            (1 | 2 | 255, [streams, coupled, mapping @ ..]) if mapping.len() >= channels => {
                (usize::from(*streams), usize::from(*coupled), mapping[..channels].to_vec())
            }
            _ => return Err(malformed("its Opus channel mapping makes no sense")),
        };
        let gain = f32::from(i16::from_le_bytes([*g0, *g1]));
        let pre_skip = usize::from(u16::from_le_bytes([*s0, *s1]));
        // Gain is in 1/256 dB.
        Ok(Self { channels, pre_skip, gain: 10f32.powf(gain / 256.0 / 20.0), streams, coupled, mapping })
    }
}

/// What a stream's packets decode to.
pub(super) struct DecodedPackets {
    /// Samples as `[channel][frame]`.
    pub(super) samples: Vec<Vec<f32>>,
    /// Frames at the beginning that the encoder added.
    pub(super) pre_skip: usize,
    pub(super) warnings: Vec<DecodeWarning>,
}

enum State {
    WantsHead,
    WantsComment(Head),
    Decodes(Head, Box<OpusMSDecoder>),
}

/// Packets of one Opus stream, decoded as they come: identification header, comment header, audio.
pub(super) struct Stream {
    serial: u32,
    state: State,
    samples: Vec<Vec<f32>>,
    buffer: Vec<i16>,
    last_granule: i64,
    ended: bool,
    corrupt: u64,
    first_error: Option<String>,
}

impl Stream {
    pub(super) fn new(serial: u32) -> Self {
        Self {
            serial,
            state: State::WantsHead,
            samples: Vec::new(),
            buffer: Vec::new(),
            last_granule: 0,
            ended: false,
            corrupt: 0,
            first_error: None,
        }
    }

    pub(super) fn packet(&mut self, packet: &[u8]) -> Result<(), Fault> {
        match std::mem::replace(&mut self.state, State::WantsHead) {
            State::WantsHead => self.state = State::WantsComment(Head::parse(packet)?),
            State::WantsComment(head) => {
                let (channels, streams, coupled) = (head.channels as i32, head.streams as i32, head.coupled as i32);
                let decoder = OpusMSDecoder::new(RATE as i32, channels, streams, coupled, &head.mapping);
                let unusable = |code| malformed(format!("its Opus channel mapping is refused (code {code})"));
                let decoder = decoder.map_err(unusable)?;
                self.samples = vec![Vec::new(); head.channels];
                self.buffer = vec![0; MAX_PACKET_FRAMES * head.channels];
                self.state = State::Decodes(head, Box::new(decoder));
            }
            State::Decodes(head, mut decoder) => {
                self.audio_packet(packet, &head, &mut decoder)?;
                self.state = State::Decodes(head, decoder);
            }
        }
        Ok(())
    }

    fn audio_packet(&mut self, packet: &[u8], head: &Head, decoder: &mut OpusMSDecoder) -> Result<(), Fault> {
        let frame_limit = MAX_PACKET_FRAMES as i32;
        let decoded = decoder.decode(Some(packet), packet.len() as i32, &mut self.buffer, frame_limit, false);
        let frames = match decoded {
            Ok(frames) => (frames.max(0) as usize).min(MAX_PACKET_FRAMES),
            Err(code) => {
                self.corrupt += 1;
                self.first_error.get_or_insert_with(|| format!("invalid Opus packet (code {code})"));
                return Ok(());
            }
        };
        let total = (self.samples[0].len() + frames) * head.channels;
        within("the number of samples", total as u64, MAX_SAMPLES)?;
        let scale = head.gain / 32_768.0;
        let interleaved = &self.buffer[..frames * head.channels];
        for (index, channel) in self.samples.iter_mut().enumerate() {
            let own = interleaved.iter().skip(index).step_by(head.channels);
            channel.extend(own.map(|sample| f32::from(*sample) * scale));
        }
        Ok(())
    }

    /// Everything that was decoded, nothing cut off.
    pub(super) fn into_decoded(self) -> Result<DecodedPackets, Fault> {
        let State::Decodes(head, _) = self.state else {
            return Err(malformed("the file ends before the first audio packet"));
        };
        let corrupt = self.first_error.map(|first| DecodeWarning::CorruptPackets { count: self.corrupt, first });
        Ok(DecodedPackets { samples: self.samples, pre_skip: head.pre_skip, warnings: corrupt.into_iter().collect() })
    }

    /// Cuts off what the encoder added at both ends.
    fn finish(mut self, scan: &ogg_pages::Scan) -> Result<Decoded, Fault> {
        let State::Decodes(head, _) = &self.state else {
            return Err(malformed("the file ends before the first audio packet"));
        };
        let decoded = self.samples[0].len();
        let mut warnings = Vec::new();
        // The last page's position says where the audio ends, the pre-skip included.
        let end = match usize::try_from(self.last_granule) {
            Ok(end) if self.ended && end >= head.pre_skip => end.min(decoded),
            _ => decoded,
        };
        let start = head.pre_skip.min(end);
        for channel in &mut self.samples {
            channel.truncate(end);
            channel.drain(..start);
        }
        if let Some(first) = self.first_error {
            warnings.push(DecodeWarning::CorruptPackets { count: self.corrupt, first });
        }
        warnings.extend(scan.warning((end - start) as u64));
        Ok(Decoded {
            audio: Audio { samples: self.samples, sample_rate: RATE, warnings },
            codec: "opus".into(),
            container: "ogg".into(),
        })
    }
}
