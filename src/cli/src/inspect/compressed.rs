//! Compressed files: their content, unpacked to a temporary file.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;
use tempfile::TempDir;

use super::kind::Compression;
use crate::human;

/// The size of content above which the rest is not read.
const LARGEST: u64 = 1 << 30;
/// The number of bytes that are unpacked at a time.
const PIECE: usize = 1 << 20;

/// The content of a compressed file, in a temporary folder that is removed in the end.
pub struct Unpacked {
    file: PathBuf,
    _folder: TempDir,
    /// The size of the content that was read, in bytes.
    pub size: u64,
    /// The damage after which nothing was read, or the size above which the rest was left out.
    pub damage: Option<String>,
}

impl Unpacked {
    /// Unpacks the file at `path`, up to damage and at most [`LARGEST`] bytes.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, nothing of it can be unpacked, or there is no space for its content.
    pub fn of(path: &Path, by: Compression) -> Result<Self> {
        let packed = BufReader::new(File::open(path)?);
        let mut reader: Box<dyn Read> = match by {
            Compression::Gzip => Box::new(MultiGzDecoder::new(packed)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
        };
        let folder = tempfile::tempdir().context("there is no place for its content")?;
        // The name inside decides about content that only looks like JSON.
        let file = folder.path().join(path.file_stem().unwrap_or_default());
        let mut out = File::create(&file).context("there is no place for its content")?;
        let (mut piece, mut size, mut damage) = (vec![0; PIECE], 0, None);
        loop {
            match reader.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => {
                    out.write_all(&piece[..count]).context("there is no place for its content")?;
                    size += count as u64;
                }
                Err(error) if size == 0 => return Err(error).context("nothing of it can be unpacked"),
                Err(error) => {
                    let place = human::count(size);
                    damage = Some(format!("it is truncated or damaged after {place} bytes of its content: {error}"));
                    break;
                }
            }
            if size > LARGEST {
                damage = Some(format!("its content after {} is not read; unpack it first", human::bytes(size)));
                break;
            }
        }
        Ok(Self { file, _folder: folder, size, damage })
    }

    /// Returns the path of the content.
    pub fn path(&self) -> &Path {
        &self.file
    }
}
