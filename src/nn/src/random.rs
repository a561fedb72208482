//! Counter-based random numbers: a pure function of (seed, purpose, epoch, step, sample) and a position.
//!
//! The generator is Philox 4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//! Nothing is stored between calls, so a resumed run draws the same numbers as an undisturbed one, and the order in which
//! threads draw does not matter.

use candle_core::{Device, Tensor};

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
pub(crate) const ROUNDS: usize = 10;

/// Philox 4x32-10: returns four random words for a 128-bit counter and a 64-bit key.
pub fn philox_4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        counter = philox_round(counter, key);
        key = next_key(key);
    }
    counter
}

/// Computes one round.
#[inline(always)]
pub(crate) fn philox_round(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let low = u64::from(MULTIPLIER[0]).wrapping_mul(u64::from(counter[0]));
    let high = u64::from(MULTIPLIER[1]).wrapping_mul(u64::from(counter[2]));
    [(high >> 32) as u32 ^ counter[1] ^ key[0], high as u32, (low >> 32) as u32 ^ counter[3] ^ key[1], low as u32]
}

/// Returns the key of the next round.
#[inline(always)]
pub(crate) fn next_key(key: [u32; 2]) -> [u32; 2] {
    [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])]
}

/// A stream of random numbers, identified by its purpose. Copying it or reading it twice gives the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RngKey {
    key: [u32; 2],
}

fn split(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

impl RngKey {
    /// The root of all streams of one seed.
    pub fn new(seed: u64) -> Self {
        Self { key: split(seed) }
    }

    /// The stream of one (seed, purpose, epoch, step, sample).
    pub fn keyed(seed: u64, purpose: &str, epoch: u64, step: u64, sample: u64) -> Self {
        Self::new(seed).purpose(purpose).epoch(epoch).step(step).sample(sample)
    }

    /// The sub-stream for a named purpose ("noise", "dropout", a parameter's name).
    pub fn purpose(self, purpose: &str) -> Self {
        let mut rng_key = self.child(1, purpose.len() as u64);
        for chunk in purpose.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            rng_key = rng_key.child(2, u64::from_le_bytes(word));
        }
        rng_key
    }

    /// The sub-stream of an epoch.
    pub fn epoch(self, epoch: u64) -> Self {
        self.child(3, epoch)
    }

    /// The sub-stream of a training step.
    pub fn step(self, step: u64) -> Self {
        self.child(4, step)
    }

    /// The sub-stream of a sample (an item of a batch, a row, a call).
    pub fn sample(self, sample: u64) -> Self {
        self.child(5, sample)
    }

    /// Derives a new key from this one: the words of a Philox block whose counter no stream of numbers reaches.
    fn child(self, kind: u32, value: u64) -> Self {
        let [low, high] = split(value);
        let words = philox_4x32_10([low, high, kind, u32::MAX], self.key);
        Self { key: [words[0], words[1]] }
    }

    /// Four random words at a block position.
    pub fn block(&self, position: u64) -> [u32; 4] {
        let [low, high] = split(position);
        philox_4x32_10([low, high, 0, 0], self.key)
    }

    pub(crate) fn key(&self) -> [u32; 2] {
        self.key
    }

    /// A uniform number in [0, 1) with 24 bits, at a position of the stream.
    pub fn uniform_at(&self, position: u64) -> f32 {
        uniform(self.block(position / 4)[(position % 4) as usize])
    }

    /// A uniform integer in `0..bound` (0 when `bound` is 0), at a position of the stream.
    pub fn below_at(&self, position: u64, bound: u32) -> u32 {
        let word = self.block(position / 4)[(position % 4) as usize];
        ((u64::from(word) * u64::from(bound)) >> 32) as u32
    }

    /// A standard normal number at a position of the stream.
    pub fn normal_at(&self, position: u64) -> f32 {
        normals(self.block(position / 4))[(position % 4) as usize]
    }

    /// `count` uniform numbers in [0, 1).
    pub fn uniforms(&self, count: usize) -> Vec<f32> {
        self.numbers(count, |words| words.map(uniform))
    }

    /// `count` standard normal numbers.
    pub fn normals(&self, count: usize) -> Vec<f32> {
        self.numbers(count, normals)
    }

    /// The standard normal numbers at positions of the stream of [`normals`](Self::normals).
    pub fn normals_at(&self, positions: std::ops::Range<usize>) -> Vec<f32> {
        let skipped = positions.start % 4;
        let blocks = (positions.start / 4) as u64..positions.end.div_ceil(4) as u64;
        let numbers = blocks.flat_map(|position| normals(self.block(position)));
        numbers.skip(skipped).take(positions.len()).collect()
    }

    fn numbers(&self, count: usize, convert: impl Fn([u32; 4]) -> [f32; 4]) -> Vec<f32> {
        let blocks = count.div_ceil(4) as u64;
        let mut numbers: Vec<f32> = (0..blocks).flat_map(|position| convert(self.block(position))).collect();
        numbers.truncate(count);
        numbers
    }

    /// A tensor of standard normal numbers.
    ///
    /// # Errors
    /// When candle cannot make a tensor of that shape.
    pub fn normal_tensor(&self, shape: &[usize], device: &Device) -> crate::Result<Tensor> {
        Ok(Tensor::from_vec(self.normals(shape.iter().product()), shape, device)?)
    }
}

