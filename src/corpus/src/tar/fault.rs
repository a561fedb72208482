//! Reasons why the headers of a tar file end before its end.

/// A fault of a header, or a contradiction between headers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TarFault {
    /// The operating system refused the read; holds its reason.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// The block has no checksum.
    #[error("it is no tar header")]
    NoHeader,
    /// The block's checksum is another.
    #[error("it is no tar header, or a damaged one (its checksum differs)")]
    Checksum,
    /// The size in a header is no number.
    #[error("its size is no number")]
    Size,
    /// The file ends in a header.
    #[error("the file is cut short: {there} bytes of a header are there")]
    CutHeader {
        /// Bytes that are there.
        there: u64,
    },
    /// The file ends in a member's content.
    #[error("the file is cut short: `{name}` has {size} bytes, {there} of them are there")]
    CutMember {
        /// The member.
        name: String,
        /// The size.
        size: u64,
        /// Bytes that are there.
        there: u64,
    },
    /// The file ends in an extended header.
    #[error("the file is cut short in an extended header")]
    CutExtension,
    /// An extended header is longer than any honest one.
    #[error("an extended header of {size} bytes, more than {limit}")]
    LongExtension {
        /// The size.
        size: u64,
        /// The longest that is read.
        limit: u64,
    },
    /// A record of an extended header has no key, or another length than it says.
    #[error("a malformed record in its extended header")]
    Record,
    /// The size in an extended header is no number.
    #[error("a size that is no number")]
    ExtendedSize,
    /// Nothing follows an extended header.
    #[error("an extended header with no member behind it")]
    NoMember,
    /// A member has two long names of one kind.
    #[error("two long names for one member")]
    TwoLongNames,
    /// A member has two extended headers.
    #[error("two extended headers for one member")]
    TwoExtensions,
    /// The long name and the extended header of a member differ.
    #[error("two different long names for one member")]
    NamesDiffer,
    /// A global header names or sizes members.
    #[error("a global header that names or sizes members")]
    Global,
    /// A member that is no file has a size. Some readers skip that many bytes, some none.
    #[error("`{name}` has no content by its type, but {size} bytes by its size")]
    ContentOfNoFile {
        /// The member.
        name: String,
        /// The size.
        size: u64,
    },
    /// Something follows the mark of the archive's end.
    #[error("the archive ends here, but from byte {at} on there is more (tar files set end to end? split them)")]
    BehindEnd {
        /// The position of its first byte.
        at: u64,
    },
}
