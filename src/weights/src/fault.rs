//! Faults of a weight file: their kind, and what is said of them.

use std::fmt;

/// Kind of a fault of a weight file, which does not change with its wording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// The system does not give the file.
    Unreadable,
    /// It is no weight file, or one without tensors.
    NotWeights,
    /// It is truncated or modified, or contradicts itself.
    Damaged,
    /// One of its values contains itself.
    Cyclic,
    /// It would take far more memory than its size, or is nested too deeply.
    TooLarge,
    /// It is whole, and holds what is not read.
    Unsupported,
    /// A number is NaN or infinite.
    NotFinite,
}

/// A fault of a file that the caller names.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub kind: FaultKind,
    pub message: String,
}

impl Fault {
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The feature that is not supported.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Unsupported, message)
    }

    /// The content that is not a weight file.
    pub fn not_weights(message: impl Into<String>) -> Self {
        Self::new(FaultKind::NotWeights, message)
    }

    /// The item that would take too much memory.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(FaultKind::TooLarge, message)
    }

    /// The same fault, of a part of the file.
    pub fn within(self, part: impl fmt::Display) -> Self {
        Self { message: format!("{part}: {}", self.message), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A damaged file.
impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::new(FaultKind::Damaged, message)
    }
}

/// A damaged file.
impl From<&str> for Fault {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::new(FaultKind::Unreadable, error.to_string())
    }
}
