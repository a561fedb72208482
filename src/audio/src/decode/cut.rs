//! Whether a container is cut off: its own sizes reach behind the end of the file.

use super::identify::caf_is_cut;
use super::sniff::Content;
use super::{matroska, mp4_edits};

/// Whether the outer structure of a file promises more bytes than there are.
pub(super) fn is_cut(bytes: &[u8], content: Content) -> bool {
    match content {
        Content::Mp4 => mp4_edits::is_cut(bytes),
        Content::Matroska => matroska::damage(bytes).cut,
        Content::Caf => caf_is_cut(bytes),
        Content::Aiff => {
            let form = bytes.get(4..8).and_then(|size| size.first_chunk());
            form.is_none_or(|size| u64::from(u32::from_be_bytes(*size)) + 8 > bytes.len() as u64 + 1)
        }
        _ => false,
    }
}