/// The upper 24 bits as a number in [0, 1).
fn uniform(word: u32) -> f32 {
    (word >> 8) as f32 / (1 << 24) as f32
}

/// Box-Muller on two pairs of words, in double precision.
fn normals(words: [u32; 4]) -> [f32; 4] {
    let pair = |first: u32, second: u32| {
        let radius = (-2.0 * ((f64::from(first) + 1.0) / 4_294_967_296.0).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * f64::from(second) / 4_294_967_296.0).sin_cos();
        ((radius * cos) as f32, (radius * sin) as f32)
    };
    let (a, b) = pair(words[0], words[1]);
    let (c, d) = pair(words[2], words[3]);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normals_at_positions_are_those_of_the_stream() {
        let rng_key = RngKey::new(5).purpose("a");
        let all = rng_key.normals(40);
        for range in [0..40, 0..3, 3..4, 4..9, 5..31, 7..7] {
            assert_eq!(rng_key.normals_at(range.clone()), all[range]);
        }
    }

    /// The known-answer vectors that the Random123 library publishes for philox4x32-10.
    #[test]
    fn philox_gives_the_published_known_answers() {
        let cases = [
            ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xa4093822, 0x299f31d0],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox_4x32_10(counter, key), expected);
        }
    }

    #[test]
    fn streams_differ_by_every_part_of_their_key() {
        let reference = RngKey::keyed(1, "noise", 2, 3, 4);
        assert_eq!(reference, RngKey::keyed(1, "noise", 2, 3, 4));
        let others = [
            RngKey::keyed(2, "noise", 2, 3, 4),
            RngKey::keyed(1, "noise\0", 2, 3, 4),
            RngKey::keyed(1, "t", 2, 3, 4),
            RngKey::keyed(1, "noise", 3, 3, 4),
            RngKey::keyed(1, "noise", 2, 4, 4),
            RngKey::keyed(1, "noise", 2, 3, 5),
            RngKey::keyed(1, "noise", 3, 2, 4),
        ];
        for other in others {
            assert_ne!(reference.uniforms(8), other.uniforms(8));
        }
    }

    #[test]
    fn a_position_is_the_same_alone_and_in_a_row() {
        let rng_key = RngKey::keyed(5, "t", 0, 0, 0);
        let (uniforms, normals) = (rng_key.uniforms(11), rng_key.normals(11));
        for position in 0..11 {
            assert_eq!(rng_key.uniform_at(position as u64), uniforms[position]);
            assert_eq!(rng_key.normal_at(position as u64), normals[position]);
        }
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let count = 200_000;
        let rng_key = RngKey::keyed(11, "moments", 0, 0, 0);
        let moments = |numbers: &[f32]| {
            let mean = numbers.iter().map(|x| f64::from(*x)).sum::<f64>() / count as f64;
            let variance = numbers.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count as f64;
            (mean, variance)
        };
        let (mean, variance) = moments(&rng_key.uniforms(count));
        assert!((mean - 0.5).abs() < 2e-3 && (variance - 1.0 / 12.0).abs() < 1e-3, "{mean} {variance}");
        let (mean, variance) = moments(&rng_key.normals(count));
        assert!(mean.abs() < 7e-3 && (variance - 1.0).abs() < 1e-2, "{mean} {variance}");
        assert!((0..1000).all(|position| rng_key.below_at(position, 7) < 7));
    }
}
