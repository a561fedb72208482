//! Features of an AAC stream beyond AAC-LC: its object type, its channels, and SBR and PS (HE-AAC), which a stream may contain
//! without announcing them in its header.

use super::aac_packet::carries_sbr;

const LC: u32 = 2;
const SBR: u32 = 5;
const PS: u32 = 29;

/// Sampling rates by their code.
const RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350];

/// The AudioSpecificConfig of a stream (ISO/IEC 14496-3, 1.6.2.1), limited to the fields that decide whether it can be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Config {
    object_type: u32,
    /// The sampling rate of the core, without SBR.
    pub(super) sample_rate: u32,
    channel_configuration: u32,
    sbr: bool,
    ps: bool,
    /// Frames of 960 samples, not of 1024.
    short_frames: bool,
}

impl Config {
    /// Reads the configuration; `None` if it is cut off.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut bits = Bits::new(bytes);
        let mut object_type = object_type(&mut bits)?;
        let sample_rate = sample_rate(&mut bits)?;
        let channel_configuration = bits.read(4)?;
        let (mut sbr, mut ps) = (matches!(object_type, SBR | PS), object_type == PS);
        if sbr {
            self::sample_rate(&mut bits)?;
            object_type = self::object_type(&mut bits)?;
        }
        let mut config = Self { object_type, sample_rate, channel_configuration, sbr, ps, short_frames: false };
        if object_type != LC {
            return Some(config);
        }
        config.short_frames = bits.read(1)? == 1;
        if bits.read(1)? == 1 {
            // The delay of the core coder.
            bits.read(14)?;
        }
        bits.read(1)?;
        // The backward compatible announcement of SBR and PS comes after the fields that older decoders read. It cannot be found after
        // a program config element, which is rejected anyway.
        if channel_configuration != 0 && !sbr {
            sbr = announced(&mut bits, 0x2b7, |bits| (object_type_is_sbr(bits)? && bits.read(1)? == 1).then_some(()));
            if sbr {
                self::sample_rate(&mut bits);
                ps = announced(&mut bits, 0x548, |bits| (bits.read(1)? == 1).then_some(()));
            }
        }
        Some(Self { sbr, ps, ..config })
    }

    /// Returns the name of a stream that is not plain AAC-LC in mono or stereo; `None` if it is.
    pub(super) fn unsupported(&self) -> Option<String> {
        let name = match (self.sbr, self.ps, self.object_type) {
            (_, true, _) => "HE-AAC v2 (AAC with SBR and PS)".to_owned(),
            (true, ..) => HE_AAC.to_owned(),
            (_, _, LC) => return self.odd_lc(),
            (_, _, other) => {
                object_type_name(other).map_or_else(|| format!("MPEG-4 audio object type {other}"), str::to_owned)
            }
        };
        Some(name)
    }

    fn odd_lc(&self) -> Option<String> {
        match self.channel_configuration {
            1 | 2 if self.short_frames => Some("AAC-LC with frames of 960 samples".to_owned()),
            1 | 2 => None,
            0 => Some("AAC-LC with a channel layout of its own (program config element)".to_owned()),
            configuration => Some(multichannel(configuration)),
        }
    }
}

/// Name of AAC with SBR.
const HE_AAC: &str = "HE-AAC (AAC with SBR)";

/// The name of AAC-LC with more than two channels.
fn multichannel(configuration: u32) -> String {
    let channels = if configuration == 7 { 8 } else { configuration };
    format!("AAC-LC with {channels} channels")
}

/// Returns the name of the codec in the first header of an ADTS file, unless it is AAC-LC in mono or stereo.
pub(super) fn unsupported_adts(bytes: &[u8]) -> Option<String> {
    let mut bits = Bits::new(bytes);
    let (sync, _, profile) = (bits.read(12)?, bits.read(4)?, bits.read(2)?);
    let (_rate, _private, configuration) = (bits.read(4)?, bits.read(1)?, bits.read(3)?);
    // Originality and copyright bits, the frame's length, the buffer's fullness.
    let _ = (bits.read(4)?, bits.read(13)?, bits.read(11)?);
    let blocks = bits.read(2)? + 1;
    match (sync, profile + 1, configuration, blocks) {
        (0xfff, LC, 1 | 2, 1) => None,
        (0xfff, LC, 1 | 2, _) => Some("AAC-LC with several blocks per ADTS frame".to_owned()),
        (0xfff, LC, 0, _) => Some("AAC-LC with a channel layout of its own (program config element)".to_owned()),
        (0xfff, LC, configuration, _) => Some(multichannel(configuration)),
        (0xfff, other, ..) => object_type_name(other).map(str::to_owned),
        _ => None,
    }
}

/// A search for SBR data in the first packets of a stream that is announced as AAC-LC.
pub(super) struct SbrSearch {
    sample_rate: u32,
    seen: u32,
    with_sbr: u32,
}

