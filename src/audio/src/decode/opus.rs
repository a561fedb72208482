//! Ogg Opus (RFC 7845): pre-skip, output gain and end trimming applied; always 48 kHz.

use ropus::OpusMSDecoder;

use super::ogg::Part;
use super::ogg_pages::{Packets, Page};
use super::{MAX_SAMPLES, channels, check_format, within};
use crate::audio::DecodeWarning;
use crate::error::Fault;

const RATE: u32 = 48_000;
/// Smallest number of frames, 100 ms, that counts as a gap between two pages if no page is missing.
const LEAST_GAP: i64 = 4800;
/// Frames of the longest packet, 120 ms.
const MAX_PACKET_FRAMES: usize = 5760;

/// Decodes the pages of one Opus stream, or counts the frames that its packets state. Packets with damaged content count: they are
/// silent. `None` if the pages end before any audio.
pub(super) fn link(pages: &[Page<'_>], counts_only: bool) -> Result<Option<Part>, Fault> {
    let mut stream = Stream { counts_only, ..Stream::new() };
    let mut packets = Packets::default();
    for page in pages {
        let mut outcome = Ok(());
        packets.feed(page, |packet| {
            if outcome.is_ok() {
                outcome = stream.packet(packet);
            }
        });
        outcome?;
        stream.end_page(page);
    }
    Ok(stream.finish())
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
    /// True if the channels are those of Vorbis, in its order.
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
            _ => return Err(malformed("its Opus channel mapping is invalid")),
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

/// The decoded packets of a stream.
pub(super) struct DecodedPackets {
    /// Samples as `[channel][frame]`.
    pub(super) samples: Vec<Vec<f32>>,
    /// Number of frames at the beginning that the encoder added.
    pub(super) pre_skip: usize,
    pub(super) warnings: Vec<DecodeWarning>,
}

enum State {
    WantsHead,
    WantsComment(Head),
    Decodes(Head, Box<OpusMSDecoder>),
}

/// Packets of one Opus stream, decoded as they arrive: identification header, comment header, audio.
pub(super) struct Stream {
    state: State,
    counts_only: bool,
    /// Samples as `[channel][frame]`; empty if packets are only counted.
    samples: Vec<Vec<f32>>,
    /// Number of frames so far, including those at both ends that will be cut off.
    frames: usize,
    buffer: Vec<i16>,
    /// Position of the first frame in the count of the first page of audio: above 0 if a broadcast was joined late, below if a stream was
    /// cut.
    first_granule: Option<i64>,
    /// Position at the end of the last page that has one, and the number of frames up to there.
    last_position: Option<(i64, usize)>,
    /// Number of the last page.
    last_page: Option<u32>,
    /// True if pages are missing since the last position.
    pages_lost: bool,
    /// Number of gaps, and of missing frames.
    gaps: (u64, u64),
    ended: bool,
    corrupt: u64,
    first_error: Option<String>,
}

impl Stream {
    /// Creates a stream without packets.
    pub(super) fn new() -> Self {
        Self {
            state: State::WantsHead,
            counts_only: false,
            samples: Vec::new(),
            frames: 0,
            buffer: Vec::new(),
            first_granule: None,
            last_position: None,
            last_page: None,
            pages_lost: false,
            gaps: (0, 0),
            ended: false,
            corrupt: 0,
            first_error: None,
        }
    }

    /// Returns the number of frames so far, including those at both ends that will be cut off.
    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    /// Processes the next packet.
    pub(super) fn packet(&mut self, packet: &[u8]) -> Result<(), Fault> {
        match std::mem::replace(&mut self.state, State::WantsHead) {
            State::WantsHead => self.state = State::WantsComment(Head::parse(packet)?),
            State::WantsComment(head) => {
                let (channels, streams, coupled) = (head.channels as i32, head.streams as i32, head.coupled as i32);
                let decoder = OpusMSDecoder::new(RATE as i32, channels, streams, coupled, &head.mapping);
                let unusable = |code| malformed(format!("its Opus channel mapping is not supported (code {code})"));
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

    /// Returns everything that was decoded, without cutting the ends.
    pub(super) fn into_decoded(self) -> Result<DecodedPackets, Fault> {
        let State::Decodes(head, _) = self.state else {
            return Err(malformed("the file ends before the first audio packet"));
        };
        let corrupt = self.first_error.map(|first| DecodeWarning::CorruptPackets { count: self.corrupt, first });
        Ok(DecodedPackets { samples: self.samples, pre_skip: head.pre_skip, warnings: corrupt.into_iter().collect() })
    }

    /// Records the position that a page of the stream states.
    fn end_page(&mut self, page: &Page<'_>) {
        self.ended |= page.ends_stream();
        let lost_pages = self.last_page.is_some_and(|last| page.number > last.saturating_add(1));
        self.pages_lost |= lost_pages;
        self.last_page = Some(page.number);
        if page.granule < 0 || self.frames == 0 {
            return;
        }
        // The last page may end before its packets do, and then does not determine the beginning.
        if !page.ends_stream() {
            self.first_granule.get_or_insert(page.granule - self.frames as i64);
        }
        if let Some((granule, frames)) = self.last_position {
            let missing = page.granule.saturating_sub(granule).saturating_sub((self.frames - frames) as i64);
            let least = if std::mem::take(&mut self.pages_lost) { 1 } else { LEAST_GAP };
            if missing >= least {
                self.gaps = (self.gaps.0 + 1, self.gaps.1.saturating_add(missing as u64));
            }
        }
        self.last_position = Some((page.granule, self.frames));
    }

    /// Cuts off the encoder's frames at both ends; `None` if the file ends before any audio.
    fn finish(mut self) -> Option<Part> {
        let State::Decodes(head, _) = &self.state else { return None };
        // The last page's position marks the end of the audio, including the pre-skip.
        let last = self.last_position.map_or(0, |(granule, _)| granule);
        let position = last.saturating_sub(self.first_granule.unwrap_or(0));
        let position = position.saturating_sub(i64::try_from(self.gaps.1).unwrap_or(i64::MAX));
        let end = match usize::try_from(position) {
            Ok(end) if self.ended && end >= head.pre_skip => end.min(self.frames),
            _ => self.frames,
        };
        let start = head.pre_skip.min(end);
        if start == end {
            return None;
        }
        for channel in &mut self.samples {
            channel.truncate(end);
            channel.drain(..start.min(channel.len()));
        }
        let ordered = head.vorbis_order && !self.counts_only;
        let (places, missing) = self.gaps;
        let corrupt = self.first_error.map(|first| DecodeWarning::CorruptPackets { count: self.corrupt, first });
        let gaps = (places > 0).then_some(DecodeWarning::Gaps { places, frames: missing });
        Some(Part {
            channels: head.channels,
            frames: (end - start) as u64,
            sample_rate: RATE,
            samples: if self.counts_only {
                Vec::new()
            } else if ordered {
                channels::from_vorbis_order(self.samples)
            } else {
                self.samples
            },
            codec: "opus".into(),
            warnings: corrupt.into_iter().chain(gaps).collect(),
        })
    }
}

/// Returns the number of audio frames in a packet, from its first two bytes (RFC 6716, section 3.1); 0 if it is not a packet.
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
