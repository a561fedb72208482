//! Differentiable operations, as methods of [`Value`](crate::Value); each file holds an operation and its backward pass.

mod activation;
mod arithmetic;
mod attention;
mod convolution;
mod dropout;
mod embedding;
mod linear;
mod loss;
mod memory;
mod modulation;
mod norm;
pub(crate) mod operation;
mod rotary;
pub(crate) mod row_map;
mod rows;
mod shape;
mod transposed_convolution;

pub use attention::{Attention, RelativePositions};
pub use convolution::Convolution;
pub use modulation::Modulation;
pub use norm::Normalization;
pub use shape::concatenate;
