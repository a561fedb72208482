//! Errors of weight files.

use std::path::Path;

use crate::{ElementType, FaultKind};

/// An error of reading, converting or writing weights.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// A file that cannot be read or written, is damaged, or has unusable contents.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: String,
        /// The kind of the problem.
        kind: FaultKind,
        /// The problem, and what to do.
        message: String,
    },
    /// An index that no tensor of the file has.
    #[error("there is no tensor {index}: the file has {count}")]
    NoTensor {
        /// The index.
        index: usize,
        /// Number of tensors in the file.
        count: usize,
    },
    /// Bytes that do not fill a shape.
    #[error("a stored tensor: {bytes} bytes for {element} of shape {shape:?}")]
    Size {
        /// Number of bytes.
        bytes: usize,
        /// Type of the elements.
        element: ElementType,
        /// Shape of the tensor.
        shape: Vec<usize>,
    },
    /// Elements that are not contiguous `f32` on the CPU.
    #[error("a tensor to write must be contiguous f32 on the CPU")]
    NotOnHost,
    /// candle reported an error of a conversion or a copy.
    #[error(transparent)]
    Candle(candle_core::Error),
}

/// Returns candle's message without the backtrace that it adds when `RUST_BACKTRACE` is set.
impl From<candle_core::Error> for WeightError {
    fn from(error: candle_core::Error) -> Self {
        match error {
            candle_core::Error::WithBacktrace { inner, .. } => Self::from(*inner),
            error => Self::Candle(error),
        }
    }
}

impl WeightError {
    /// Returns the message without the name of the file if that is `path`, for callers that name it themselves.
    pub fn about(self, path: &Path) -> String {
        match self {
            Self::File { path: own, message, .. } if Path::new(&own) == path => message,
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_candle_is_given_without_its_backtrace() {
        let inner = Box::new(candle_core::Error::Msg("no such conversion".into()));
        let backtrace = Box::new(std::backtrace::Backtrace::force_capture());
        let error = WeightError::from(candle_core::Error::WithBacktrace { inner, backtrace });
        assert_eq!(error.to_string(), "no such conversion");
    }
}
