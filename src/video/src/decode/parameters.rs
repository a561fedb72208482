//! Sequence parameter sets of H.264 (ITU-T H.264, 7.3.2.1.1 and E.1.1): the size of the frames before anything is decoded, and the colors.

use super::color::Matrix;
use crate::error::{Fault, within};

/// Profiles whose sets describe chroma and scaling lists.
const HIGH_PROFILES: [u32; 13] = [44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244];

/// What a sequence parameter set says.
pub(super) struct Sequence {
    /// The number of pixels of a coded frame.
    pixels: u64,
    pub(super) matrix: Matrix,
    /// True for progressive frames of 8 bits with 4:2:0 chroma in a profile without arbitrary order of slices.
    pub(super) is_plain: bool,
}

impl Sequence {
    /// Reads a sequence parameter set without its first byte and without the bytes that prevent start codes, and rejects frames of more
    /// than `max_pixels`.
    pub(super) fn read(set: &[u8], container: &'static str, max_pixels: u64) -> Result<Self, Fault> {
        let problem = "the parameters of its H.264 stream end too early".to_owned();
        let sequence = Self::parse(Bits { bytes: set, at: 0 }).ok_or(Fault::Malformed { container, problem })?;
        within("the number of pixels of a frame", sequence.pixels, max_pixels)?;
        Ok(sequence)
    }

    fn parse(mut bits: Bits<'_>) -> Option<Self> {
        let profile = bits.number(8)?;
        let constraints = bits.number(8)?;
        let is_constrained = constraints & 0x40 != 0;
        let mut is_plain = matches!(profile, 77 | 100) || (profile == 66 && is_constrained);
        bits.number(8)?;
        bits.golomb()?;
        if HIGH_PROFILES.contains(&profile) {
            let chroma = bits.golomb()?;
            if chroma == 3 {
                bits.number(1)?;
            }
            let (luma_depth, chroma_depth) = (bits.golomb()?, bits.golomb()?);
            let lossless = bits.flag()?;
            is_plain &= chroma == 1 && luma_depth == 0 && chroma_depth == 0 && !lossless;
            if bits.flag()? {
                for list in 0..if chroma == 3 { 12 } else { 8 } {
                    if bits.flag()? {
                        bits.skip_scaling_list(if list < 6 { 16 } else { 64 })?;
                    }
                }
            }
        }
        bits.golomb()?;
        match bits.golomb()? {
            0 => drop(bits.golomb()?),
            1 => {
                bits.number(1)?;
                bits.golomb()?;
                bits.golomb()?;
                // The format allows 255 of them.
                for _ in 0..bits.golomb()?.min(255) {
                    bits.golomb()?;
                }
            }
            _ => {}
        }
        bits.golomb()?;
        bits.number(1)?;
        let width = 16 * (u64::from(bits.golomb()?) + 1);
        let map_units = u64::from(bits.golomb()?) + 1;
        let frames_only = bits.flag()?;
        if !frames_only {
            bits.number(1)?;
        }
        let height = 16 * map_units * if frames_only { 1 } else { 2 };
        bits.number(1)?;
        if bits.flag()? {
            for _ in 0..4 {
                bits.golomb()?;
            }
        }
        // A set may end before what it need not say.
        let (coefficients, full_range) = bits.colors().unwrap_or((None, false));
        let matrix = Matrix::of(coefficients, full_range);
        Some(Self { pixels: width.saturating_mul(height), matrix, is_plain: is_plain && frames_only })
    }
}

/// Returns true for a picture parameter set without groups of slices, explicit weights of two references and intra prediction that is kept from
/// inter pictures (7.3.2.2). The set comes without its first byte and without the bytes that prevent start codes.
pub(super) fn is_plain_picture(set: &[u8]) -> bool {
    let parse = |mut bits: Bits<'_>| {
        bits.golomb()?;
        bits.golomb()?;
        bits.number(2)?;
        if bits.golomb()? != 0 {
            return Some(false);
        }
        bits.golomb()?;
        bits.golomb()?;
        bits.number(1)?;
        let has_explicit_weights = bits.number(2)? == 1;
        for _ in 0..3 {
            bits.signed()?;
        }
        bits.number(1)?;
        let is_constrained_intra = bits.flag()?;
        let has_redundant_pictures = bits.flag()?;
        Some(!has_explicit_weights && !is_constrained_intra && !has_redundant_pictures)
    };
    parse(Bits { bytes: set, at: 0 }).unwrap_or(false)
}

/// A reader of bits and of Exp-Golomb codes.
#[derive(Clone, Copy)]
struct Bits<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Bits<'_> {
    /// The next bits as a number, at most 32 of them.
    fn number(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    fn flag(&mut self) -> Option<bool> {
        self.number(1).map(|bit| bit == 1)
    }

    /// An unsigned Exp-Golomb code.
    fn golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
        }
        (zeros < 32).then(|| Some((1u32 << zeros) - 1 + self.number(zeros)?))?
    }

    /// A signed Exp-Golomb code.
    fn signed(&mut self) -> Option<i64> {
        let code = i64::from(self.golomb()?);
        Some(if code % 2 == 0 { -code / 2 } else { (code + 1) / 2 })
    }

    fn skip_scaling_list(&mut self, size: usize) -> Option<()> {
        let (mut last, mut next) = (8i64, 8i64);
        for _ in 0..size {
            if next != 0 {
                next = (last + self.signed()?).rem_euclid(256);
            }
            last = if next == 0 { last } else { next };
        }
        Some(())
    }

    /// The matrix coefficients, if they are described, and whether samples use the full range.
    fn colors(&mut self) -> Option<(Option<u64>, bool)> {
        if !self.flag()? {
            return None;
        }
        // The aspect ratio, and whether the picture reaches past the border of a screen.
        if self.flag()? && self.number(8)? == 255 {
            self.number(32)?;
        }
        if self.flag()? {
            self.number(1)?;
        }
        if !self.flag()? {
            return None;
        }
        self.number(3)?;
        let full_range = self.flag()?;
        let described = self.flag()?;
        let coefficients = match described {
            true => {
                self.number(16)?;
                Some(u64::from(self.number(8)?))
            }
            false => None,
        };
        Some((coefficients, full_range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A baseline set: Exp-Golomb codes of one and more bits, written as a text of bits.
    fn baseline(width_in_macroblocks: u32, height: &str) -> Vec<u8> {
        let golomb = |value: u32| {
            let bits = format!("{:b}", value + 1);
            format!("{}{bits}", "0".repeat(bits.len() - 1))
        };
        let head = format!("{:08b}{:016b}", 66, 30);
        let width = golomb(width_in_macroblocks - 1);
        let text = format!("{head}1{}{}{}0{width}{height}1000", golomb(0), golomb(2), golomb(1));
        let padded = format!("{text}{}", "0".repeat(8 - text.len() % 8));
        padded
            .as_bytes()
            .chunks(8)
            .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
            .collect()
    }

    #[test]
    fn the_size_is_known_before_decoding() {
        let set = baseline(4, "00100");
        assert_eq!(Sequence::read(&set, "MP4", 4096).unwrap().pixels, 64 * 64);
        assert!(matches!(Sequence::read(&set, "MP4", 4095), Err(Fault::Limit { value: 4096, limit: 4095, .. })));
        let huge = baseline(1 << 20, "00100");
        assert!(matches!(Sequence::read(&huge, "MP4", 1 << 23), Err(Fault::Limit { .. })));
        assert!(matches!(Sequence::read(&set[..4], "MP4", 4096), Err(Fault::Malformed { .. })));
    }
}
