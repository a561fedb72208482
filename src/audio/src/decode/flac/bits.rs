//! Bits of a FLAC stream, most significant first.

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

    /// Whether everything read so far was there.
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

    /// How many zeros come before the next one; the one is taken too.
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

    /// Rice-coded numbers with parameter `k`, zigzag-folded.
    pub(super) fn rice(&mut self, k: u32, values: &mut [i32]) -> Result<(), Ended> {
        for value in values {
            self.fetch();
            let quotient = self.cache.leading_zeros();
            let taken = quotient + 1 + k;
            let folded = if taken <= 56 {
                let rest = (self.cache << quotient) << 1;
                let remainder = (rest >> 1) >> (63 - k);
                self.cache = rest << k;
                self.count -= taken;
                (quotient << k) | remainder as u32
            } else {
                let quotient = self.unary()?;
                quotient.wrapping_shl(k) | self.unsigned(k)
            };
            *value = (folded >> 1) as i32 ^ -((folded & 1) as i32);
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
        assert_eq!(long[0], 73 / 2 ^ -1);
    }
}
