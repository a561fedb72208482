//! Ogg Opus (RFC 7845): pre-skip, output gain and end trimming applied; always 48 kHz.

use ropus::OpusMSDecoder;

use super::ogg_pages::{self, Packets, Pages};
use super::{Decoded, MAX_SAMPLES, channels, check_format, within};
use crate::audio::{Audio, AudioInfo, DecodeWarning};
use crate::error::Fault;

const RATE: u32 = 48_000;
/// Frames of the longest packet, 120 ms.
const MAX_PACKET_FRAMES: usize = 5760;

/// Decodes the Opus streams of an Ogg file, one after the other where they are chained.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, Fault> {
    let walk = walk(bytes, false)?;
    Ok(Decoded {
        audio: Audio { samples: walk.samples, sample_rate: RATE, warnings: walk.warnings },
        codec: "opus".into(),
        container: "ogg".into(),
    })
}

/// What the streams hold, by the lengths that their packets state. Packets with damaged content count: they are silent.
pub(super) fn count(bytes: &[u8]) -> Result<AudioInfo, Fault> {
    let walk = walk(bytes, true)?;
    Ok(AudioInfo {
        sample_rate: RATE,
        channels: walk.channels as u32,
        frames: walk.frames,
        codec: "opus".into(),
        container: "ogg".into(),
        by_fallback: false,
        warnings: walk.warnings,
    })
}

/// All links of a file.
struct Walk {
    channels: usize,
    frames: u64,
    /// As `[channel][frame]`; empty if packets were only counted.
    samples: Vec<Vec<f32>>,
    warnings: Vec<DecodeWarning>,
}

fn walk(bytes: &[u8], counts_only: bool) -> Result<Walk, Fault> {
    let mut links = Links::new(counts_only);
    let mut stream: Option<Stream> = None;
    let mut packets = Packets::default();
    for page in Pages::new(bytes) {
        // A link begins where a stream begins behind audio. Streams that begin together with the first run beside it.
        if page.begins_stream() && stream.as_ref().is_some_and(Stream::has_audio) {
            links.add(stream.take())?;
            packets = Packets::default();
        }
        let current = stream.get_or_insert_with(|| Stream { counts_only, ..Stream::new(page.serial) });
        if page.serial != current.serial {
            continue;
        }
        let mut outcome = Ok(());
        packets.feed(&page, |packet| {
            if outcome.is_ok() {
                outcome = current.packet(packet);
            }
        });
        outcome?;
        current.end_page(page.granule, page.ends_stream());
    }
    let empty = stream.is_none();
    links.add(stream)?;
    if links.channels == 0 {
        let end = if empty { "it holds no whole page" } else { "the file ends before the first audio packet" };
        return Err(malformed(end));
    }
    links.finish(&ogg_pages::scan(bytes))
}

/// Puts links together.
struct Links {
    counts_only: bool,
    channels: usize,
    frames: u64,
    samples: Vec<Vec<f32>>,
    corrupt: u64,
    first_error: Option<String>,
}

impl Links {
    fn new(counts_only: bool) -> Self {
        Self { counts_only, channels: 0, frames: 0, samples: Vec::new(), corrupt: 0, first_error: None }
    }

    fn add(&mut self, stream: Option<Stream>) -> Result<(), Fault> {
        let Some(link) = stream.and_then(Stream::finish) else { return Ok(()) };
        self.frames += link.frames as u64;
        self.corrupt += link.corrupt;
        self.first_error = self.first_error.take().or(link.first_error);
        if self.channels == 0 {
            (self.channels, self.samples) = (link.channels, link.samples);
        } else {
            within("the number of samples", self.frames * self.channels as u64, MAX_SAMPLES)?;
            if !self.counts_only {
                channels::append(&mut self.samples, &link.samples);
            }
        }
        Ok(())
    }

    fn finish(self, scan: &ogg_pages::Scan) -> Result<Walk, Fault> {
        if self.frames == 0 {
            return Err(Fault::NoSamples);
        }
        let corrupt = self.first_error.map(|first| DecodeWarning::CorruptPackets { count: self.corrupt, first });
        let warnings = corrupt.into_iter().chain(scan.warning(self.frames)).collect();
        Ok(Walk { channels: self.channels, frames: self.frames, samples: self.samples, warnings })
    }
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
    /// Whether the channels are those of Vorbis, in its order.
    vorbis_order: bool,
}

