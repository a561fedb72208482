//! Tar files: reading of members and the positions of their bytes, and writing with the same bytes for the same
//! members.
//!
//! Reading and writing are implemented here because the requirements are small and special: byte offsets for random
//! access, bounded memory for every header, and one fixed interpretation of contradictions. Most published
//! vulnerabilities of tar readers are such contradictions (which of two sizes or names is valid), or come from
//! extracting by name. Here a contradiction ends the reading with a message about its place and kind, and nothing is
//! ever extracted.

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

/// Returns the name of the compressed format that begins like this, and the command that decompresses it.
pub(crate) fn compression(beginning: &[u8]) -> Option<(&'static str, &'static str)> {
    COMPRESSED.iter().find(|(magic, ..)| beginning.starts_with(magic)).map(|(_, name, undo)| (*name, *undo))
}
