//! Real files with random damage: never a panic, never more memory than the file's size allows.

use crate::allocations;
use crate::support::golden;
use flowmill_weights::{Archive, PickleFile};
use std::path::Path;

/// No file here is larger than 2 MB: a larger single allocation means that a reader trusted a length in the file.
const LARGEST_ALLOCATION: usize = 256 << 20;

/// A generator (SplitMix64), seeded by `FLOWMILL_TEST_SEED` or the clock; the seed is printed.
struct Random(u64);

impl Random {
    fn announced() -> Self {
        let given = std::env::var("FLOWMILL_TEST_SEED").ok().map(|text| text.parse().expect("a whole number"));
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = given.unwrap_or(clock % 1_000_000_007);
        println!("damaged weight files: replay with FLOWMILL_TEST_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// Bytes with a meaning: instructions of pickles, large lengths, kinds of fields.
const TELLING: [u8; 24] = *b"(0]}ahjqrQRbtue\x81\x85\x8a\x8b\x8d\x93\xff\x7f\0";

fn damage(content: &mut Vec<u8>, random: &mut Random) {
    match random.below(8) {
        0 => content.truncate(random.below(content.len())),
        1 => {
            let (from, to) = (random.below(content.len()), random.below(content.len()));
            content.drain(from.min(to)..from.max(to).min(from.min(to) + 64));
        }
        _ => {}
    }
    for _ in 0..=random.below(6) {
        if content.is_empty() {
            return;
        }
        // Half of the damage goes to the beginning and the end, where the structure is.
        let length = content.len();
        let near = random.below(length.min(2000));
        let place = [near, length - 1 - near, random.below(length), random.below(length)][random.below(4)];
        content[place] = match random.below(3) {
            0 => TELLING[random.below(TELLING.len())],
            1 => content[place] ^ (1 << random.below(8)),
            _ => random.below(256) as u8,
        };
    }
}

#[test]
fn damaged_files_never_panic() {
    let mut random = Random::announced();
    let names = ["dtypes_views", "utt2embedding", "utt2speech_token", "utt2speech_token_dual", "spk2embedding"];
    let mut files: Vec<Vec<u8>> = names.map(|name| std::fs::read(golden(&format!("pt/{name}.pt"))).unwrap()).into();
    files.push(crate::support::legacy());
    files.push(crate::support::small_onnx());
    files.push(crate::support::npy("<f4", false, &[2, 3], &[0; 24]));
    let (mut refused, mut read) = (0, 0);
    for round in 0..6000 {
        let mut content = files[round % files.len()].clone();
        damage(&mut content, &mut random);
        let path = Path::new("x");
        match flowmill_weights::from_bytes(&content, path) {
            Ok(_) => read += 1,
            Err(_) => refused += 1,
        }
        if let Ok(mut file) = Archive::from_bytes(&content, path) {
            (0..file.tensors.len()).for_each(|index| drop(file.load(index)));
        }
        drop(PickleFile::from_bytes(&content, path));
    }
    println!("{refused} refused, {read} read; the largest allocation was of {} bytes", allocations::largest());
    assert!(allocations::largest() < LARGEST_ALLOCATION, "{} bytes at once", allocations::largest());
    assert!(refused > 1000 && read > 100);
}
