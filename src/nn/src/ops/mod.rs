//! Differentiable operations, as methods of [`Value`](crate::Value); each file holds an operation and its backward pass.

mod activation;
mod arithmetic;
mod attention;
mod convolution;
mod convolution2d;
mod cross_entropy;
mod dropout;
mod embedding;
mod embedding_sum;
mod exponential;
mod gated;
mod linear;
mod loss;
mod memory;
mod modulation;
mod norm;
pub(crate) mod operation;
mod rms_norm;
mod rotary;
pub(crate) mod row_map;
mod rows;
mod select_rows;
mod shape;
mod transposed_convolution;

pub use attention::{Attention, RelativePositions};
pub use convolution::Convolution;
pub use convolution2d::Convolution2d;
pub use cross_entropy::TargetScore;
pub use embedding_sum::{EntrySums, TableEntry, sum_embeddings};
pub use modulation::Modulation;
pub use norm::Normalization;
pub use shape::concatenate;
