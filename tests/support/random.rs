//! Random numbers for tests that can be replayed: the seed is printed, and taken from `FLOWMILL_TEST_SEED` when set.

use std::fs;
use std::path::Path;

/// A generator (SplitMix64).
pub struct Random {
    state: u64,
}

impl Random {
    /// Seeded by the environment, or by the clock; prints the seed.
    pub fn announced(test: &str) -> Self {
        let given = std::env::var("FLOWMILL_TEST_SEED").ok().map(|text| text.parse().expect("a whole number"));
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = given.unwrap_or(clock % 1_000_000_007);
        println!("{test}: replay with FLOWMILL_TEST_SEED={seed}");
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Flips a bit of a file that is not empty, keeping its length.
    pub fn flip_bit(&mut self, path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        if bytes.is_empty() {
            return;
        }
        let at = (self.unit() * bytes.len() as f64) as usize;
        bytes[at] ^= 1 << (self.bits() % 8);
        fs::write(path, bytes).unwrap();
    }
}