impl Head {
    fn parse(packet: &[u8]) -> Result<Self, Fault> {
        let Some(([_, _, _, _, _, _, _, _, version, channels, s0, s1, _, _, _, _, g0, g1, family], rest)) =
            packet.split_first_chunk::<19>()
        else {
            return Err(malformed("its Opus header is cut off"));
        };
        if !packet.starts_with(b"OpusHead") || version >> 4 != 0 {
            return Err(malformed("its Opus header is missing or of an unknown version"));
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
        Ok(Self {
            channels,
            pre_skip,
            gain: 10f32.powf(gain / 256.0 / 20.0),
            streams,
            coupled,
            mapping,
            vorbis_order: *family == 1,
        })
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
    counts_only: bool,
    /// As `[channel][frame]`; empty if packets are only counted.
    samples: Vec<Vec<f32>>,
    /// Frames so far, those at both ends that will be cut off included.
    frames: usize,
    buffer: Vec<i16>,
    /// Position of the first frame, as the first page of audio counts; not 0 where a broadcast was cut.
    first_granule: Option<i64>,
    last_granule: i64,
    ended: bool,
    corrupt: u64,
    first_error: Option<String>,
}

/// A stream without what the encoder added at both ends.
struct Link {
    channels: usize,
    frames: usize,
    samples: Vec<Vec<f32>>,
    corrupt: u64,
    first_error: Option<String>,
}

impl Stream {
    pub(super) fn new(serial: u32) -> Self {
        Self {
            serial,
            state: State::WantsHead,
            counts_only: false,
            samples: Vec::new(),
            frames: 0,
            buffer: Vec::new(),
            first_granule: None,
            last_granule: 0,
            ended: false,
            corrupt: 0,
            first_error: None,
        }
    }

    fn has_audio(&self) -> bool {
        self.frames > 0 || self.ended
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
        let frames = packet_frames(packet);
        self.frames += frames;
        within("the number of samples", (self.frames * head.channels) as u64, MAX_SAMPLES)?;
        if self.counts_only {
            return Ok(());
        }
        let frame_limit = MAX_PACKET_FRAMES as i32;
        let decoded = decoder.decode(Some(packet), packet.len() as i32, &mut self.buffer, frame_limit, false);
        let good = match decoded {
            Ok(good) => (good.max(0) as usize).min(frames),
            Err(code) => {
                self.corrupt += 1;
                self.first_error.get_or_insert_with(|| format!("invalid Opus packet (code {code})"));
                0
            }
        };
        let scale = head.gain / 32_768.0;
        let interleaved = &self.buffer[..good * head.channels];
        for (index, channel) in self.samples.iter_mut().enumerate() {
            let own = interleaved.iter().skip(index).step_by(head.channels);
            channel.extend(own.map(|sample| f32::from(*sample) * scale));
            channel.resize(self.frames, 0.0);
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

    /// Notes the position at the end of a page of the stream.
    fn end_page(&mut self, granule: i64, ends_stream: bool) {
        self.ended |= ends_stream;
        if granule < 0 || self.frames == 0 {
            return;
        }
        // The last page may end before its packets do, and then says nothing of the beginning.
        if !ends_stream {
            self.first_granule.get_or_insert(granule - self.frames as i64);
        }
        self.last_granule = granule;
    }

    /// Cuts off what the encoder added at both ends; `None` if the file ends before any audio.
    fn finish(mut self) -> Option<Link> {
        let State::Decodes(head, _) = &self.state else { return None };
        // The last page's position says where the audio ends, the pre-skip included.
        let position = self.last_granule - self.first_granule.unwrap_or(0).max(0);
        let end = match usize::try_from(position) {
            Ok(end) if self.ended && end >= head.pre_skip => end.min(self.frames),
            _ => self.frames,
        };
        let start = head.pre_skip.min(end);
        for channel in &mut self.samples {
            channel.truncate(end);
            channel.drain(..start.min(channel.len()));
        }
        let ordered = head.vorbis_order && !self.counts_only;
        Some(Link {
            channels: head.channels,
            frames: end - start,
            samples: if ordered { channels::from_vorbis_order(self.samples) } else { self.samples },
            corrupt: self.corrupt,
            first_error: self.first_error,
        })
    }
}

/// Frames of audio in a packet, by its first two bytes (RFC 6716, section 3.1); 0 for a packet that is none.
fn packet_frames(packet: &[u8]) -> usize {
    let [toc, rest @ ..] = packet else { return 0 };
    let frame = match toc >> 3 {
        silk @ 0..=11 => [480, 960, 1920, 2880][usize::from(silk & 3)],
        hybrid @ 12..=15 => [480, 960][usize::from(hybrid & 1)],
        celt => [120, 240, 480, 960][usize::from(celt & 3)],
    };
    let count = match (toc & 3, rest) {
        (0, _) => 1,
        (1 | 2, _) => 2,
        (_, [count, ..]) => usize::from(count & 0x3f),
        (_, []) => 0,
    };
    let frames = frame * count;
    if frames <= MAX_PACKET_FRAMES { frames } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::packet_frames;

    #[test]
    fn packets_state_their_length() {
        // Five bits of configuration, one for stereo, two of code; lengths at 48 kHz.
        assert_eq!(packet_frames(&[0b00001000, 1]), 960, "20 ms of SILK");
        assert_eq!(packet_frames(&[0b01011101, 1]), 5760, "2 x 60 ms of SILK");
        assert_eq!(packet_frames(&[0b01110000, 1]), 480, "10 ms hybrid");
        assert_eq!(packet_frames(&[0b10000011, 5, 1]), 600, "5 x 2.5 ms of CELT");
        assert_eq!(packet_frames(&[0b11111011, 7, 1]), 0, "more than 120 ms");
        assert_eq!(packet_frames(&[]), 0);
    }
}
