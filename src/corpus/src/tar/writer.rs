//! Writing of tar files: POSIX headers, no times, no owners, so that the same members give the same bytes.

use std::io::{self, Write};

use super::header::{self, Block};
use super::{BLOCK, pax};

/// The longest name that a plain header holds.
const SHORT_NAME: usize = 100;
/// The largest size that a plain header holds.
const MAX_SIZE: u64 = 0o77_777_777_777;

/// A writer of members in order.
pub(crate) struct TarWriter<W> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    /// Creates a writer to `out`.
    pub(crate) fn new(out: W) -> Self {
        Self { out }
    }

    /// Appends a file. A name that a plain header cannot hold goes into an extended one.
    pub(crate) fn append(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        if name.len() > SHORT_NAME || !name.is_ascii() {
            self.entry(b"././@PaxHeader", b'x', &pax::encode("path", name))?;
        }
        let short = &name.as_bytes()[..name.len().min(SHORT_NAME)];
        self.entry(short, b'0', content)
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK as usize])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &[u8], flag: u8, content: &[u8]) -> io::Result<()> {
        self.out.write_all(&block(name, flag, content.len() as u64)?)?;
        self.out.write_all(content)?;
        let padding = (BLOCK as usize - content.len() % BLOCK as usize) % BLOCK as usize;
        self.out.write_all(&[0; BLOCK as usize][..padding])
    }
}

/// A header block.
fn block(name: &[u8], flag: u8, size: u64) -> io::Result<Block> {
    if size > MAX_SIZE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a member of more than 8 GiB"));
    }
    let mut block: Block = [0; BLOCK as usize];
    block[..name.len()].copy_from_slice(name);
    block[header::MODE].copy_from_slice(b"0000644\0");
    for field in [header::UID, header::GID] {
        block[field].copy_from_slice(b"0000000\0");
    }
    block[header::SIZE].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[header::MTIME].copy_from_slice(b"00000000000\0");
    block[header::TYPE] = flag;
    block[header::MAGIC].copy_from_slice(b"ustar\x0000");
    let sum = header::checksum(&block);
    block[header::CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}
