//! Tar files that are compressed with gzip: decompressed once, so that their recordings have positions.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::CorpusError;

/// The number of bytes that are decompressed at a time.
const PIECE: usize = 1 << 20;

/// Returns whether a path is that of a tar file that is compressed with gzip, by its name.
pub fn is_compressed(shard: &str) -> bool {
    shard.ends_with(".tar.gz") || shard.ends_with(".tgz")
}

/// Returns the file name that a compressed shard has once it is decompressed.
pub fn unpacked_name(shard: &str) -> String {
    let name = shard.rsplit('/').next().unwrap_or(shard);
    let stem = name.strip_suffix(".tar.gz").or_else(|| name.strip_suffix(".tgz")).unwrap_or(name);
    format!("{stem}.tar")
}

/// Decompresses a shard, in bounded memory. What comes before damage is kept; the damage is returned in words. `goes_on` is asked after
/// each piece.
///
/// # Errors
/// [`CorpusError::Io`] if the shard cannot be opened, or the tar file not be written.
pub fn unpack(shard: &Path, to: &Path, goes_on: &dyn Fn() -> bool) -> Result<Option<String>, CorpusError> {
    let file = File::open(shard).map_err(|e| CorpusError::io("read", shard, e))?;
    let mut from = MultiGzDecoder::new(BufReader::new(file));
    let mut out = File::create(to).map_err(|e| CorpusError::io("write", to, e))?;
    let (mut piece, mut done) = (vec![0; PIECE], 0u64);
    while goes_on() {
        let count = match from.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(count) => count,
            Err(e) if flowmill_audio::is_of_machine(&e) => return Err(CorpusError::io("read", shard, e)),
            Err(e) => {
                return Ok(Some(format!(
                    "is not gzip, or is truncated or damaged, after {done} bytes of its content: {e}"
                )));
            }
        };
        out.write_all(&piece[..count]).map_err(|e| CorpusError::io("write", to, e))?;
        done += count as u64;
    }
    Ok(None)
}
