//! Containers as a reader needs them: without stretches that are no part of their structure, and with sizes that end where the file
//! does. A reader would stop at the first of these, though good sound follows it.

use std::borrow::Cow;

use super::sniff::Content;
use super::{adts, caf, matroska_structure, mp4_edits};
use crate::audio::DecodeWarning;

/// A container to be read, and what is wrong with its structure.
#[derive(Debug)]
pub(super) struct Readable<'b> {
    pub(super) bytes: Cow<'b, [u8]>,
    /// Whether the structure promises more bytes than there are.
    pub(super) is_cut: bool,
    /// Bytes that were left out.
    pub(super) junk: u64,
}

impl<'b> Readable<'b> {
    /// Examines a file of the given kind.
    pub(super) fn of(bytes: &'b [u8], content: Content) -> Self {
        match content {
            Content::Matroska => matroska_structure::readable(bytes),
            Content::Adts => adts::readable(bytes),
            Content::Caf => caf::readable(bytes),
            Content::Mp4 => Self::whole(bytes, mp4_edits::is_cut(bytes)),
            Content::Aiff => {
                let form = bytes.get(4..8).and_then(|size| size.first_chunk());
                let end = form.map_or(u64::MAX, |size| u64::from(u32::from_be_bytes(*size)) + 8);
                Self::whole(bytes, end > bytes.len() as u64 + 1)
            }
            _ => Self::whole(bytes, false),
        }
    }

    /// A file of which nothing is left out.
    pub(super) fn whole(bytes: &'b [u8], is_cut: bool) -> Self {
        Self { bytes: Cow::Borrowed(bytes), is_cut, junk: 0 }
    }

    /// A warning if bytes were left out.
    pub(super) fn warning(&self) -> Option<DecodeWarning> {
        (self.junk > 0).then_some(DecodeWarning::LostSync { bytes: self.junk })
    }
}
