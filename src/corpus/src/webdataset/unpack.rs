//! Tar files that are compressed with gzip or zstd: decompressed once, so that their recordings have positions.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::CorpusError;

/// The number of bytes that are decompressed at a time.
const PIECE: usize = 1 << 20;

/// The endings of the names of compressed tar files that are read.
const ENDINGS: [&str; 4] = [".tar.gz", ".tgz", ".tar.zst", ".tzst"];
/// The first bytes of zstd.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Returns whether a path is that of a compressed tar file that is read, by its name.
pub fn is_compressed(shard: &str) -> bool {
    ENDINGS.iter().any(|ending| shard.ends_with(ending))
}

/// Returns the file name that a compressed shard has once it is decompressed.
pub fn unpacked_name(shard: &str) -> String {
    let name = shard.rsplit('/').next().unwrap_or(shard);
    let stem = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
    format!("{stem}.tar")
}

/// Opens the content of a compressed file: of zstd by its first bytes, otherwise of gzip.
fn content(file: File) -> std::io::Result<Box<dyn Read>> {
    let mut file = BufReader::new(file);
    let is_zstd = file.fill_buf()?.starts_with(&ZSTD);
    Ok(if is_zstd {
        Box::new(zstd::stream::read::Decoder::with_buffer(file)?)
    } else {
        Box::new(MultiGzDecoder::new(file))
    })
}

/// Decompresses a shard, in bounded memory. What comes before damage is kept; the damage is returned in words. `goes_on` is asked after
/// each piece.
///
/// # Errors
/// [`CorpusError::Io`] if the shard cannot be opened, or the tar file not be written.
pub fn unpack(shard: &Path, to: &Path, goes_on: &dyn Fn() -> bool) -> Result<Option<String>, CorpusError> {
    let file = File::open(shard).map_err(|e| CorpusError::io("read", shard, e))?;
    let mut from = content(file).map_err(|e| CorpusError::io("read", shard, e))?;
    let mut out = File::create(to).map_err(|e| CorpusError::io("write", to, e))?;
    let (mut piece, mut done) = (vec![0; PIECE], 0u64);
    while goes_on() {
        let count = match from.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(count) => count,
            Err(e) if flowmill_audio::is_of_machine(&e) => return Err(CorpusError::io("read", shard, e)),
            Err(e) => {
                return Ok(Some(format!(
                    "is not gzip or zstd, or is truncated or damaged, after {done} bytes of its content: {e}"
                )));
            }
        };
        out.write_all(&piece[..count]).map_err(|e| CorpusError::io("write", to, e))?;
        done += count as u64;
    }
    Ok(None)
}
