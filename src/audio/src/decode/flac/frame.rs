//! One FLAC frame.

use crc::{CRC_8_SMBUS, CRC_16_UMTS, Crc, Table};

use super::bits::{Bits, Ended};
use super::predict::{FIXED, MAX_ORDER, restore};
use super::stream_info::StreamInfo;

/// Reason why a frame could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The file ends inside it.
    Ended,
    /// It contradicts the format, or its checksum.
    Invalid(&'static str),
}

impl From<Ended> for Broken {
    fn from(_: Ended) -> Self {
        Self::Ended
    }
}

/// Checksum of frame headers.
static HEADER_CRC: Crc<u8> = Crc::<u8>::new(&CRC_8_SMBUS);
/// Checksum of frames, by tables for 16 bytes at a time.
static FRAME_CRC: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_UMTS);

/// Most bytes of a frame's header.
const MAX_HEADER: usize = 16;

/// Format of a frame's samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) sample_rate: u32,
    pub(super) channels: usize,
    pub(super) bits: u32,
}

/// Sampling rates by their code, from 1 on.
const RATES: [usize; 11] = [88_200, 176_400, 192_000, 8000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000];

/// The header of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    /// Frames of audio in it.
    pub(super) block_size: usize,
    /// Position of its first frame of audio in the stream, where block sizes are fixed to that of the stream.
    pub(super) first_sample: u64,
    /// Format of its samples.
    pub(super) format: Format,
    assignment: u8,
    /// Bytes of the header, checksum included.
    bytes: usize,
}

impl Header {
    /// Reads and verifies the header at the beginning of `bytes`; a frame that disagrees with the stream about channels or bits
    /// is not one of its frames.
    pub(super) fn parse(bytes: &[u8], stream: &StreamInfo) -> Result<Self, Broken> {
        let header = Self::parse_any(bytes, stream)?;
        if header.format.channels != stream.channels || header.format.bits != stream.bits {
            return Err(Broken::Invalid("channels or bits differ from the stream's"));
        }
        Ok(header)
    }

    /// Reads and verifies a header of any stream; `stream` stands for what the header leaves to it.
    pub(super) fn parse_any(bytes: &[u8], stream: &StreamInfo) -> Result<Self, Broken> {
        let available = &bytes[..bytes.len().min(MAX_HEADER)];
        let [0xff, second, sizes, channels, ..] = *available else {
            return Err(if available.len() < 4 { Broken::Ended } else { Broken::Invalid("no frame header") });
        };
        if second & 0xfe != 0xf8 || channels & 1 != 0 {
            return Err(Broken::Invalid("no frame header"));
        }
        let (number, mut at) = coded_number(available, 4)?;
        let mut field = |bytes: usize| {
            let value = available.get(at..at + bytes).ok_or(Broken::Ended);
            at += bytes;
            value.map(|value| value.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte)))
        };
        let block_size = match sizes >> 4 {
            0 => return Err(Broken::Invalid("reserved block size")),
            1 => 192,
            code @ 2..=5 => 576 << (code - 2),
            6 => field(1)? + 1,
            7 => field(2)? + 1,
            code => 256 << (code - 8),
        };
        let rate = match sizes & 0x0f {
            0 => stream.sample_rate as usize,
            12 => 1000 * field(1)?,
            13 => field(2)?,
            14 => 10 * field(2)?,
            15 => return Err(Broken::Invalid("reserved sampling rate")),
            code => RATES[usize::from(code) - 1],
        };
        let sum = field(1)?;
        if usize::from(HEADER_CRC.checksum(&available[..at - 1])) != sum {
            return Err(Broken::Invalid("header checksum"));
        }
        let header = Self {
            block_size,
            first_sample: first_sample(second, number, stream),
            assignment: channels >> 4,
            bytes: at,
            format: Format {
                sample_rate: rate as u32,
                channels: channel_count(channels >> 4)?,
                bits: bits_per_sample((channels >> 1) & 7, stream)?,
            },
        };
        Ok(header)
    }
}

fn channel_count(assignment: u8) -> Result<usize, Broken> {
    match assignment {
        independent @ 0..=7 => Ok(usize::from(independent) + 1),
        8..=10 => Ok(2),
        _ => Err(Broken::Invalid("reserved channel assignment")),
    }
}

fn bits_per_sample(code: u8, stream: &StreamInfo) -> Result<u32, Broken> {
    match code {
        0 => Ok(stream.bits),
        1 => Ok(8),
        2 => Ok(12),
        4 => Ok(16),
        5 => Ok(20),
        6 => Ok(24),
        7 => Ok(32),
        _ => Err(Broken::Invalid("reserved sample size")),
    }
}

/// The number in UTF-8's manner of up to 36 bits at `at`, and where it ends.
fn coded_number(bytes: &[u8], at: usize) -> Result<(u64, usize), Broken> {
    let first = *bytes.get(at).ok_or(Broken::Ended)?;
    let more = match first.leading_ones() {
        0 => return Ok((u64::from(first), at + 1)),
        ones @ 2..=7 => ones as usize - 1,
        _ => return Err(Broken::Invalid("frame number")),
    };
    let rest = bytes.get(at + 1..at + 1 + more).ok_or(Broken::Ended)?;
    if rest.iter().any(|byte| byte & 0xc0 != 0x80) {
        return Err(Broken::Invalid("frame number"));
    }
    let top = u64::from(first & (0x3f_u8 >> more.min(6)));
    let number = rest.iter().fold(top, |number, byte| number << 6 | u64::from(byte & 0x3f));
    Ok((number, at + 1 + more))
}

fn first_sample(second: u8, number: u64, stream: &StreamInfo) -> u64 {
    let counts_samples = second & 1 != 0;
    if counts_samples { number } else { number.saturating_mul(u64::from(stream.max_block)) }
}

