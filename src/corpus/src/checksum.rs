//! BLAKE3 checksums of files.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use crate::CorpusError;

/// A BLAKE3 checksum; shown, stored and parsed as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum(blake3::Hash);

impl Checksum {
    /// Computes the checksum of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes))
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl FromStr for Checksum {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        blake3::Hash::from_hex(text).map(Self).map_err(|e| format!("`{text}` is not a BLAKE3 checksum: {e}"))
    }
}

/// The checksum of a file's content, read in bounded memory.
///
/// # Errors
/// [`CorpusError::Io`] when the file cannot be read.
pub fn file_checksum(path: &Path) -> Result<Checksum, CorpusError> {
    let fail = |source| CorpusError::io("read", path, source);
    let mut file = File::open(path).map_err(fail)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0u8; 1 << 17];
    loop {
        let count = file.read(&mut buffer).map_err(fail)?;
        if count == 0 {
            return Ok(Checksum(hasher.finalize()));
        }
        hasher.update(&buffer[..count]);
    }
}

impl From<blake3::Hash> for Checksum {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash)
    }
}
