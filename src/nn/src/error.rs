//! Errors of this crate.

use crate::device::DeviceName;
use candle_core::DType;

/// An error of the neural building blocks, with the expected and the found value.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    /// candle reported an error (a shape, a device, memory).
    #[error(transparent)]
    Candle(candle_core::Error),
    /// Two shapes do not fit together.
    #[error("{operation}: expected {expected}, found {found}")]
    Shape {
        /// The operation.
        operation: &'static str,
        /// The required shape, with axis names.
        expected: String,
        /// The shape that was given.
        found: String,
    },
    /// A tensor whose element type or device has no kernel here.
    #[error("{operation}: no kernel for {dtype:?} tensors on {device} (f32 on the CPU has one)")]
    Unsupported {
        /// The operation.
        operation: &'static str,
        /// Element type of the tensor.
        dtype: DType,
        /// Device of the tensor.
        device: String,
    },
    /// A device that cannot be used.
    #[error("device {name}: {reason}")]
    NoDevice {
        /// Name of the device.
        name: DeviceName,
        /// The reason, and what to do.
        reason: String,
    },
    /// An index outside of its table.
    #[error("{operation}: index {index} is outside of a table of {size} rows")]
    Index {
        /// The operation.
        operation: &'static str,
        /// The index.
        index: i64,
        /// Number of rows of the table.
        size: usize,
    },
    /// A number that the operation cannot work with.
    #[error("{what}: {message}")]
    Invalid {
        /// The setting or argument.
        what: &'static str,
        /// The reason.
        message: String,
    },
    /// A number that came out as NaN or infinite.
    #[error("{what}: {message}")]
    NotFinite {
        /// The operation.
        what: &'static str,
        /// The number, and where it came out.
        message: String,
    },
    /// A parameter name given twice.
    #[error("a parameter named `{0}` exists already")]
    DuplicateParameter(String),
    /// `backward` was called on a value that no tape has recorded.
    #[error("backward: the loss does not depend on any trainable parameter, or was recorded on another tape")]
    NotRecorded,
}

/// Returns candle's message without the backtrace that it adds when `RUST_BACKTRACE` is set, which would bury the part that says what
/// to do.
impl From<candle_core::Error> for NnError {
    fn from(error: candle_core::Error) -> Self {
        match error {
            candle_core::Error::WithBacktrace { inner, .. } => Self::from(*inner),
            error => Self::Candle(error),
        }
    }
}

impl NnError {
    /// A shape error; `expected` names the axes.
    pub fn shape(operation: &'static str, expected: impl Into<String>, found: &[usize]) -> Self {
        Self::Shape { operation, expected: expected.into(), found: format!("{found:?}") }
    }

    /// An invalid argument.
    pub fn invalid(what: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { what, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_candle_is_told_without_its_backtrace() {
        let inner = Box::new(candle_core::Error::Msg("out of memory".into()));
        let backtrace = Box::new(std::backtrace::Backtrace::force_capture());
        let error = NnError::from(candle_core::Error::WithBacktrace { inner, backtrace });
        assert_eq!(error.to_string(), "out of memory");
    }
}
