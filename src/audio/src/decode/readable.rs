//! Containers in a form that a reader needs: without sections that are not part of their structure, and with sizes that end with the
//! file. A reader would stop at the first of these, although good sound follows.

use std::borrow::Cow;

use super::sniff::Content;
use super::{adts, aiff, caf, matroska_structure, mp4_edits};
use crate::audio::DecodeWarning;

/// A container in readable form, and the problems of its structure.
#[derive(Debug)]
pub(super) struct Readable<'b> {
    pub(super) bytes: Cow<'b, [u8]>,
    /// True if the structure promises more bytes than exist.
    pub(super) is_cut: bool,
    /// Number of bytes that were left out.
    pub(super) junk: u64,
    /// True if sizes were never filled in.
    pub(super) streamed: bool,
}

impl<'b> Readable<'b> {
    /// Examines a file of the given kind.
    pub(super) fn of(bytes: &'b [u8], content: Content) -> Self {
        match content {
            Content::Matroska => matroska_structure::readable(bytes),
            Content::Adts => adts::readable(bytes),
            Content::Caf => caf::readable(bytes),
            Content::Mp4 => Self::whole(bytes, mp4_edits::is_cut(bytes)),
            Content::Aiff => aiff::readable(bytes),
            _ => Self::whole(bytes, false),
        }
    }

    /// Creates a file of which nothing is left out.
    pub(super) fn whole(bytes: &'b [u8], is_cut: bool) -> Self {
        Self::mended(Cow::Borrowed(bytes), is_cut, 0)
    }

    /// Creates a file without `junk` of its bytes.
    pub(super) fn mended(bytes: Cow<'b, [u8]>, is_cut: bool, junk: u64) -> Self {
        Self { bytes, is_cut, junk, streamed: false }
    }

    /// Warnings if bytes were left out, or sizes were never filled in.
    pub(super) fn warnings(&self) -> impl Iterator<Item = DecodeWarning> {
        let lost = (self.junk > 0).then_some(DecodeWarning::LostSync { bytes: self.junk });
        lost.into_iter().chain(self.streamed.then_some(DecodeWarning::StreamedSize))
    }
}