/// Encoders put SBR data into every packet.
const PACKETS_LOOKED_AT: u32 = 16;
/// One packet may be damaged in such a way that it seems to carry SBR data.
const PACKETS_NEEDED: u32 = 2;

impl SbrSearch {
    /// Creates a search in packets whose core has the given sampling rate.
    pub(super) fn new(sample_rate: u32) -> Self {
        Self { sample_rate, seen: 0, with_sbr: 0 }
    }

    /// Examines a packet; returns the codec's name once it is certain.
    pub(super) fn look(&mut self, packet: &[u8]) -> Option<&'static str> {
        if self.seen < PACKETS_LOOKED_AT {
            self.seen += 1;
            self.with_sbr += u32::from(carries_sbr(packet, self.sample_rate) == Some(true));
        }
        (self.with_sbr >= PACKETS_NEEDED).then_some(HE_AAC)
    }

    /// Returns the codec's name, judged by all packets so far.
    pub(super) fn at_end(&self) -> Option<&'static str> {
        (self.with_sbr > 0 && self.seen < PACKETS_LOOKED_AT).then_some(HE_AAC)
    }
}

fn object_type(bits: &mut Bits<'_>) -> Option<u32> {
    match bits.read(5)? {
        31 => Some(32 + bits.read(6)?),
        short => Some(short),
    }
}

fn object_type_is_sbr(bits: &mut Bits<'_>) -> Option<bool> {
    Some(object_type(bits)? == SBR)
}

fn sample_rate(bits: &mut Bits<'_>) -> Option<u32> {
    match bits.read(4)? {
        15 => bits.read(24),
        index => RATES.get(index as usize).copied(),
    }
}

/// Returns whether a sync word of 11 bits follows, and the announced data is there.
fn announced(bits: &mut Bits<'_>, sync: u32, there: impl Fn(&mut Bits<'_>) -> Option<()>) -> bool {
    bits.read(11) == Some(sync) && there(bits).is_some()
}

/// Names of MPEG-4 audio object types.
fn object_type_name(object_type: u32) -> Option<&'static str> {
    Some(match object_type {
        1 => "AAC Main",
        2 => "AAC-LC",
        3 => "AAC SSR",
        4 => "AAC LTP",
        6 | 20 => "AAC Scalable",
        7 | 21 => "TwinVQ",
        8 | 24 => "MPEG-4 CELP",
        9 | 25 => "MPEG-4 HVXC",
        17 => "ER AAC-LC",
        19 => "ER AAC LTP",
        22 => "ER BSAC",
        23 => "AAC-LD",
        32 => "MP1 (MPEG-4 layer 1)",
        33 => "MP2 (MPEG-4 layer 2)",
        34 => "MP3 (MPEG-4 layer 3)",
        35 => "DST",
        36 => "MPEG-4 ALS",
        37 | 38 => "MPEG-4 SLS",
        39 => "AAC-ELD",
        42 => "xHE-AAC (USAC)",
        _ => return None,
    })
}

/// A reader of bits, the highest of each byte first.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    /// Starts at the first bit.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Reads the next `count` bits, 32 at most, as a number; `None` past the end.
    pub(super) fn read(&mut self, count: usize) -> Option<u32> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len() * 8)?;
        let value = (self.at..end).fold(0u32, |value, at| {
            let bit = self.bytes[at / 8] >> (7 - at % 8) & 1;
            value << 1 | u32::from(bit)
        });
        self.at = end;
        Some(value)
    }

    /// Skips `count` bits.
    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count).filter(|end| *end <= self.bytes.len() * 8)?;
        Some(())
    }

    /// Skips to the next whole byte.
    pub(super) fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_say_what_they_are() {
        let named = |bytes: &[u8]| Config::parse(bytes).unwrap().unsupported();
        // AAC-LC, 44.1 kHz, stereo.
        assert_eq!(named(&[0x12, 0x10]), None);
        // Explicit and hierarchical: object type 5 over a core of 22.05 kHz.
        assert!(named(&[0x2b, 0x92, 0x08, 0x00]).unwrap().contains("SBR"));
        // Object type 29.
        assert!(named(&[0xeb, 0x8a, 0x08, 0x00]).unwrap().contains("PS"));
        // Backward compatible: AAC-LC followed by the sync words.
        assert!(named(&[0x13, 0x90, 0x56, 0xe5, 0xa0]).unwrap().contains("HE-AAC (AAC"));
        // The same with SBR denied.
        assert_eq!(named(&[0x13, 0x90, 0x56, 0xe5, 0x00]), None);
        // Six channels.
        assert!(named(&[0x12, 0x30]).unwrap().contains("6 channels"));
        assert_eq!(Config::parse(&[0x12]), None);
    }
}
