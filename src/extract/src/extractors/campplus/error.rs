//! The reasons why weights are not those of a CAM++ encoder.

use flowmill_nn::NnError;
use flowmill_weights::WeightError;

use crate::{StateError, UnusableWeights};

impl From<CampplusError> for UnusableWeights {
    fn from(error: CampplusError) -> Self {
        match error {
            CampplusError::File(error) => error.into(),
            other => Self(other.to_string()),
        }
    }
}

/// Weights that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CampplusError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] WeightError),
    /// A tensor cannot be copied or converted.
    #[error(transparent)]
    Tensor(#[from] NnError),
    /// A state lacks an array.
    #[error(transparent)]
    State(#[from] StateError),
    /// A tensor is not there.
    #[error("these are not the weights of a CAM++ encoder: it has no `{0}`")]
    Missing(String),
    /// A tensor is there that no CAM++ encoder has.
    #[error("these are not the weights of a CAM++ encoder: it has {count} tensors more, such as `{first}`")]
    Extra {
        /// The number of such tensors.
        count: usize,
        /// The name of one of them.
        first: String,
    },
    /// A tensor has another shape than the others ask for.
    #[error("`{name}` has the shape {found:?}, a CAM++ encoder with the rest of these weights needs {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// The shape.
        found: Vec<usize>,
        /// The expected shape.
        expected: Vec<usize>,
    },
    /// A graph has another operation than a CAM++ encoder has at this place.
    #[error("this graph is not that of a CAM++ encoder: {0}")]
    Graph(String),
    /// A number that makes no sense.
    #[error("`{name}` {problem}")]
    Number {
        /// The tensor.
        name: String,
        /// The fault.
        problem: String,
    },
}

/// The result of every fallible function about weights.
pub(super) type Result<T> = std::result::Result<T, CampplusError>;

/// The error of a tensor of another shape.
pub(super) fn expect_shape(name: &str, found: &[usize], expected: &[usize]) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(CampplusError::Shape { name: name.to_owned(), found: found.to_vec(), expected: expected.to_vec() })
}
