//! Tar files: what members there are and where their bytes lie, and writing the same bytes for the same members.
//!
//! Reading and writing are ours because what is needed is little and particular: byte offsets for random access, bounded memory
//! for every header, and one fixed reading of contradictions. Most published holes of tar readers are such contradictions (which
//! of two sizes or names holds), or come from extracting by name; here a contradiction ends the reading with what and where,
//! and nothing is ever extracted.

mod fault;
mod header;
mod pax;
mod reader;
mod writer;

pub use fault::TarFault;
pub use reader::{Damage, Member, MemberKind, Members};
pub(crate) use writer::TarWriter;

/// The unit of the format: headers take one block, content is padded to whole ones.
const BLOCK: u64 = 512;

/// Compressed formats by their first bytes, with the command that undoes each.
const COMPRESSED: [(&[u8], &str, &str); 5] = [
    (b"\x1f\x8b", "gzip", "gunzip"),
    (b"BZh", "bzip2", "bunzip2"),
    (b"\xfd7zXZ\0", "xz", "unxz"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd"),
    (b"\x04\x22\x4d\x18", "lz4", "unlz4"),
];

/// The name of the compressed format that begins like this, and the command that undoes it.
pub(crate) fn compression(beginning: &[u8]) -> Option<(&'static str, &'static str)> {
    COMPRESSED.iter().find(|(magic, ..)| beginning.starts_with(magic)).map(|(_, name, undo)| (*name, *undo))
}
