//! Chunks of AIFF files whose sizes were never filled in, as left by programs that write to a pipe.

use std::borrow::Cow;

use super::readable::Readable;

/// Bytes before the first chunk.
const HEADER: usize = 12;
const CHUNK_HEADER: usize = 8;
/// Bytes of the sound chunk before the samples.
const SOUND_HEADER: usize = 8;

/// Replaces sizes of 0 by the real ones.
pub(super) fn readable(bytes: &[u8]) -> Readable<'_> {
    let size_at = |at: usize| bytes.get(at..)?.first_chunk().map(|size| u32::from_be_bytes(*size) as usize);
    let form = size_at(4).unwrap_or(usize::MAX);
    if form > 0 {
        return Readable::whole(bytes, form.saturating_add(8) > bytes.len() + 1);
    }
    let (mut at, mut common) = (HEADER, None);
    while let (Some(name), Some(size)) = (bytes.get(at..at + 4), size_at(at + 4)) {
        match name {
            b"COMM" => common = Some(at + CHUNK_HEADER),
            b"SSND" if size == 0 => return streamed(bytes, common, at),
            _ => {}
        }
        at = at.saturating_add(CHUNK_HEADER + size + (size & 1));
    }
    Readable::whole(bytes, false)
}

/// Fills in the sizes of a file whose sound starts with the chunk at `sound` and reaches to the end.
fn streamed(bytes: &[u8], common: Option<usize>, sound: usize) -> Readable<'_> {
    let mut mended = bytes.to_vec();
    let mut set = |at: usize, value: usize| {
        if let (Some(field), Ok(value)) = (mended.get_mut(at..at + 4), u32::try_from(value)) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    };
    let content = bytes.len().saturating_sub(sound + CHUNK_HEADER);
    set(4, bytes.len() - 8);
    set(sound + 4, content);
    if let Some([c0, c1, _, _, _, _, b0, b1]) = common.and_then(|at| bytes.get(at..)?.first_chunk::<8>()) {
        let channels = usize::from(u16::from_be_bytes([*c0, *c1]));
        let frame = channels * usize::from(u16::from_be_bytes([*b0, *b1]).div_ceil(8));
        set(common.unwrap_or_default() + 2, content.saturating_sub(SOUND_HEADER) / frame.max(1));
    }
    Readable { streamed: true, ..Readable::mended(Cow::Owned(mended), false, 0) }
}
