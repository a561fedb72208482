//! The chain of elements of a Matroska file, and how to continue reading after a break in it.

use std::borrow::Cow;
use std::ops::Range;

use super::matroska::{self, CLUSTER, SEGMENT};
use super::readable::Readable;

/// Elements of the segment and of clusters.
const KNOWN: [u32; 19] = [
    matroska::EBML,
    SEGMENT,
    CLUSTER,
    matroska::INFO,
    matroska::TRACKS,
    matroska::BLOCK_GROUP,
    matroska::SIMPLE_BLOCK,
    0xe7,
    0xa7,
    0xab,
    0xaf,
    0xec,
    0xbf,
    0x1c53_bb6b,
    0x1254_c367,
    0x114d_9b74,
    0x5854,
    // Attachments and chapters.
    0x1941_a469,
    0x1043_a770,
];
/// Elements outside of clusters.
const OUTSIDE: [u32; 8] =
    [CLUSTER, matroska::INFO, matroska::TRACKS, 0x1c53_bb6b, 0x1254_c367, 0x114d_9b74, 0x1941_a469, 0x1043_a770];

/// Checks that the elements of the segment and its clusters follow each other up to the end of the file. After a break, everything
/// up to the next cluster is left out.
pub(super) fn readable(bytes: &[u8]) -> Readable<'_> {
    let walk = Walk::over(bytes);
    let bytes = match walk.junk.is_empty() {
        true => Cow::Borrowed(bytes),
        false => Cow::Owned(walk.without_junk(bytes)),
    };
    let junk = walk.junk.iter().map(|range| range.len() as u64).sum();
    Readable::mended(bytes, walk.cut, junk)
}

/// Findings of a walk over the elements.
#[derive(Default)]
struct Walk {
    cut: bool,
    junk: Vec<Range<usize>>,
    /// Places of the sizes of the segment and the clusters.
    sizes: Vec<Range<usize>>,
}

impl Walk {
    fn over(bytes: &[u8]) -> Self {
        let mut walk = Self::default();
        let mut at = 0;
        let mut cluster_end = usize::MAX;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let head = matroska::id(rest).and_then(|(id, length)| {
                let (size, size_length) = matroska::number(&rest[length..])?;
                Some((id, length, size_length, size))
            });
            if at >= cluster_end {
                cluster_end = usize::MAX;
            }
            match head {
                Some((id, id_length, size_length, size)) if KNOWN.contains(&id) => {
                    let content = at + id_length + size_length;
                    let end = usize::try_from(size).unwrap_or(usize::MAX).saturating_add(content);
                    if matches!(id, SEGMENT | CLUSTER) {
                        walk.sizes.push(at + id_length..content);
                        walk.cut |= size != u64::MAX && end > bytes.len();
                        if id == CLUSTER {
                            cluster_end = if size == u64::MAX { usize::MAX } else { end };
                        }
                        at = content;
                    } else if end > cluster_end && !OUTSIDE.contains(&id) {
                        at = walk.skip(bytes, at);
                    } else if end > bytes.len() {
                        walk.cut = true;
                        return walk;
                    } else {
                        // A block begins with the number of its track, a group with an element id: neither is zero.
                        if matches!(id, matroska::BLOCK_GROUP | matroska::SIMPLE_BLOCK)
                            && bytes.get(content) == Some(&0)
                        {
                            walk.junk.push(at..end);
                        }
                        at = end;
                    }
                }
                None if rest.len() < 12 => {
                    walk.cut = true;
                    return walk;
                }
                _ => at = walk.skip(bytes, at),
            }
        }
        walk
    }

    /// Leaves out everything from `at` to the next cluster; returns its position.
    fn skip(&mut self, bytes: &[u8], at: usize) -> usize {
        let marker = CLUSTER.to_be_bytes();
        let next = bytes[at + 1..].windows(marker.len()).position(|window| window == marker);
        let next = next.map_or(bytes.len(), |next| at + 1 + next);
        self.junk.push(at..next);
        next
    }

    /// The file without its junk; sizes that counted it become unknown.
    fn without_junk(&self, bytes: &[u8]) -> Vec<u8> {
        let mut open = bytes.to_vec();
        for size in &self.sizes {
            let field = &mut open[size.clone()];
            field.fill(0xff);
            if let [first, rest @ ..] = field {
                *first >>= rest.len();
            }
        }
        let mut kept = Vec::with_capacity(open.len());
        let mut at = 0;
        for range in &self.junk {
            kept.extend_from_slice(&open[at..range.start]);
            at = range.end;
        }
        kept.extend_from_slice(&open[at..]);
        kept
    }
}
