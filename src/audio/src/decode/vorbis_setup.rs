//! Codebooks in the setup header of Vorbis (Vorbis I specification, 3.2.1), as far as Symphonia 0.6 panics on them: it raises a number to the
//! power of the dimensions of a lattice without looking at the overflow.

/// Largest number of dimensions of a lattice whose powers of two fit into 32 bits. Encoders use at most 16.
const MOST_DIMENSIONS: u32 = 31;

/// Returns false if a codebook is a lattice of no dimension or of too many. A header that ends too early is left to the decoder.
pub(super) fn has_usable_lattices(setup: &[u8]) -> bool {
    // The type of the header and the word `vorbis`.
    let mut bits = Bits { bytes: setup.get(7..).unwrap_or_default(), at: 0 };
    let Some(count) = bits.number(8) else { return true };
    (0..=count).map_while(|_| codebook(&mut bits)).all(|is_usable| is_usable)
}

/// Skips a codebook, and returns whether it is usable; `None` at the end or at something else than a codebook.
fn codebook(bits: &mut Bits<'_>) -> Option<bool> {
    (bits.number(24)? == 0x56_4342).then_some(())?;
    let (dimensions, entries) = (bits.number(16)?, bits.number(24)?);
    if bits.number(1)? == 1 {
        bits.number(5)?;
        let mut given = 0;
        while given < entries {
            let left = entries - given;
            given += bits.number(32 - left.leading_zeros())?;
        }
    } else {
        let is_sparse = bits.number(1)? == 1;
        for _ in 0..entries {
            if !is_sparse || bits.number(1)? == 1 {
                bits.number(5)?;
            }
        }
    }
    let lookup = bits.number(4)?;
    if lookup == 0 {
        return Some(true);
    }
    bits.number(32)?;
    bits.number(32)?;
    let width = bits.number(4)? + 1;
    bits.number(1)?;
    let values = match lookup {
        1 if !(1..=MOST_DIMENSIONS).contains(&dimensions) => return Some(false),
        1 => side(entries, dimensions),
        2 => u64::from(entries) * u64::from(dimensions),
        _ => return None,
    };
    bits.skip(values * u64::from(width))?;
    Some(true)
}

/// The largest whole number whose power does not exceed the number of entries.
fn side(entries: u32, dimensions: u32) -> u64 {
    let fits = |side: u64| side.checked_pow(dimensions).is_some_and(|power| power <= u64::from(entries));
    let (mut low, mut high) = (0, u64::from(entries) + 1);
    while high - low > 1 {
        let middle = low.midpoint(high);
        if fits(middle) { low = middle } else { high = middle }
    }
    low
}

/// A reader of bits, the lowest of a byte first.
struct Bits<'b> {
    bytes: &'b [u8],
    at: u64,
}

impl Bits<'_> {
    /// The next bits as a number, at most 32 of them.
    fn number(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for place in 0..count {
            let byte = self.bytes.get(usize::try_from(self.at / 8).ok()?)?;
            value |= u32::from(byte >> (self.at % 8) & 1) << place;
            self.at += 1;
        }
        Some(value)
    }

    fn skip(&mut self, count: u64) -> Option<()> {
        self.at = self.at.checked_add(count)?;
        (self.at <= self.bytes.len() as u64 * 8).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_those_of_the_specification() {
        for (entries, dimensions, expected) in [(81, 4, 3), (80, 4, 2), (3125, 5, 5), (1, 31, 1), (0, 3, 0)] {
            assert_eq!(side(entries, dimensions), expected, "{entries}, {dimensions}");
        }
    }

    /// A setup header with one lattice of two entries, and the beginning of another codebook.
    fn setup(dimensions: u16) -> Vec<u8> {
        let mut bits: Vec<bool> = Vec::new();
        let mut push = |value: u64, count: u32| bits.extend((0..count).map(|place| value >> place & 1 == 1));
        push(1, 8);
        for (value, count) in [(0x56_4342, 24), (dimensions.into(), 16), (2, 24), (0, 2), (0, 5), (0, 5), (1, 4)] {
            push(value, count);
        }
        push(0, 64);
        push(3, 4);
        push(0, 1);
        push(0, 4);
        push(0x56_4342, 24);
        let bytes = bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |sum, bit| sum << 1 | u8::from(*bit)));
        b"\x05vorbis".iter().copied().chain(bytes).collect()
    }

    #[test]
    fn lattices_without_dimensions_or_with_too_many_are_found() {
        for (dimensions, is_usable) in [(1, true), (31, true), (32, false), (0, false), (u16::MAX, false)] {
            assert_eq!(has_usable_lattices(&setup(dimensions)), is_usable, "{dimensions}");
        }
        assert!(has_usable_lattices(&setup(u16::MAX)[..12]) && has_usable_lattices(&[]));
    }
}