/// Decodes the frame at the beginning of `bytes` into `channels`; gives its header, and the bytes it took.
pub(super) fn decode(bytes: &[u8], stream: &StreamInfo, channels: &mut [Vec<i32>]) -> Result<(Header, usize), Broken> {
    let header = Header::parse(bytes, stream)?;
    let mut bits = Bits::new(&bytes[header.bytes..]);
    for (index, channel) in channels.iter_mut().enumerate() {
        // The difference of two channels needs one bit more.
        let is_side = matches!((header.assignment, index), (8 | 10, 1) | (9, 0));
        channel.resize(header.block_size, 0);
        subframe(&mut bits, stream.bits + u32::from(is_side), &mut channel[..header.block_size])?;
    }
    bits.check()?;
    let end = header.bytes + bits.align();
    let sum = bytes.get(end..end + 2).ok_or(Broken::Ended)?;
    if FRAME_CRC.checksum(&bytes[..end]).to_be_bytes() != *sum {
        return Err(Broken::Invalid("frame checksum"));
    }
    if let [first, second] = channels {
        decorrelate(header.assignment, &mut first[..header.block_size], &mut second[..header.block_size]);
    }
    Ok((header, end + 2))
}

/// Checks the CRC of a frame: `bytes` run from its beginning to that of the next frame.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    bytes.split_last_chunk::<2>().is_some_and(|(frame, sum)| FRAME_CRC.checksum(frame).to_be_bytes() == *sum)
}

fn subframe(bits: &mut Bits<'_>, sample_bits: u32, samples: &mut [i32]) -> Result<(), Broken> {
    if bits.unsigned(1) != 0 {
        return Err(Broken::Invalid("subframe padding"));
    }
    let kind = bits.unsigned(6);
    let wasted = if bits.unsigned(1) != 0 { bits.unary()? + 1 } else { 0 };
    if wasted >= sample_bits {
        return Err(Broken::Invalid("wasted bits"));
    }
    let sample_bits = sample_bits - wasted;
    match kind {
        0 => samples.fill(bits.signed(sample_bits)),
        1 => samples.iter_mut().for_each(|sample| *sample = bits.signed(sample_bits)),
        8..=12 => fixed(bits, sample_bits, kind as usize - 8, samples)?,
        32..=63 => linear(bits, sample_bits, kind as usize - 31, samples)?,
        _ => return Err(Broken::Invalid("reserved subframe")),
    }
    if wasted > 0 {
        samples.iter_mut().for_each(|sample| *sample <<= wasted);
    }
    Ok(())
}

fn warm_up(bits: &mut Bits<'_>, sample_bits: u32, order: usize, samples: &mut [i32]) -> Result<(), Broken> {
    let head = samples.get_mut(..order).ok_or(Broken::Invalid("predictor longer than the block"))?;
    head.iter_mut().for_each(|sample| *sample = bits.signed(sample_bits));
    Ok(())
}

fn fixed(bits: &mut Bits<'_>, sample_bits: u32, order: usize, samples: &mut [i32]) -> Result<(), Broken> {
    warm_up(bits, sample_bits, order, samples)?;
    residuals(bits, order, samples)?;
    restore(samples, FIXED[order], 0);
    Ok(())
}

fn linear(bits: &mut Bits<'_>, sample_bits: u32, order: usize, samples: &mut [i32]) -> Result<(), Broken> {
    warm_up(bits, sample_bits, order, samples)?;
    let precision = bits.unsigned(4) + 1;
    let shift = bits.signed(5);
    if precision == 16 || shift < 0 {
        return Err(Broken::Invalid("predictor precision"));
    }
    let mut coefficients = [0; MAX_ORDER];
    let coefficients = &mut coefficients[..order];
    coefficients.iter_mut().for_each(|coefficient| *coefficient = bits.signed(precision));
    residuals(bits, order, samples)?;
    restore(samples, coefficients, shift as u32);
    Ok(())
}

/// The residuals behind the first `order` samples.
fn residuals(bits: &mut Bits<'_>, order: usize, samples: &mut [i32]) -> Result<(), Broken> {
    let parameter_bits = match bits.unsigned(2) {
        0 => 4,
        1 => 5,
        _ => return Err(Broken::Invalid("reserved residual coding")),
    };
    let escape = (1 << parameter_bits) - 1;
    let partition_order = bits.unsigned(4);
    let length = samples.len() >> partition_order;
    if length << partition_order != samples.len() || length < order {
        return Err(Broken::Invalid("partition order"));
    }
    let mut rest = &mut samples[order..];
    for partition in 0..1 << partition_order {
        let (own, later) = rest.split_at_mut(if partition == 0 { length - order } else { length });
        rest = later;
        let parameter = bits.unsigned(parameter_bits);
        if parameter < escape {
            bits.rice(parameter, own)?;
        } else {
            let width = bits.unsigned(5);
            match width {
                0 => own.fill(0),
                _ => own.iter_mut().for_each(|value| *value = bits.signed(width)),
            }
            bits.check()?;
        }
    }
    Ok(())
}

/// Undoes the coding of one channel as a difference.
fn decorrelate(assignment: u8, first: &mut [i32], second: &mut [i32]) {
    let pairs = first.iter_mut().zip(second);
    match assignment {
        8 => pairs.for_each(|(left, side)| *side = left.wrapping_sub(*side)),
        9 => pairs.for_each(|(side, right)| *side = right.wrapping_add(*side)),
        10 => pairs.for_each(|(mid, side)| {
            let double = (*mid << 1) | (*side & 1);
            (*mid, *side) = (double.wrapping_add(*side) >> 1, double.wrapping_sub(*side) >> 1);
        }),
        _ => {}
    }
}
