//! Errors of this crate.

/// The reason why an image cannot be read, changed, written or compared. The caller adds the file's name.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file that cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// A file without bytes.
    #[error("the file is empty")]
    Empty,
    /// Content that is no image of a known format.
    #[error("it is not an image of a known format (PNG, JPEG, WebP, GIF)")]
    UnknownFormat,
    /// An image of a format that is not decoded here.
    #[error("its format is {format}, which is not supported; convert it to PNG, JPEG, WebP or GIF")]
    UnsupportedFormat {
        /// The name of the format.
        format: String,
    },
    /// An image that is cut off, or contradicts its format.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// A file or an image beyond the limits.
    #[error("it is too large: {found} {unit}, the limit is {limit}")]
    TooLarge {
        /// The size.
        found: u64,
        /// The largest size that is allowed.
        limit: u64,
        /// The unit of both.
        unit: &'static str,
    },
    /// A size that an operation cannot work with.
    #[error("{what}: {message}")]
    Size {
        /// The operation.
        what: &'static str,
        /// The problem.
        message: String,
    },
    /// An image that cannot be encoded.
    #[error("it cannot be encoded: {0}")]
    Encode(String),
}

impl ImageError {
    /// An error of an operation that cannot work with a size.
    pub(crate) fn size(what: &'static str, message: impl Into<String>) -> Self {
        Self::Size { what, message: message.into() }
    }
}
