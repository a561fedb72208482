//! A writer that counts and hashes the bytes it passes on.

use std::io::{self, Write};

use crate::Checksum;

/// A writer that counts and hashes the bytes it passes on to another writer.
pub(super) struct Tallying<W> {
    inner: W,
    hasher: blake3::Hasher,
    /// Bytes written.
    pub(super) bytes: u64,
}

impl<W> Tallying<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, hasher: blake3::Hasher::new(), bytes: 0 }
    }

    /// Returns the checksum of all bytes written.
    pub(super) fn checksum(&self) -> Checksum {
        Checksum::from(self.hasher.finalize())
    }
}

impl<W: Write> Write for Tallying<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
