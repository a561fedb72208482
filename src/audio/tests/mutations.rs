//! Damaged files: whatever the damage, decoding ends in samples or an error, in bounded memory.
//!
//! `FLOWMILL_SEED` repeats a run, `FLOWMILL_MUTATIONS` sets the number of damaged copies of each file.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::test_file;
use flowmill_audio::decode_bytes;

/// The system's allocator with a counter.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls are passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = IN_USE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Largest memory for one damaged file of at most 350 kB, in bytes.
const MOST_MEMORY: usize = 64 << 20;
/// Longest time for one damaged file.
const MOST_TIME: Duration = Duration::from_secs(5);

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// Draws a position, in headers twice as likely as in the rest.
    fn position(&mut self, length: usize) -> usize {
        if self.below(2) == 0 { self.below(length.min(200)) } else { self.below(length) }
    }
}

fn damage(original: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.position(bytes.len());
        match random.below(6) {
            0 | 1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = [0, 0xff, 0x7f, 0x80, random.next() as u8][random.below(5)],
            3 => bytes.truncate(at.max(1)),
            4 => {
                let end = (at + random.below(64)).min(bytes.len());
                bytes[at..end].iter_mut().for_each(|byte| *byte = random.next() as u8);
            }
            _ => {
                let end = (at + random.below(200)).min(bytes.len());
                let piece: Vec<u8> = bytes[at..end].to_vec();
                let to = random.position(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
    bytes
}

/// Rewrites the checksums of Ogg pages, so that the damage gets past them to the decoders.
fn mend_ogg_checksums(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.windows(4).position(|four| four == b"OggS")) {
        at += found;
        let Some(segments) = bytes.get(at + 26).map(|count| usize::from(*count)) else { return };
        let Some(lacing) = bytes.get(at + 27..at + 27 + segments) else { return };
        let length = 27 + segments + lacing.iter().map(|byte| usize::from(*byte)).sum::<usize>();
        let Some(page) = bytes.get_mut(at..at + length) else { return };
        page[22..26].fill(0);
        let sum = page.iter().fold(0u32, |crc, byte| {
            (0..8).fold(crc ^ (u32::from(*byte) << 24), |crc, _| (crc << 1) ^ ((crc >> 31) * 0x04c1_1db7))
        });
        page[22..26].copy_from_slice(&sum.to_le_bytes());
        at += length;
    }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn damaged_files_end_well() {
    let clock =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
    let seed = number("FLOWMILL_SEED", clock);
    let count = number("FLOWMILL_MUTATIONS", 60);
    println!("FLOWMILL_SEED={seed} FLOWMILL_MUTATIONS={count}");
    let folders = ["data/formats/good", "data/formats/broken"].map(test_file);
    let mut paths: Vec<_> = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).expect("the corpus is there"))
        .map(|entry| entry.expect("the folder is readable").path())
        .collect();
    paths.sort();
    assert_eq!(paths.len(), 58);
    let (mut decoded, mut refused) = (0, 0);
    for (index, path) in paths.iter().enumerate() {
        let original = std::fs::read(path).expect("the corpus is readable");
        for mutation in 0..count {
            if original.is_empty() {
                continue;
            }
            let mut random = Random(seed ^ (((index as u64) << 32) | mutation).wrapping_mul(0x2545_f491_4f6c_dd1d));
            let mut bytes = damage(&original, &mut random);
            if mutation % 2 == 0 {
                mend_ogg_checksums(&mut bytes);
            }
            let name = format!("{} damaged ({mutation}, seed {seed})", path.display());
            PEAK.store(IN_USE.load(Ordering::Relaxed), Ordering::Relaxed);
            let before = IN_USE.load(Ordering::Relaxed);
            let start = Instant::now();
            let outcome = decode_bytes(&bytes, "damaged");
            let used = PEAK.load(Ordering::Relaxed) - before;
            assert!(used < MOST_MEMORY, "{name}: took {used} bytes");
            assert!(start.elapsed() < MOST_TIME, "{name}: took {:?}", start.elapsed());
            match outcome {
                Ok(audio) => {
                    assert!(audio.frames() > 0 && audio.samples.iter().flatten().all(|x| x.is_finite()), "{name}");
                    decoded += 1;
                }
                Err(error) => {
                    // The message of the guard around the decoders after a panic.
                    assert!(!error.to_string().contains("decoder failed"), "{name}: panicked");
                    refused += 1;
                }
            }
        }
    }
    println!("{decoded} decoded, {refused} refused");
    assert!(decoded > 0 && refused > 0);
}
