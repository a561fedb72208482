//! Frames of AAC in ADTS, and other bytes between them.

use std::borrow::Cow;
use std::ops::Range;

use super::readable::Readable;
use super::tags;

/// Finds the frames; the bytes between them are left out, and so are tags.
pub(super) fn readable(bytes: &[u8]) -> Readable<'_> {
    let bytes = tags::without_trailing(bytes);
    // Zeros that pad the end of a file are not damage.
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut kept: Vec<Range<usize>> = Vec::new();
    let (mut at, mut junk, mut previous) = (0, 0, None);
    while at < end {
        let rest = &bytes[at..];
        let fits = |frame: &Frame| at == 0 || previous == Some(frame.kind) || frame.is_followed(rest);
        if let Some(frame) = Frame::parse(rest).filter(fits) {
            let next = at + frame.length.min(rest.len());
            match kept.last_mut() {
                Some(last) if last.end == at => last.end = next,
                _ => kept.push(at..next),
            }
            (previous, at) = (Some(frame.kind), next);
        } else if let Some(tag) = tags::length(rest) {
            // Files that were joined have tags in the middle.
            at = usize::try_from(tag).unwrap_or(usize::MAX).saturating_add(at);
        } else {
            (previous, at, junk) = (None, at + 1, junk + 1);
        }
    }
    let bytes = match kept.as_slice() {
        [] => return Readable::whole(bytes, false),
        [only] => Cow::Borrowed(&bytes[only.clone()]),
        many => Cow::Owned(many.iter().flat_map(|range| &bytes[range.clone()]).copied().collect()),
    };
    Readable::mended(bytes, false, junk)
}

/// A frame, described by its header.
struct Frame {
    /// Profile, sampling rate and channels, as they are coded.
    kind: [u8; 2],
    /// Bytes, header included.
    length: usize,
}

impl Frame {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let [0xff, second, third, fourth, fifth, sixth, _, ..] = *bytes else { return None };
        let length = usize::from(fourth & 3) << 11 | usize::from(fifth) << 3 | usize::from(sixth) >> 5;
        let header = if second & 1 == 0 { 9 } else { 7 };
        let valid = second & 0xf6 == 0xf0 && third >> 2 & 0xf < 13 && length >= header;
        valid.then_some(Self { kind: [third & 0xfd, fourth & 0xc0], length })
    }

    /// True when this frame, at the beginning of `bytes`, ends at the end of `bytes` or at another frame of its kind.
    fn is_followed(&self, bytes: &[u8]) -> bool {
        let rest = bytes.get(self.length..);
        rest.is_some_and(|rest| rest.is_empty() || Self::parse(rest).is_some_and(|next| next.kind == self.kind))
    }
}
