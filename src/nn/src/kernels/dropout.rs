//! Dropout factors, drawn in vectors from a counter-based stream.

use super::vectorized::vectorized;
use crate::random::{ROUNDS, RngKey, next_key, philox_round};

/// Philox blocks that are computed in parallel lanes.
const LANES: usize = 16;
/// Elements per group of blocks: each of the four words of a block serves two elements.
pub const GROUP: usize = 8 * LANES;

/// Converts a rate to 65536ths.
fn threshold(rate: f32) -> u32 {
    (rate * 65_536.0).round() as u32
}

/// Fills `out` with the factors of a stream's elements, starting at `GROUP * group`: 0 with probability `rate`, `1 / (1 - rate)`
/// otherwise.
pub fn factors(rng_key: RngKey, group: u64, rate: f32, out: &mut [f32]) {
    fill(rng_key.key(), group, threshold(rate), 1.0 / (1.0 - rate), out);
}

vectorized! {
    fn fill(key: [u32; 2], group: u64, threshold: u32, factor: f32, out: &mut [f32]) {
        let mut whole = out.chunks_exact_mut(GROUP);
        let mut group = group;
        for out in &mut whole {
            write(out, lanes(key, group), threshold, factor);
            group += 1;
        }
        let rest = whole.into_remainder();
        if !rest.is_empty() {
            let mut last = [0.0; GROUP];
            write(&mut last, lanes(key, group), threshold, factor);
            rest.copy_from_slice(&last[..rest.len()]);
        }
    }
}

/// The words of the blocks starting at `LANES * group`, word by word.
#[inline(always)]
fn lanes(key: [u32; 2], group: u64) -> [[u32; LANES]; 4] {
    let mut counter = [[0u32; LANES]; 4];
    let [low, high, ..] = &mut counter;
    for (lane, (low, high)) in low.iter_mut().zip(high).enumerate() {
        let position = group.wrapping_mul(LANES as u64).wrapping_add(lane as u64);
        (*low, *high) = (position as u32, (position >> 32) as u32);
    }
    let mut key = key;
    for _ in 0..ROUNDS {
        for lane in 0..LANES {
            let words = [counter[0][lane], counter[1][lane], counter[2][lane], counter[3][lane]];
            let words = philox_round(words, key);
            for (word, counter) in words.into_iter().zip(&mut counter) {
                counter[lane] = word;
            }
        }
        key = next_key(key);
    }
    counter
}

#[inline(always)]
fn write(out: &mut [f32], words: [[u32; LANES]; 4], threshold: u32, factor: f32) {
    for (out, words) in out.chunks_exact_mut(2 * LANES).zip(&words) {
        let (low, high) = out.split_at_mut(LANES);
        for ((low, high), word) in low.iter_mut().zip(high).zip(words) {
            *low = if word & 0xFFFF >= threshold { factor } else { 0.0 };
            *high = if word >> 16 >= threshold { factor } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_those_of_single_blocks() {
        let rng_key = RngKey::new(3).purpose("dropout");
        let rate = 0.3;
        let mut out = vec![0.0; 3 * GROUP + 17];
        factors(rng_key, 5, rate, &mut out);
        for (index, factor) in out.iter().enumerate() {
            let (group, inside) = (index / GROUP, index % GROUP);
            let (word, half, lane) = (inside / (2 * LANES), inside / LANES % 2, inside % LANES);
            let block = rng_key.block(((5 + group) * LANES + lane) as u64);
            let number = if half == 0 { block[word] & 0xFFFF } else { block[word] >> 16 };
            let expected = if number >= threshold(rate) { 1.0 / (1.0 - rate) } else { 0.0 };
            assert_eq!(*factor, expected, "element {index}");
        }
    }
}
