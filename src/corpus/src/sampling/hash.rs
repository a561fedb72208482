//! Orders by keyed hashes of numbers.

/// The key of one kind of order in one epoch, from the seed.
pub(super) struct Key([u8; 32]);

impl Key {
    pub(super) fn new(seed: u64, epoch: u64, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("flowmill 2026 sampling order");
        hasher.update(&seed.to_le_bytes()).update(&epoch.to_le_bytes()).update(purpose.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// The first 64 bits of the keyed hash of a number.
    pub(super) fn hash(&self, number: u64) -> u64 {
        let mut first = [0u8; 8];
        first.copy_from_slice(&blake3::keyed_hash(&self.0, &number.to_le_bytes()).as_bytes()[..8]);
        u64::from_be_bytes(first)
    }

    /// Puts things into the order of the hashes of their numbers.
    pub(super) fn sort<T: Copy + Ord + Into<u64>>(&self, items: &mut [T]) {
        items.sort_by_cached_key(|&item| (self.hash(item.into()), item));
    }
}
