//! Chunks of CAF files.

use std::borrow::Cow;

use super::readable::Readable;

/// Bytes before the first chunk.
const HEADER: usize = 8;
/// Bytes of a chunk's name and size.
const CHUNK_HEADER: usize = 12;
/// Bytes of the data chunk before the audio.
const EDIT_COUNT: usize = 4;

struct Chunk<'a> {
    name: &'a [u8; 4],
    /// Start of its content.
    start: usize,
    /// End of its content according to its size; a size of -1 reaches to the end of the file.
    end: usize,
}

/// Iterates over the chunks of a file; the last one may exceed it.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut at = HEADER;
    std::iter::from_fn(move || {
        let (name, rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
        let size = i64::from_be_bytes(*rest.first_chunk()?);
        let start = at + CHUNK_HEADER;
        let end = usize::try_from(size).map_or(bytes.len(), |size| start.saturating_add(size));
        at = end;
        Some(Chunk { name, start, end })
    })
}

/// Returns the content of a chunk, as far as it exists.
pub(super) fn chunk<'a>(bytes: &'a [u8], name: &[u8; 4]) -> Option<&'a [u8]> {
    let chunk = chunks(bytes).find(|chunk| chunk.name == name)?;
    bytes.get(chunk.start..chunk.end.min(bytes.len()))
}

/// Limits the size of the audio to the existing bytes, at a packet boundary if all packets have the same size.
pub(super) fn readable(bytes: &[u8]) -> Readable<'_> {
    let mut end = HEADER;
    for found in chunks(bytes) {
        end = found.end;
        let there = bytes.len().saturating_sub(found.start);
        let open = bytes.get(found.start - 8..found.start) == Some(&[0xff; 8]);
        if found.name == b"data" && (found.end > bytes.len() || open) && there > EDIT_COUNT {
            let packet = chunk(bytes, b"desc").and_then(|description| description.get(16..)?.first_chunk());
            let packet = packet.map_or(0, |size| u32::from_be_bytes(*size) as usize);
            // Packets of different sizes are located by their table, which may be missing.
            if packet == 0 && !open && chunk(bytes, b"pakt").is_none() {
                return Readable::whole(bytes, true);
            }
            let packet = packet.max(1);
            let audio = (there - EDIT_COUNT) / packet * packet;
            let mut mended = bytes[..found.start + EDIT_COUNT + audio].to_vec();
            mended[found.start - 8..found.start].copy_from_slice(&((EDIT_COUNT + audio) as u64).to_be_bytes());
            return Readable::mended(Cow::Owned(mended), !open, 0);
        }
    }
    Readable::whole(bytes, end != bytes.len())
}
