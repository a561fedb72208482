//! Bits of a FLAC stream, most significant first.

use crate::simd::vectorized;

/// The stream ended inside a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended;

/// Reads bits from bytes. Behind the end it reads zeros; [`Bits::check`] tells.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte to fetch.
    next: usize,
    /// Fetched bits, the first one on top. Below the top `count` bits there may be a part of the next byte.
    cache: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: 0, cache: 0, count: 0 }
    }

    /// Makes at least 56 bits available.
    #[inline(always)]
    fn fetch(&mut self) {
        match self.bytes.get(self.next..).and_then(|rest| rest.first_chunk()) {
            Some(word) => {
                self.cache |= u64::from_be_bytes(*word) >> self.count;
                self.next += ((63 - self.count) >> 3) as usize;
                self.count |= 56;
            }
            None => self.fetch_at_end(),
        }
    }

    #[cold]
    fn fetch_at_end(&mut self) {
        while self.count <= 56 {
            let byte = self.bytes.get(self.next).copied().unwrap_or(0);
            self.cache |= u64::from(byte) << (56 - self.count);
            self.next += 1;
            self.count += 8;
        }
    }

    /// Returns whether everything read so far was there.
    pub(super) fn check(&self) -> Result<(), Ended> {
        if self.next * 8 - self.count as usize <= self.bytes.len() * 8 { Ok(()) } else { Err(Ended) }
    }

    /// An unsigned number of up to 32 bits.
    #[inline(always)]
    pub(super) fn unsigned(&mut self, bits: u32) -> u32 {
        debug_assert!(bits <= 32);
        self.fetch();
        // Two shifts, since one by 64 is not allowed.
        let value = (self.cache >> 1) >> (63 - bits);
        self.cache <<= bits;
        self.count -= bits;
        value as u32
    }

    /// A two's complement number of 1 to 32 bits.
    #[inline(always)]
    pub(super) fn signed(&mut self, bits: u32) -> i32 {
        let value = self.unsigned(bits);
        ((value << (32 - bits)) as i32) >> (32 - bits)
    }

    /// Number of zeros before the next one; the one is taken too.
    pub(super) fn unary(&mut self) -> Result<u32, Ended> {
        let mut zeros = 0;
        loop {
            self.fetch();
            let here = self.cache.leading_zeros();
            if here < self.count {
                self.cache = (self.cache << here) << 1;
                self.count -= here + 1;
                return Ok(zeros + here);
            }
            zeros += self.count;
            self.cache = 0;
            self.count = 0;
            self.check()?;
        }
    }

    /// Rice-coded numbers with parameter `k` (at most 30), zigzag-folded.
    pub(super) fn rice(&mut self, k: u32, values: &mut [i32]) -> Result<(), Ended> {
        let mut done = 0;
        while done < values.len() {
            done += rice_run(self, k, &mut values[done..]);
            // What the fast loop does not take: long codes, and the end of the bytes.
            if let Some(value) = values.get_mut(done) {
                let quotient = self.unary()?;
                *value = unfold(quotient.wrapping_shl(k) | self.unsigned(k));
                done += 1;
            }
        }
        self.check()
    }

    /// Skips to the next whole byte and says which one that is.
    pub(super) fn align(&mut self) -> usize {
        let partial = self.count & 7;
        self.cache <<= partial;
        self.count -= partial;
        self.next - (self.count >> 3) as usize
    }
}

vectorized! {
    /// Decodes codes of up to 56 bits as long as eight bytes can be fetched; gives how many.
    fn rice_run(bits: &mut Bits<'_>, k: u32, values: &mut [i32]) -> usize {
        let (bytes, mut next, mut cache, mut count) = (bits.bytes, bits.next, bits.cache, bits.count);
        let mut done = 0;
        for value in values.iter_mut() {
            let Some(word) = bytes.get(next..).and_then(|rest| rest.first_chunk()) else { break };
            // As in `fetch`. Nothing here overflows: counts stay within 0 to 63, and positions near the slice.
            cache |= u64::from_be_bytes(*word) >> (count & 63);
            next = next.wrapping_add((63u32.wrapping_sub(count) >> 3) as usize);
            count |= 56;
            let quotient = cache.leading_zeros();
            let taken = quotient.wrapping_add(k).wrapping_add(1);
            if taken > 56 {
                break;
            }
            let rest = (cache << (quotient & 63)) << 1;
            let remainder = (rest >> 1) >> (63u32.wrapping_sub(k) & 63);
            cache = rest << (k & 63);
            count = count.wrapping_sub(taken);
            *value = unfold(quotient << (k & 31) | remainder as u32);
            done += 1;
        }
        (bits.next, bits.cache, bits.count) = (next, cache, count);
        done
    }
}

/// 0, 1, 2, 3, 4 … to 0, -1, 1, -2, 2 …
#[inline(always)]
fn unfold(folded: u32) -> i32 {
    (folded >> 1) as i32 ^ (folded as i32 & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_out_in_order() {
        let mut bits = Bits::new(&[0b1010_0001, 0xff, 0x80, 0x01, 0, 0, 0, 0, 0, 0x10]);
        assert_eq!(bits.unsigned(3), 0b101);
        assert_eq!(bits.unary(), Ok(4));
        assert_eq!(bits.signed(9), -1);
        assert_eq!(bits.align(), 3);
        assert_eq!(bits.unsigned(8), 1);
        assert_eq!(bits.unary(), Ok(43));
        assert_eq!(bits.check(), Ok(()));
        assert_eq!(bits.unary(), Err(Ended));
    }

    #[test]
    fn rice_codes_of_all_lengths() {
        // 0, -1, 1 with k = 0, then a long one.
        let mut bits = Bits::new(&[0b1010_0100, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0xff]);
        let mut values = [9; 3];
        assert_eq!(bits.rice(0, &mut values), Ok(()));
        assert_eq!(values, [0, -1, 1]);
        let mut long = [0];
        assert_eq!(bits.rice(0, &mut long), Ok(()));
        assert_eq!(long[0], (73 / 2) ^ -1);
    }
}
